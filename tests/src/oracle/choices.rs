//! Numbers that a program is made up with.

use crate::Random;

/// Random numbers, each of which takes some of the choices, as long as there are any.
pub(super) struct Choices<'c> {
    random: Random,
    choices: &'c [u8],
}

impl<'c> Choices<'c> {
    pub(super) fn new(choices: &'c [u8]) -> Self {
        let mut new = Self { random: Random(0), choices };
        new.random.0 = new.choice();
        new
    }

    /// Others, from the same beginning.
    pub(super) fn others(choices: &'c [u8]) -> Self {
        let mut new = Self::new(choices);
        new.random.0 = !new.random.0;
        new
    }

    /// The next eight bytes, with zeros behind the last.
    fn choice(&mut self) -> u64 {
        let (taken, rest) = self.choices.split_at(self.choices.len().min(8));
        self.choices = rest;
        let mut bytes = [0; 8];
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    fn next(&mut self) -> u64 {
        let choice = self.choice();
        self.random.draw_with(choice)
    }

    pub(super) fn below(&mut self, limit: u32) -> u32 {
        (self.next() % u64::from(limit)) as u32
    }

    pub(super) fn between(&mut self, least: u32, most: u32) -> u32 {
        least + self.below(most - least + 1)
    }

    pub(super) fn chance(&mut self, of: u32) -> bool {
        self.below(of) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u32) as usize]
    }

    pub(super) fn byte(&mut self) -> i8 {
        self.next() as i8
    }

    /// From -1 to 1.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

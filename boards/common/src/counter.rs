//! How many instructions something takes, on boards that count them.

/// A counter of instructions.
#[derive(Clone, Copy)]
pub struct Counter {
    /// What counts up, and begins anew behind 2^32 - 1.
    pub ticks: fn() -> u32,
    /// So many instructions ...
    pub instructions: u32,
    /// ... take so many ticks.
    pub of_ticks: u32,
}

impl Counter {
    /// The instructions since the counter stood at `start`, which is less than 2^32 ticks ago.
    #[must_use]
    pub fn since(&self, start: u32) -> u64 {
        let ticks = u64::from((self.ticks)().wrapping_sub(start));
        ticks * u64::from(self.instructions) / u64::from(self.of_ticks.max(1))
    }
}

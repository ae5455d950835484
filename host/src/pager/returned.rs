//! Which pinned tiles give their memory back first.

/// Numbers of pinned tiles whose memory was given back: evenly spread, however many there are, as
/// numbers are that follow one another with their bits the other way round.
#[derive(Debug)]
pub(super) struct Returned {
    count: usize,
    /// Bits of a number.
    bits: u32,
    /// Numbers that are less the other way round.
    before: u64,
}

impl Returned {
    /// None yet, of `all`.
    pub(super) fn new(all: usize) -> Self {
        Self { count: 0, bits: all.next_power_of_two().trailing_zeros(), before: 0 }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    fn turned(&self, number: u64) -> u64 {
        number.reverse_bits().checked_shr(u64::BITS - self.bits).unwrap_or(0)
    }

    /// Whether a number is one of them.
    pub(super) fn holds(&self, number: usize) -> bool {
        self.turned(number as u64) < self.before
    }

    /// One more of `all`, while there are others.
    pub(super) fn next(&mut self, all: usize) -> usize {
        loop {
            let number = self.turned(self.before) as usize;
            self.before += 1;
            if number < all {
                self.count += 1;
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_given_back_once_and_those_that_are_lie_evenly() {
        for all in [1, 2, 3, 7, 64, 100] {
            let mut returned = Returned::new(all);
            let mut numbers: Vec<_> = (0..all / 2).map(|_| returned.next(all)).collect();
            numbers.sort_unstable();
            assert!(numbers.windows(2).all(|pair| pair[1] - pair[0] <= 4), "{all}: {numbers:?}");
            assert_eq!(
                (0..all).filter(|number| returned.holds(*number)).collect::<Vec<_>>(),
                numbers
            );
            numbers.extend((numbers.len()..all).map(|_| returned.next(all)));
            numbers.sort_unstable();
            assert_eq!(numbers, (0..all).collect::<Vec<_>>());
            assert_eq!(returned.count(), all);
        }
    }
}

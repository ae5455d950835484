//! How many instructions something takes, on boards that count them.

use crate::medium::Medium;
use omex_hal_adapters::SetupError;

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
    #[cfg(feature = "int8")]
    pub(crate) fn since(&self, start: u32) -> u64 {
        let ticks = u64::from((self.ticks)().wrapping_sub(start));
        ticks * u64::from(self.instructions) / u64::from(self.of_ticks.max(1))
    }
}

/// A medium of a board that counts instructions.
pub struct Counted<M>(pub M, pub Counter);

impl<M: Medium> Medium for Counted<M> {
    type Pager<'m>
        = M::Pager<'m>
    where
        Self: 'm;

    const COPIES: bool = M::COPIES;

    fn pager<'m>(
        &'m self,
        memory: &'m mut [u8],
        page_size: u32,
        length: u64,
    ) -> Result<Self::Pager<'m>, SetupError> {
        self.0.pager(memory, page_size, length)
    }

    fn bytes_read(&self) -> Option<u64> {
        self.0.bytes_read()
    }

    fn counter(&self) -> Option<Counter> {
        Some(self.1)
    }
}

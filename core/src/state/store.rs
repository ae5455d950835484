//! Where states lie that the arena has no room for.

use crate::error::KvError;
use core::ops::Range;

/// Keeps the states of all sequences where the arena has no room for them.
///
/// Every pass asks for them in the same order, which is the best one to read ahead in.
pub trait StateStore {
    /// Waits until state `index` of a sequence is in memory and returns its bytes, as many as the
    /// [`State`](super::State) needs by the plan, on a multiple of 16. They hold what they held
    /// before, of a KV cache at `places`; a store of one sequence may forget what lies behind, unless
    /// this is the state that was asked for last.
    ///
    /// # Errors
    /// A state that is missing or can't be read back, or one before it that can't be written.
    fn state(
        &mut self,
        sequence: u32,
        index: u32,
        places: Range<u32>,
    ) -> Result<&mut [u8], KvError>;

    /// Says that these places of the KV cache that was asked for last were changed.
    fn changed(&mut self, places: Range<u32>);

    /// Has sequence `to` hold what `from` holds of its first `length` positions, and nothing else.
    /// Both may be the same, and are where there is only one.
    ///
    /// # Errors
    /// A sequence that is missing.
    fn fork(&mut self, from: u32, to: u32, length: u32) -> Result<(), KvError>;
}

//! Where KV caches lie that the arena has no room for.

use crate::error::KvError;
use core::ops::Range;

/// Keeps the KV caches of one sequence where the arena has no room for them.
///
/// Every pass asks for the caches in the same order, which is the best one to read ahead in.
pub trait KvStore {
    /// Waits until cache `index` is in memory and returns its bytes, as many as its
    /// [`State`](super::State) needs by the plan, on a multiple of 16. They hold
    /// what they held before at `places`; what lies behind is forgotten, unless this is the cache
    /// that was asked for last.
    ///
    /// # Errors
    /// A cache that can't be read back, or one before it that can't be written.
    fn cache(&mut self, index: u32, places: Range<u32>) -> Result<&mut [u8], KvError>;

    /// Says that these places of the cache that was asked for last were changed.
    fn changed(&mut self, places: Range<u32>);
}

//! KV caches in memory that grow with the text, and lend the pager what they don't use yet.
//!
//! The operating system gives a page of memory when it is first written to. So what lies behind the
//! text takes nothing, and weights can be pinned in its stead, until the text comes near.

use crate::{Error, Result};
use memmap2::MmapMut;
use omex_core::state::kv::KvShape;
use omex_core::state::{KvError, KvErrorKind, KvStore};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the operating system gives at once.
const PAGE: usize = 4096;
/// Places that the text grows by before bytes are counted anew.
const STEP: u32 = 64;

/// Bytes that are lent now; they only become fewer.
#[derive(Clone, Debug, Default)]
pub struct Lent(Arc<AtomicU64>);

impl Lent {
    /// How many.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Lends so many from now on: fewer than before, once a pager relies on them.
    pub fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

/// Caches that are all alike, in a plan that streams weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lending {
    /// The shape of each.
    pub(crate) shape: KvShape,
    /// How many there are.
    pub(crate) caches: u32,
    /// Places that one pass writes at most.
    pub(crate) columns: u32,
}

impl Lending {
    /// Bytes that are lent while a text is not longer than so many places: whole pages, in which
    /// nothing lies but what is behind them, and behind what two passes may add before the pager looks
    /// again.
    pub(crate) fn bytes(&self, places: u32) -> u64 {
        let used = places.max(STEP).saturating_add(self.columns.saturating_mul(2));
        let whole = |range: Range<usize>| (range.len() / PAGE).saturating_sub(1) * PAGE;
        let unused = used.min(self.shape.capacity)..self.shape.capacity;
        let of_cache: usize = self.shape.ranges(unused).map(whole).sum();
        of_cache as u64 * u64::from(self.caches)
    }
}

/// The memory of such caches.
pub(crate) struct LendingCaches {
    memory: MmapMut,
    plan: Lending,
    /// Places that memory was counted for.
    counted: u32,
    lent: Lent,
}

impl LendingCaches {
    /// Memory for the caches of a plan.
    ///
    /// # Errors
    /// Memory that can't be had.
    pub(crate) fn new(plan: Lending) -> Result<Self> {
        let failed = |e| Error::io(Path::new("memory"), "get", e);
        let bytes = usize::try_from(plan.shape.bytes() * u64::from(plan.caches).max(1));
        let bytes = bytes.map_err(|_| failed(std::io::ErrorKind::OutOfMemory.into()))?;
        let memory = MmapMut::map_anon(bytes).map_err(failed)?;
        // A large page is given whole, however little of it is used.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::NoHugePage);
        let mut caches = Self { memory, plan, counted: 0, lent: Lent::default() };
        caches.count(STEP);
        Ok(caches)
    }

    /// What is lent.
    pub(crate) fn lent(&self) -> Lent {
        self.lent.clone()
    }

    fn count(&mut self, places: u32) {
        self.counted = places;
        self.lent.set(self.plan.bytes(places));
    }
}

impl KvStore for LendingCaches {
    fn cache(&mut self, index: u32, places: Range<u32>) -> std::result::Result<&mut [u8], KvError> {
        if places.end > self.counted {
            self.count(places.end.saturating_add(STEP));
        }
        let missing = KvError { cache: index, kind: KvErrorKind::Read };
        let bytes = self.plan.shape.bytes() as usize;
        let start = (index as usize).checked_mul(bytes).ok_or(missing)?;
        self.memory.get_mut(start..start.saturating_add(bytes)).ok_or(missing)
    }

    fn changed(&mut self, _places: Range<u32>) {}
}

//! Where KV caches lie: in the arena, or with a [`KvStore`] that may keep some of them elsewhere.

use crate::error::RunError;
use crate::kv::Shape;
use core::fmt;
use core::ops::Range;

/// Keeps the KV caches of one sequence where the arena has no room for them.
///
/// Every pass asks for the caches in the same order, which is the best one to read ahead in.
pub trait KvStore {
    /// Waits until cache `index` is in memory and returns its bytes, on a multiple of 16. They hold
    /// what they held before at `places`; what lies behind is forgotten, unless this is the cache
    /// that was asked for last.
    ///
    /// # Errors
    /// A cache that can't be read back, or one before it that can't be written.
    fn cache(&mut self, index: u32, places: Range<u32>) -> Result<&mut [u8], KvError>;

    /// Says that these places of the cache that was asked for last were changed.
    fn changed(&mut self, places: Range<u32>);
}

/// A KV cache that could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvError {
    /// The cache's number.
    pub cache: u32,
    /// What went wrong.
    pub kind: KvErrorKind,
}

/// What went wrong with a KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvErrorKind {
    /// It could not be written; the text can't go on.
    Write,
    /// It could not be read.
    Read,
    /// The bytes do not match their checksum, even when read again.
    Checksum,
}

impl fmt::Display for KvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            KvErrorKind::Write => "could not be written",
            KvErrorKind::Read => "could not be read",
            KvErrorKind::Checksum => "does not match its checksum, read twice",
        };
        write!(f, "KV cache {} {what}", self.cache)
    }
}

impl core::error::Error for KvError {}

impl From<KvError> for RunError {
    fn from(e: KvError) -> Self {
        Self::Kv(e)
    }
}

/// The KV caches of an engine.
pub(crate) enum Caches<'a> {
    Arena(&'a mut [u8]),
    Store(&'a mut dyn KvStore),
}

impl Caches<'_> {
    /// The bytes of cache `index`, which hold what they held at `places`.
    pub(crate) fn get(
        &mut self,
        shape: &Shape,
        index: u32,
        places: Range<u32>,
    ) -> Result<&mut [u8], RunError> {
        let bytes = usize::try_from(shape.bytes()).map_err(|_| RunError::Program)?;
        let cache = match self {
            Self::Arena(kv) => kv.chunks_exact_mut(bytes.max(1)).nth(index as usize),
            Self::Store(store) => store.cache(index, places)?.get_mut(..bytes),
        };
        cache.ok_or(RunError::Program)
    }

    /// Says that this place of the cache that was asked for last was changed.
    pub(crate) fn changed(&mut self, place: u32) {
        if let Self::Store(store) = self {
            store.changed(place..place.saturating_add(1));
        }
    }
}

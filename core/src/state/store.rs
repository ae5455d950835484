//! Where states lie: in the arena, or KV caches with a [`KvStore`] that may keep some elsewhere.

use super::State;
use crate::arena::Plan;
use crate::error::RunError;
use crate::program::Program;
use core::fmt;
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

/// The states of an engine, sequence after sequence.
pub(crate) enum States<'a> {
    Arena(&'a mut [u8]),
    Store(&'a mut dyn KvStore),
}

/// Where a sequence's state lies in the arena.
fn place(
    program: &Program<'_>,
    plan: &Plan,
    index: u32,
    sequence: u32,
) -> Result<Range<usize>, RunError> {
    let size = |bytes| usize::try_from(bytes).map_err(|_| RunError::Program);
    let sum = |count: usize| -> u64 {
        program.states().take(count).map(|state| plan.state_bytes(&state)).sum()
    };
    let before = sum(index as usize);
    let all = if sequence == 0 { 0 } else { sum(usize::MAX) };
    let start = size(u64::from(sequence).saturating_mul(all).saturating_add(before))?;
    let state = program.state(index).ok_or(RunError::Program)?;
    Ok(start..start.saturating_add(size(plan.state_bytes(&state))?))
}

impl States<'_> {
    /// The bytes of a sequence's state, which hold what they held: of a KV cache, at `places`.
    pub(crate) fn get(
        &mut self,
        program: &Program<'_>,
        plan: &Plan,
        index: u32,
        sequence: u32,
        places: Range<u32>,
    ) -> Result<(State, &mut [u8]), RunError> {
        let state = program.state(index).ok_or(RunError::Program)?;
        let place = place(program, plan, index, sequence)?;
        let memory = match self {
            Self::Arena(memory) => memory.get_mut(place),
            Self::Store(store) => store.cache(index, places)?.get_mut(..place.len()),
        };
        Ok((state, memory.ok_or(RunError::Program)?))
    }

    /// Copies what a sequence's states hold of its first `length` positions to another's.
    pub(crate) fn copy(
        &mut self,
        program: &Program<'_>,
        plan: &Plan,
        (from, to): (u32, u32),
        length: u32,
    ) -> Result<(), RunError> {
        let Self::Arena(memory) = self else { return Ok(()) };
        for (index, state) in (0..).zip(program.states()) {
            let [from, to] = [from, to].map(|sequence| place(program, plan, index, sequence));
            let (from, to) = (from?, to?);
            if from.end > memory.len() || to.end > memory.len() {
                return Err(RunError::Program);
            }
            match plan.cache_shape(&state) {
                None => memory.copy_within(from, to.start),
                Some(shape) => shape.ranges(0..length).for_each(|range| {
                    let source = from.start + range.start..from.start + range.end;
                    memory.copy_within(source, to.start + range.start);
                }),
            }
        }
        Ok(())
    }

    /// Says that this place of the cache that was asked for last was changed.
    pub(crate) fn changed(&mut self, place: u32) {
        if let Self::Store(store) = self {
            store.changed(place..place.saturating_add(1));
        }
    }
}

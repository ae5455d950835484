//! Where states lie: in the arena, or with a [`StateStore`] that may keep some elsewhere.

use crate::error::RunError;
use crate::plan::Plan;
use crate::program::Program;
use crate::state::{State, StateStore};
use core::ops::Range;

/// The states of an engine, sequence after sequence.
pub(crate) enum States<'a> {
    Arena(&'a mut [u8]),
    Store(&'a mut dyn StateStore),
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
        let memory = match self {
            Self::Arena(memory) => memory.get_mut(place(program, plan, index, sequence)?),
            Self::Store(store) => {
                let bytes = plan.state_bytes(&state) as usize;
                store.state(sequence, index, places)?.get_mut(..bytes)
            }
        };
        Ok((state, memory.ok_or(RunError::Program)?))
    }

    /// Has a sequence's states hold what another's hold of its first `length` positions.
    pub(crate) fn fork(
        &mut self,
        program: &Program<'_>,
        plan: &Plan,
        (from, to): (u32, u32),
        length: u32,
    ) -> Result<(), RunError> {
        let memory = match self {
            Self::Store(store) => return Ok(store.fork(from, to, length)?),
            Self::Arena(_) if from == to => return Ok(()),
            Self::Arena(memory) => memory,
        };
        for (index, state) in (0..).zip(program.states()) {
            let [from, to] = [from, to].map(|sequence| place(program, plan, index, sequence));
            let (from, to) = (from?, to?);
            if from.end > memory.len() || to.end > memory.len() {
                return Err(RunError::Program);
            }
            for range in plan.held_ranges(&state, length) {
                let source = from.start + range.start..from.start + range.end;
                memory.copy_within(source, to.start + range.start);
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

//! The states of texts, in memory that grows with them.
//!
//! The operating system gives a page of memory when it is first written to, so what lies behind a
//! text takes nothing. Several texts share what is set aside for them, though each may become as long
//! as the context; one text lends weights what it does not use yet.
#![expect(unsafe_code, reason = "pages of memory are given back by their addresses")]

use crate::{Error, Result};
use memmap2::{MmapMut, MmapOptions, UncheckedAdvice};
use omex_core::arena::Plan;
use omex_core::program::Program;
use omex_core::state::{KvError, KvErrorKind, State, StateStore};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the operating system gives at once.
const PAGE: usize = 4096;
/// Places that a text grows by before bytes are counted anew: whole panels of keys.
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

/// What the states of one text take, by its length.
#[derive(Clone, Debug)]
pub(crate) struct TextStates {
    plan: Plan,
    /// Each with where it lies.
    states: Vec<(State, Range<usize>)>,
}

impl TextStates {
    pub(crate) fn new(program: &Program<'_>, plan: &Plan) -> Self {
        let mut start = 0_usize;
        let states = program.states().map(|state| {
            let end = start.saturating_add(plan.state_bytes(&state) as usize);
            (state, std::mem::replace(&mut start, end)..end)
        });
        Self { plan: *plan, states: states.collect() }
    }

    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.states.last().map_or(0, |(_, range)| range.end as u64)
    }

    /// Bytes of memory, in whole pages, that hold a text's first `length` positions.
    pub(crate) fn bytes_of(&self, length: u32) -> u64 {
        let pages =
            |range: Range<usize>| range.end.next_multiple_of(PAGE) - range.start / PAGE * PAGE;
        let held = |(state, place): &(State, Range<usize>)| {
            let start = place.start;
            let ranges = self.plan.held_ranges(state, length);
            ranges.map(|r| pages(start + r.start..start + r.end)).fold(0, usize::saturating_add)
        };
        let all = self.states.iter().map(held).fold(0, usize::saturating_add);
        (all as u64).min(self.bytes())
    }

    /// Bytes that are lent while a text is not longer than so many places: those behind it, and
    /// behind what two passes may add before the pager looks again.
    pub(crate) fn lent(&self, places: u32) -> u64 {
        let used = places.max(STEP).saturating_add(self.plan.columns.saturating_mul(2));
        self.bytes() - self.bytes_of(used)
    }

    /// The whole pages of memory of a state that hold none of a text's first `length` positions, but
    /// some of the first `end`.
    fn pages_behind(&self, index: usize, length: u32, end: u32) -> Vec<Range<usize>> {
        let Some((state, place)) = self.states.get(index) else { return vec![] };
        let Some(shape) = self.plan.cache_shape(state) else { return vec![] };
        let ranges = shape.ranges(length.next_multiple_of(STEP)..end);
        let pages = ranges.map(|range| {
            let [start, end] = [range.start, range.end].map(|at| place.start + at);
            start.next_multiple_of(PAGE)..end / PAGE * PAGE
        });
        pages.filter(|pages| !pages.is_empty()).collect()
    }
}

/// The states of all texts of a plan.
pub(crate) struct StateMemory {
    memory: MmapMut,
    of_text: TextStates,
    /// Places of each text that memory was counted for.
    counted: Vec<u32>,
    /// What one text leaves is lent; what several leave is another's.
    lends: bool,
    lent: Lent,
}

impl StateMemory {
    /// Memory for the states of a program under a plan, which `shares` with others what texts do not
    /// take yet.
    ///
    /// # Errors
    /// Memory that can't be had.
    pub(crate) fn new(program: &Program<'_>, plan: &Plan, shares: bool) -> Result<Self> {
        Self::of(TextStates::new(program, plan), shares)
    }

    fn of(of_text: TextStates, shares: bool) -> Result<Self> {
        let failed = |e| Error::io(Path::new("memory"), "get", e);
        let texts = of_text.plan.sequences as usize;
        let bytes = stride(&of_text).checked_mul(texts);
        let bytes = bytes.ok_or_else(|| failed(std::io::ErrorKind::OutOfMemory.into()))?;
        let memory = MmapOptions::new().len(bytes.max(1)).no_reserve_swap().map_anon();
        let memory = memory.map_err(failed)?;
        // A large page is given whole, however little of it is used.
        #[cfg(target_os = "linux")]
        if shares {
            let _ = memory.advise(memmap2::Advice::NoHugePage);
        }
        let (lends, counted) = (shares && texts == 1, vec![0; texts]);
        let states = Self { memory, of_text, counted, lends, lent: Lent::default() };
        states.lend(STEP);
        Ok(states)
    }

    /// What is lent.
    pub(crate) fn lent(&self) -> Lent {
        self.lent.clone()
    }

    /// Where a text's states begin.
    fn start(&self, sequence: u32) -> Option<usize> {
        let known = (sequence as usize) < self.counted.len();
        known.then(|| stride(&self.of_text) * sequence as usize)
    }

    fn lend(&self, places: u32) {
        if self.lends {
            self.lent.set(self.of_text.lent(places));
        }
    }

    fn count(&mut self, sequence: u32, end: u32) {
        let Some(counted) = self.counted.get_mut(sequence as usize) else { return };
        if end > *counted {
            *counted = end.saturating_add(STEP);
            let places = *counted;
            self.lend(places);
        }
    }

    /// Gives the memory back that lies behind a text's first `length` positions.
    fn give_back(&mut self, sequence: u32, start: usize, length: u32) {
        let Some(counted) = self.counted.get_mut(sequence as usize) else { return };
        let end = std::mem::replace(counted, length.min(*counted));
        for index in 0..self.of_text.states.len() {
            for pages in self.of_text.pages_behind(index, length, end) {
                let (advice, at) = (UncheckedAdvice::DontNeed, start + pages.start);
                // SAFETY: nobody else refers to this memory, and all bytes are valid in it, zeros too.
                let given = unsafe { self.memory.unchecked_advise_range(advice, at, pages.len()) };
                // It stays ours where it can't be given back.
                let _ = given;
            }
        }
    }
}

/// Bytes from one text's states to the next one's: whole pages.
fn stride(of_text: &TextStates) -> usize {
    (of_text.bytes() as usize).checked_next_multiple_of(PAGE).unwrap_or(usize::MAX)
}

impl StateStore for StateMemory {
    fn state(
        &mut self,
        sequence: u32,
        index: u32,
        places: Range<u32>,
    ) -> std::result::Result<&mut [u8], KvError> {
        let missing = KvError { cache: index, kind: KvErrorKind::Read };
        self.count(sequence, places.end);
        let start = self.start(sequence).ok_or(missing)?;
        let (_, place) = self.of_text.states.get(index as usize).ok_or(missing)?;
        self.memory.get_mut(start + place.start..start + place.end).ok_or(missing)
    }

    fn changed(&mut self, _places: Range<u32>) {}

    fn fork(&mut self, from: u32, to: u32, length: u32) -> std::result::Result<(), KvError> {
        let missing = KvError { cache: 0, kind: KvErrorKind::Read };
        let [source, target] = [from, to].map(|sequence| self.start(sequence).ok_or(missing));
        let (source, target) = (source?, target?);
        if from != to {
            self.count(to, length);
            for (state, place) in &self.of_text.states {
                for range in self.of_text.plan.held_ranges(state, length) {
                    let held = source + place.start + range.start..source + place.start + range.end;
                    self.memory.copy_within(held, target + place.start + range.start);
                }
            }
        }
        self.give_back(to, target, length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use omex_core::state::kv::KvFormat;
    use proptest::prelude::*;

    const CAPACITY: u32 = 700;

    fn states(format: KvFormat) -> TextStates {
        let plan = Plan {
            columns: 4,
            logit_columns: 1,
            kv_capacity: CAPACITY,
            kv_sinks: 4,
            kv_format: format,
            sequences: 3,
        };
        let kv = |window| State::Kv { heads: 2, width: 24, window };
        let mut start = 0;
        let states = [kv(0), State::Bytes(100), kv(90), kv(0)].map(|state| {
            let end = start + plan.state_bytes(&state) as usize;
            (state, std::mem::replace(&mut start, end)..end)
        });
        TextStates { plan, states: states.into() }
    }

    /// What a text's states hold of its first `length` positions.
    fn held(memory: &mut StateMemory, sequence: u32, length: u32) -> Vec<u8> {
        let mut held = vec![];
        for (index, (state, _)) in (0..).zip(memory.of_text.states.clone()) {
            let ranges = memory.of_text.plan.held_ranges(&state, length);
            let bytes = memory.state(sequence, index, 0..length).unwrap();
            ranges.for_each(|range| held.extend(&bytes[range]));
        }
        held
    }

    /// Puts a text of its own there.
    fn fill(memory: &mut StateMemory, sequence: u32, seed: u8) {
        for index in 0..memory.of_text.states.len() as u32 {
            let bytes = memory.state(sequence, index, 0..CAPACITY).unwrap();
            bytes.iter_mut().zip(1_u32..).for_each(|(byte, at)| *byte = (at % 251) as u8 ^ seed);
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_over_stays_whatever_becomes_of_the_rest(
            format in prop::sample::select(vec![KvFormat::Half, KvFormat::Single, KvFormat::Int8]),
            forks in prop::collection::vec((0_u32..3, 0_u32..3, 0..=CAPACITY), 1..12),
        ) {
            let mut memory = StateMemory::of(states(format), true).unwrap();
            let mut lengths = [CAPACITY; 3];
            (0..3).for_each(|text| fill(&mut memory, text, text as u8));
            for (from, to, length) in forks {
                let length = length.min(lengths[from as usize]);
                let expected = held(&mut memory, from, length);
                let others: Vec<_> = (0..3).filter(|text| *text != to).collect();
                let before = others.iter().map(|t| held(&mut memory, *t, lengths[*t as usize]));
                let before: Vec<_> = before.collect();
                memory.fork(from, to, length).unwrap();
                lengths[to as usize] = length;
                prop_assert!(held(&mut memory, to, length) == expected);
                let after = others.iter().map(|t| held(&mut memory, *t, lengths[*t as usize]));
                prop_assert!(after.collect::<Vec<_>>() == before);
            }
        }
    }

    #[test]
    fn memory_behind_a_text_is_given_back() {
        let mut memory = StateMemory::of(states(KvFormat::Single), true).unwrap();
        fill(&mut memory, 1, 7);
        memory.fork(1, 1, 100).unwrap();
        let place = memory.of_text.states[3].1.clone();
        let bytes = &memory.memory[memory.start(1).unwrap() + place.start..][..place.len()];
        assert!(bytes.iter().filter(|byte| **byte == 0).count() > place.len() / 2);
        assert!(memory.of_text.bytes_of(100) < memory.of_text.bytes() / 2);
    }

    #[test]
    fn only_one_text_lends_what_it_leaves() {
        let one = |format| {
            let mut states = states(format);
            states.plan.sequences = 1;
            states
        };
        let lent = |states: TextStates, shares| {
            let mut memory = StateMemory::of(states, shares).unwrap();
            let before = memory.lent().bytes();
            fill(&mut memory, 0, 1);
            [before, memory.lent().bytes()]
        };
        let [before, after] = lent(one(KvFormat::Single), true);
        assert!(before > after && after == 0, "{before} and {after}");
        assert_eq!(lent(states(KvFormat::Single), true), [0, 0]);
        assert_eq!(lent(one(KvFormat::Single), false), [0, 0]);
    }

    #[test]
    fn a_text_that_is_missing_is_an_error() {
        let mut memory = StateMemory::of(states(KvFormat::Half), true).unwrap();
        assert!(memory.state(3, 0, 0..1).is_err() && memory.state(0, 4, 0..1).is_err());
        assert!(memory.fork(0, 3, 1).is_err() && memory.fork(3, 0, 1).is_err());
    }
}

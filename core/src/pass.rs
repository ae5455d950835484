//! The inputs of a pass: a token a column, each at a position of a sequence.
//!
//! A sequence is a text with KV caches of its own. Consecutive inputs of one sequence whose
//! positions go up by one are a run. An attention takes run after run: it stores the run's keys
//! and values, then the run's columns attend to the places up to their own.
//!
//! So inputs may branch: a tree of drafted tokens is given in preorder, each token one position
//! behind its parent, and none before the first input of its sequence. When a run attends, the
//! places before it hold its ancestors, since what other branches stored lies at its own positions,
//! and is overwritten, or behind them, where it does not look. Every key lies in the very place
//! where plain decoding puts it: no mask is needed, and the logits are the same bits.
//!
//! A branch overwrites the one before it. Where inputs branch, each column's key and value are
//! therefore stored once more, in a spare place behind all positions of the pass, from which
//! [`crate::engine::Engine::accept`] takes those of the branch that stays.

use crate::error::RunError;
use crate::plan::Plan;
use crate::program::{Counts, PartKind, Program};
use crate::state::Reach;
use core::ops::Range;

/// The last position of a text: up to here, positions are exact as 32-bit floats.
pub const LAST_POSITION: u32 = 1 << 24;

/// A column of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// The token.
    pub token: u32,
    /// The text that it belongs to, below the plan's `sequences`.
    pub sequence: u32,
    /// Where it stands in the text.
    pub position: u32,
    /// Whether the logits of what follows it are wanted.
    pub logits: bool,
    /// The part that is its adapter ([`Program::adapter`](crate::program::Program::adapter)); 0 for
    /// none.
    pub adapter: u16,
    /// The segment of its text that it is in, for models that tell pairs of texts apart; else 0.
    pub segment: u8,
}

/// Consecutive inputs of one sequence, at consecutive positions.
pub(crate) struct Run {
    pub(crate) sequence: u32,
    /// Of the first column.
    pub(crate) position: u32,
    pub(crate) columns: Range<usize>,
}

impl Run {
    pub(crate) fn position_of(&self, column: usize) -> u32 {
        self.position.saturating_add(column.saturating_sub(self.columns.start) as u32)
    }
}

/// The inputs of the pass under way, or of the last one.
pub(crate) struct Inputs<'a> {
    records: &'a mut [Record],
    count: usize,
    /// Where spare places begin, if the inputs branch.
    spare: Option<u32>,
}

/// An input in the arena: token, sequence, position, and from the lowest bit on if its logits are
/// wanted, its adapter, and its segment.
pub(crate) type Record = [u32; 4];

fn to_record(input: Input) -> Record {
    // Only a build that plays them has any use for segments.
    let segment = if cfg!(feature = "float") { u32::from(input.segment) << 17 } else { 0 };
    let wanted = segment | u32::from(input.adapter) << 1 | u32::from(input.logits);
    [input.token, input.sequence, input.position, wanted]
}

fn from_record([token, sequence, position, wanted]: &Record) -> Input {
    let (token, sequence, position) = (*token, *sequence, *position);
    let (logits, adapter) = (wanted & 1 == 1, (wanted >> 1) as u16);
    let segment = if cfg!(feature = "float") { (wanted >> 17) as u8 } else { 0 };
    Input { token, sequence, position, logits, adapter, segment }
}

impl<'a> Inputs<'a> {
    /// No inputs, with room for as many as there are records.
    pub(crate) fn new(records: &'a mut [Record]) -> Self {
        Self { records, count: 0, spare: None }
    }

    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    /// Replaces the inputs; after an error there are none.
    pub(crate) fn set(&mut self, inputs: impl Iterator<Item = Input>) -> Result<(), RunError> {
        self.count = 0;
        let mut given = 0;
        let mut records = self.records.iter_mut();
        for input in inputs {
            if let Some(record) = records.next() {
                *record = to_record(input);
            }
            given += 1;
        }
        let limit = self.records.len() as u32;
        if given == 0 || given > limit {
            return Err(RunError::TokenCount { given, limit });
        }
        self.count = given as usize;
        self.spare = self.find_spare();
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// How many columns there are.
    pub(crate) fn counts(&self) -> Counts {
        Counts { tokens: self.count, outputs: self.selected().count() }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Input> + ExactSizeIterator {
        self.records.get(..self.count).unwrap_or_default().iter().map(from_record)
    }

    /// The columns whose logits are wanted.
    pub(crate) fn selected(&self) -> impl Iterator<Item = usize> {
        self.iter().enumerate().filter_map(|(column, input)| input.logits.then_some(column))
    }

    /// Where spare places begin; only a build that plays branches has any use for them.
    pub(crate) fn spare(&self) -> Option<u32> {
        self.spare.filter(|_| cfg!(feature = "branches"))
    }

    /// The run that begins with this column.
    pub(crate) fn run(&self, first: usize) -> Option<Run> {
        let Input { sequence, position, .. } = self.iter().nth(first)?;
        let mut run = Run { sequence, position, columns: first..first };
        for input in self.iter().skip(first) {
            if input.sequence != sequence || input.position != run.position_of(run.columns.end) {
                break;
            }
            run.columns.end += 1;
        }
        Some(run)
    }

    fn runs(&self) -> impl Iterator<Item = Run> {
        let mut first = 0;
        core::iter::from_fn(move || {
            let run = self.run(first)?;
            first = run.columns.end;
            Some(run)
        })
    }

    /// Where the inputs before `column` end a sequence; `None` if they are of others.
    pub(crate) fn end_before(&self, column: usize, sequence: u32) -> Option<u32> {
        let mut before = self.iter().take(column).rev().filter(|i| i.sequence == sequence);
        before.next().map(|input| input.position.saturating_add(1))
    }

    fn find_spare(&self) -> Option<u32> {
        let branches = |run: Run| {
            self.end_before(run.columns.start, run.sequence).is_some_and(|end| run.position < end)
        };
        let end = self.iter().map(|input| input.position.saturating_add(1)).max();
        end.filter(|_| self.runs().any(branches))
    }

    /// Checks that the inputs can be run, where `ends` says how long each sequence is.
    pub(crate) fn check(
        &self,
        plan: &Plan,
        program: &Program<'_>,
        ends: &[u32],
        reach: &Reach,
    ) -> Result<(), RunError> {
        let vocabulary = program.header().vocab_size;
        if let Some(input) = self.iter().find(|input| input.token >= vocabulary) {
            return Err(RunError::Token(input.token));
        }
        let known = |part| part == 0 || program.part_kind(part) == Some(PartKind::Adapter);
        if let Some(input) = self.iter().find(|input| !known(input.adapter)) {
            return Err(RunError::Adapter(input.adapter));
        }
        let (selected, limit) = (self.selected().count() as u32, plan.logit_columns);
        if selected > limit {
            return Err(RunError::TokenCount { given: selected, limit });
        }
        for run in self.runs() {
            let end = *ends.get(run.sequence as usize).ok_or(RunError::Sequence(run.sequence))?;
            let end = self.end_before(run.columns.start, run.sequence).unwrap_or(end);
            let behind = run.position_of(run.columns.end);
            // Further back lies what the columns before still see.
            let root = self.iter().find(|input| input.sequence == run.sequence);
            let beyond = root.is_some_and(|root| run.position < root.position);
            if beyond || !reach.may_follow(run.position, end) || behind > LAST_POSITION {
                return Err(RunError::Position(run.position));
            }
        }
        match self.spare {
            Some(_) if !cfg!(feature = "branches") => Err(RunError::Branches),
            Some(spare) if self.count as u64 + u64::from(spare) > reach.rewinds.into() => {
                Err(RunError::Branches)
            }
            _ => Ok(()),
        }
    }

    /// Checks that each run is a whole text, of which the cache holds all.
    pub(crate) fn check_whole(&self, plan: &Plan) -> Result<(), RunError> {
        for run in self.runs() {
            let earlier = self.iter().take(run.columns.start);
            if run.position > 0 || earlier.into_iter().any(|i| i.sequence == run.sequence) {
                return Err(RunError::Position(run.position));
            }
            if run.position_of(run.columns.end) > plan.kv_capacity {
                return Err(RunError::Position(plan.kv_capacity));
            }
        }
        Ok(())
    }

    /// The column and its ancestors, last first.
    pub(crate) fn path(&self, column: usize) -> impl Iterator<Item = (usize, Input)> {
        let mut next = self.iter().nth(column).map(|last| (last.sequence, last.position));
        let up_to = self.iter().enumerate().take(column.saturating_add(1)).rev();
        up_to.filter(move |(_, input)| {
            let found = next == Some((input.sequence, input.position));
            if found {
                next = input.position.checked_sub(1).map(|parent| (input.sequence, parent));
            }
            found
        })
    }

    /// The child of a column that holds this token.
    pub(crate) fn child(&self, column: usize, token: u32) -> Option<usize> {
        let parent = self.iter().nth(column)?;
        let descendants = self.iter().enumerate().skip(column + 1);
        let mut descendants = descendants
            .take_while(|(_, i)| i.sequence == parent.sequence && i.position > parent.position);
        let is_child =
            |(_, i): &(usize, Input)| i.position == parent.position + 1 && i.token == token;
        descendants.find(is_child).map(|(column, _)| column)
    }
}

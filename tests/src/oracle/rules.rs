//! What may be done with texts, as the engine's contract says it.

use super::blocks::ADAPTERS;
use super::programs::LONGEST;
use omex_core::arena::Plan;
use omex_core::pass::Input;
use omex_core::program::Program;
use omex_core::state::State;

pub(super) struct Rules {
    pub(super) plan: Plan,
    pub(super) vocabulary: u32,
    pub(super) adapters: Vec<u16>,
    /// Every text is run in one pass.
    pub(super) whole: bool,
    /// Texts that are no longer can go back.
    rewinds: usize,
    /// Texts that are no longer can go back to a column of the last pass.
    accepts: usize,
}

impl Rules {
    pub(super) fn new(program: &Program<'_>, plan: Plan, whole: bool) -> Self {
        let capacity = plan.kv_capacity;
        let shown = program.states().map(|state| match state {
            State::Kv { window: 0, .. } => capacity,
            State::Kv { window, .. } => window.min(capacity),
            // A recurrence goes only on.
            State::Bytes(_) => 0,
        });
        let shown: Vec<u32> = shown.collect();
        let least = shown.iter().copied().min().unwrap_or(LONGEST);
        // A window that slides has room for a pass more.
        let most = if shown.contains(&capacity) { capacity } else { LONGEST };
        let adapters = ADAPTERS.iter().filter_map(|name| program.adapter(name));
        Self {
            plan,
            vocabulary: program.header().vocab_size,
            adapters: [0].into_iter().chain(adapters).collect(),
            whole,
            rewinds: least as usize,
            accepts: if least == 0 { 0 } else { most as usize },
        }
    }

    /// True if a text of this length can go back to the first `length` tokens.
    pub(super) fn may_go_back(&self, from: usize, length: usize) -> bool {
        length == from || length == 0 || from <= self.rewinds
    }

    /// True if a pass over these inputs may follow texts of these lengths.
    pub(super) fn allow(&self, lengths: &[usize], inputs: &[Input]) -> bool {
        let follows = |column: usize| {
            let input = inputs[column];
            let position = input.position as usize;
            match (first_of(&inputs[..column], input), end_of(&inputs[..column], input)) {
                (Some(first), Some(end)) => {
                    position == end || !self.whole && (first..end).contains(&position)
                }
                _ => {
                    let length = lengths[input.sequence as usize];
                    position <= length && self.may_go_back(length, position)
                }
            }
        };
        let ends = inputs.iter().map(|input| input.position as usize + 1);
        let furthest = ends.max().unwrap_or(0);
        let most = if self.whole { self.plan.kv_capacity } else { LONGEST };
        (0..inputs.len()).all(follows)
            && furthest <= most as usize
            && inputs.len() <= self.plan.columns as usize
            && (!branch(inputs) || furthest + inputs.len() <= self.rewinds)
    }

    /// True if the text behind this column can be left alone.
    pub(super) fn may_accept(&self, inputs: &[Input], column: usize) -> bool {
        let furthest = end_of(inputs, inputs[column]).unwrap_or(0);
        let end = inputs[column].position as usize + 1;
        branch(inputs) || end == furthest || furthest <= self.accepts
    }

    /// How much is left at most of texts when a pass over these inputs fails: nothing of a recurrence.
    /// `None` where a full cache may have lost its oldest positions.
    pub(super) fn may_fail(&self, inputs: &[Input]) -> Option<usize> {
        let furthest = inputs.iter().map(|input| input.position as usize + 1).max();
        match self.rewinds {
            0 => Some(0),
            _ if furthest <= Some(self.accepts) => Some(usize::MAX),
            _ => None,
        }
    }
}

/// The first position of an input's sequence in a pass.
fn first_of(inputs: &[Input], of: Input) -> Option<usize> {
    inputs.iter().find(|i| i.sequence == of.sequence).map(|i| i.position as usize)
}

/// Where inputs end the sequence of another.
fn end_of(inputs: &[Input], of: Input) -> Option<usize> {
    inputs.iter().rfind(|i| i.sequence == of.sequence).map(|i| i.position as usize + 1)
}

/// True if some input goes back within its pass.
pub(super) fn branch(inputs: &[Input]) -> bool {
    (0..inputs.len()).any(|column| {
        let end = end_of(&inputs[..column], inputs[column]);
        end.is_some_and(|end| (inputs[column].position as usize) < end)
    })
}

//! Texts that share passes. A text has a slot, which is a sequence of the engine, from its first
//! token to its last; then the next text takes the slot.
//!
//! What texts begin with in common is run once: the others take it over. That changes no bit, as
//! passes of any length have the same.

use super::request::Request;
use omex_core::engine::Engine;
use omex_core::error::RunError;
use omex_core::pass::Input;
use omex_core::sample::Sampler;
use serde::Serialize;

/// A text that has ended.
pub(super) struct Answer {
    pub(super) request: Request,
    pub(super) ids: Vec<u32>,
    pub(super) finish: Finish,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Finish {
    /// The model ended it.
    Stop,
    /// It has as many tokens as were asked for.
    Length,
}

/// A text under way.
struct Slot {
    request: Request,
    ids: Vec<u32>,
    /// Tokens that were run, prompt included.
    run: usize,
    sampler: Sampler,
}

impl Slot {
    fn tokens(&self) -> impl Iterator<Item = u32> {
        self.request.prompt.iter().chain(&self.ids).copied()
    }

    /// Tokens of the prompt that another text's may stand for: the last one's logits are wanted.
    fn shareable(&self) -> &[u32] {
        self.request.prompt.split_last().map_or(&[], |(_, before)| before)
    }

    fn pending(&self) -> usize {
        self.request.prompt.len() + self.ids.len() - self.run
    }

    /// The next tokens to run; logits are wanted of the text's last one.
    fn inputs(&self, sequence: usize, count: usize) -> impl Iterator<Item = Input> {
        let last = self.run + self.pending() - 1;
        let next = self.tokens().enumerate().skip(self.run).take(count);
        next.map(move |(position, token)| Input {
            token,
            sequence: sequence as u32,
            position: position as u32,
            logits: position == last,
            adapter: 0,
        })
    }

    fn choose(&mut self, logits: &mut [f32], stop_tokens: &[u32]) -> Option<Finish> {
        let most = self.request.max_tokens as usize;
        if most == 0 {
            return Some(Finish::Length);
        }
        let token = self.sampler.sample(logits);
        if stop_tokens.contains(&token) {
            return Some(Finish::Stop);
        }
        self.ids.push(token);
        (self.ids.len() == most).then_some(Finish::Length)
    }
}

/// The slots of an engine.
pub(super) struct Slots<'a> {
    engine: Engine<'a>,
    stop_tokens: Vec<u32>,
    slots: Vec<Option<Slot>>,
    /// Of free slots, the tokens that their sequences still hold.
    held: Vec<Vec<u32>>,
    /// Tokens of prompts that were not run, since another text begins with them.
    shared: u64,
}

/// Fewer tokens than this are rather run once more.
const LEAST_SHARED: usize = 8;

impl<'a> Slots<'a> {
    /// Bytes of the prompts' tokens.
    pub(super) fn prompt_bytes(&self) -> u64 {
        let prompts = self.slots.iter().flatten().map(|slot| &slot.request.prompt[..]);
        prompts.map(|prompt| size_of_val(prompt) as u64).sum()
    }

    /// As many slots as the engine's plan has sequences, and logits for.
    pub(super) fn new(engine: Engine<'a>) -> Self {
        let plan = engine.plan();
        let count = plan.sequences.min(plan.logit_columns) as usize;
        let stop_tokens = engine.program().stop_tokens().collect::<Vec<_>>();
        let slots = (0..count).map(|_| None).collect();
        Self { engine, stop_tokens, slots, held: vec![vec![]; count], shared: 0 }
    }

    pub(super) fn has_room(&self) -> bool {
        self.slots.iter().any(Option::is_none)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    /// Tokens of prompts that were not run, since another text begins with them.
    pub(super) fn shared(&self) -> u64 {
        self.shared
    }

    /// Gives a text a free slot, if there is one: that which holds most of what it begins with.
    pub(super) fn begin(&mut self, request: Request) {
        let mut sampler = Sampler::new(request.sampling);
        request.prompt.iter().for_each(|token| sampler.observe(*token));
        let slot = Slot { request, ids: vec![], run: 0, sampler };
        let free = (0..self.slots.len()).filter(|at| self.slots[*at].is_none());
        let held = free.map(|at| (common(&slot, self.held[at].iter().copied()), at));
        let Some((length, at)) = held.max() else { return };
        self.slots[at] = Some(slot);
        self.share(at, at, length);
        self.held[at].clear();
    }

    /// Has the text in a slot go on behind what a sequence holds of it, if that is worth while.
    fn share(&mut self, from: usize, to: usize, length: usize) {
        let Some(slot) = &mut self.slots[to] else { return };
        if length < slot.run + LEAST_SHARED {
            return;
        }
        // A text that grew past its window can't be gone back in.
        if self.engine.fork(from as u32, to as u32, length as u32).is_ok() {
            self.shared += (length - slot.run) as u64;
            slot.run = length;
        }
    }

    /// Takes over what other sequences hold of the text in a slot.
    fn take_over(&mut self, at: usize) {
        let Some(slot) = self.prefilling(at) else { return };
        let others = (0..self.slots.len()).filter(|from| *from != at);
        let held = |from: usize| match &self.slots[from] {
            Some(other) => common(slot, other.tokens().take(other.run)),
            None => common(slot, self.held[from].iter().copied()),
        };
        let best = others.map(|from| (held(from), from)).max();
        if let Some((length, from)) = best {
            self.share(from, at, length);
        }
    }

    /// True if another text is about to run more of what the one in a slot begins with, which is
    /// worth waiting for. Of two that are as far, the first one leads.
    fn waits(&self, at: usize) -> bool {
        let Some(slot) = self.prefilling(at) else { return false };
        self.slots.iter().enumerate().any(|(from, other)| {
            let Some(other) = other.as_ref().filter(|_| from != at) else { return false };
            let leads = other.run > slot.run || other.run == slot.run && from < at;
            let all = if leads { common(slot, other.tokens()) } else { 0 };
            other.run < all && all >= slot.run + LEAST_SHARED
        })
    }

    /// The text in a slot, if tokens of its prompt are still to be run that others may have.
    fn prefilling(&self, at: usize) -> Option<&Slot> {
        self.slots[at].as_ref().filter(|slot| slot.run < slot.shareable().len())
    }

    /// Runs one pass: a token of every text, and of prompts as many more as there are columns left.
    /// Returns how many tokens were chosen, and the texts that have ended.
    pub(super) fn pass(&mut self) -> Result<(u64, Vec<Answer>), RunError> {
        (0..self.slots.len()).for_each(|at| self.take_over(at));
        let waits: Vec<_> = (0..self.slots.len()).map(|at| self.waits(at)).collect();
        let runs = self.slots.iter().zip(&waits).filter(|(slot, waits)| slot.is_some() && !**waits);
        let active = runs.count();
        // A plan has a column at least for each one whose logits are wanted.
        let mut spare = (self.engine.plan().columns as usize).saturating_sub(active);
        let mut inputs = vec![];
        for (sequence, slot) in self.slots.iter_mut().enumerate() {
            let Some(slot) = slot.as_mut().filter(|_| !waits[sequence]) else { continue };
            let count = slot.pending().min(1 + spare);
            spare -= count - 1;
            inputs.extend(slot.inputs(sequence, count));
            slot.run += count;
        }
        self.engine.pass(inputs)?;
        let (mut column, mut chosen, mut answers) = (0, 0, vec![]);
        for (place, held) in self.slots.iter_mut().zip(&mut self.held) {
            let Some(slot) = place.as_mut().filter(|slot| slot.pending() == 0) else { continue };
            let before = slot.ids.len();
            let finish = slot.choose(self.engine.logits_mut(column), &self.stop_tokens);
            column += 1;
            chosen += (slot.ids.len() - before) as u64;
            if let Some(finish) = finish
                && let Some(slot) = place.take()
            {
                *held = slot.tokens().take(slot.run).collect();
                let Slot { request, ids, .. } = slot;
                answers.push(Answer { request, ids, finish });
            }
        }
        Ok((chosen, answers))
    }
}

/// How many tokens a text may take over from another that begins with these.
fn common(slot: &Slot, other: impl Iterator<Item = u32>) -> usize {
    slot.shareable().iter().zip(other).take_while(|(mine, other)| **mine == *other).count()
}

//! Texts that share passes. A text has a slot, which is a sequence of the engine, from its first
//! token to its last; then the next text takes the slot.

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
    fn pending(&self) -> usize {
        self.request.prompt.len() + self.ids.len() - self.run
    }

    /// The next tokens to run; logits are wanted of the text's last one.
    fn inputs(&self, sequence: usize, count: usize) -> impl Iterator<Item = Input> {
        let tokens = self.request.prompt.iter().chain(&self.ids);
        let last = self.run + self.pending() - 1;
        let next = tokens.enumerate().skip(self.run).take(count);
        next.map(move |(position, token)| Input {
            token: *token,
            sequence: sequence as u32,
            position: position as u32,
            logits: position == last,
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
}

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
        Self { engine, stop_tokens, slots: (0..count).map(|_| None).collect() }
    }

    pub(super) fn has_room(&self) -> bool {
        self.slots.iter().any(Option::is_none)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    /// Gives a text a free slot, if there is one.
    pub(super) fn begin(&mut self, request: Request) {
        let mut sampler = Sampler::new(request.sampling);
        request.prompt.iter().for_each(|token| sampler.observe(*token));
        if let Some(free) = self.slots.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(Slot { request, ids: vec![], run: 0, sampler });
        }
    }

    /// Runs one pass: a token of every text, and of prompts as many more as there are columns left.
    /// Returns how many tokens were chosen, and the texts that have ended.
    pub(super) fn pass(&mut self) -> Result<(u64, Vec<Answer>), RunError> {
        let active = self.slots.iter().flatten().count();
        // A plan has a column at least for each one whose logits are wanted.
        let mut spare = (self.engine.plan().columns as usize).saturating_sub(active);
        let mut inputs = vec![];
        for (sequence, slot) in self.slots.iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            let count = slot.pending().min(1 + spare);
            spare -= count - 1;
            inputs.extend(slot.inputs(sequence, count));
            slot.run += count;
        }
        self.engine.pass(inputs)?;
        let (mut column, mut chosen, mut answers) = (0, 0, vec![]);
        for place in &mut self.slots {
            let Some(slot) = place.as_mut().filter(|slot| slot.pending() == 0) else { continue };
            let before = slot.ids.len();
            let finish = slot.choose(self.engine.logits_mut(column), &self.stop_tokens);
            column += 1;
            chosen += (slot.ids.len() - before) as u64;
            if let Some(finish) = finish
                && let Some(Slot { request, ids, .. }) = place.take()
            {
                answers.push(Answer { request, ids, finish });
            }
        }
        Ok((chosen, answers))
    }
}

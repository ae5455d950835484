//! Texts that share passes. A text has a sequence of the engine, from its first token to its last;
//! then the next text takes it.
//!
//! What texts begin with in common is run once: the others take it over. That changes no bit, as
//! passes of any length have the same. A text begins once there is memory for it to become as long
//! as it may.

use super::request::LineRequest;
use crate::states::TextStates;
use crate::stop::DecodedText;
use omex_core::engine::Engine;
use omex_core::error::RunError;
use omex_core::pass::Input;
use omex_core::sample::Sampler;
use serde::Serialize;

/// A text that has ended.
pub(super) struct Answer {
    pub(super) request: LineRequest,
    pub(super) ids: Vec<u32>,
    /// Or why it can't be decoded.
    pub(super) finish: Result<Finish, String>,
}

/// Adds a token to a text.
pub(super) type Tell<'t> = &'t mut dyn FnMut(&mut DecodedText, u32) -> Result<(), String>;

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Finish {
    /// The model ended it, or a string did that ends texts, or nothing may follow by its rule.
    Stop,
    /// It has as many tokens as were asked for.
    Length,
}

/// A text under way.
struct ActiveText {
    request: LineRequest,
    ids: Vec<u32>,
    /// Tokens that were run, prompt included.
    run: usize,
    sampler: Sampler,
    /// Bytes that its states take at its longest.
    most: u64,
}

impl ActiveText {
    fn tokens(&self) -> impl Iterator<Item = u32> {
        self.request.prompt.iter().chain(&self.ids).copied()
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
            segment: 0,
        })
    }

    /// Chooses the next token; whether the text ends with it, or can't be decoded or keep to its rule.
    fn choose(
        &mut self,
        logits: &mut [f32],
        stop_tokens: &[u32],
        tell: Tell<'_>,
    ) -> Result<Option<Finish>, String> {
        let most = self.request.max_tokens as usize;
        if most == 0 {
            return Ok(Some(Finish::Length));
        }
        if let Some(mask) = &mut self.request.mask
            && !mask.apply(logits).map_err(|error| error.to_string())?
        {
            return Ok(Some(Finish::Stop));
        }
        let token = self.sampler.sample(logits);
        if stop_tokens.contains(&token) {
            return Ok(Some(Finish::Stop));
        }
        if let Some(mask) = &mut self.request.mask {
            mask.accept(token).map_err(|error| error.to_string())?;
        }
        self.ids.push(token);
        tell(&mut self.request.text, token)?;
        if self.request.text.has_ended() {
            return Ok(Some(Finish::Stop));
        }
        Ok((self.ids.len() == most).then_some(Finish::Length))
    }
}

/// The texts that are under way, by the engine's sequences.
pub(super) struct ActiveTexts<'a> {
    engine: Engine<'a>,
    stop_tokens: Vec<u32>,
    texts: Vec<Option<ActiveText>>,
    /// Of free sequences, the tokens that they still hold.
    held: Vec<Vec<u32>>,
    /// Tokens of prompts that were not run, since another text begins with them.
    shared: u64,
    of_text: TextStates,
    /// Bytes that there are for the states of all texts.
    memory: u64,
}

/// Fewer tokens than this are rather run once more.
const LEAST_SHARED: usize = 8;

impl<'a> ActiveTexts<'a> {
    /// As many texts at most as the engine's plan has sequences, and logits for, with states in
    /// `memory` bytes.
    pub(super) fn new(engine: Engine<'a>, memory: u64) -> Self {
        let plan = engine.plan();
        let count = plan.sequences.min(plan.logit_columns) as usize;
        let of_text = TextStates::new(engine.program(), plan);
        let stop_tokens = engine.program().stop_tokens().collect::<Vec<_>>();
        let texts = (0..count).map(|_| None).collect();
        Self { engine, stop_tokens, texts, held: vec![vec![]; count], shared: 0, of_text, memory }
    }

    /// Bytes of the prompts' tokens.
    pub(super) fn prompt_bytes(&self) -> u64 {
        let prompts = self.texts.iter().flatten().map(|text| &text.request.prompt[..]);
        prompts.map(|prompt| size_of_val(prompt) as u64).sum()
    }

    /// True if there is a free sequence.
    pub(super) fn has_place(&self) -> bool {
        self.texts.iter().any(Option::is_none)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.iter().all(Option::is_none)
    }

    /// Tokens of prompts that were not run, since another text begins with them.
    pub(super) fn shared(&self) -> u64 {
        self.shared
    }

    /// Free sequences, first that which holds most of what a prompt begins with.
    fn free(&self, prompt: &[u32]) -> Vec<(usize, usize)> {
        let free = (0..self.texts.len()).filter(|at| self.texts[*at].is_none());
        let mut free: Vec<_> =
            free.map(|at| (common(prompt, self.held[at].iter().copied()), at)).collect();
        free.sort_unstable_by(|a, b| b.cmp(a));
        free
    }

    /// Bytes that a text's states take at its longest.
    fn needed(&self, request: &LineRequest) -> u64 {
        let longest = (request.prompt.len() as u64).saturating_add(request.max_tokens.into());
        self.of_text.bytes_of(u32::try_from(longest).unwrap_or(u32::MAX))
    }

    /// Whether there is memory for one more text; what free sequences hold is forgotten for that.
    pub(super) fn make_room(&mut self, request: &LineRequest) -> bool {
        let active: u64 = self.texts.iter().flatten().map(|text| text.most).sum();
        let needed = active.saturating_add(self.needed(request));
        let free = self.free(&request.prompt);
        // Alone, a text has all the memory.
        if free.is_empty() || needed > self.memory && active > 0 {
            return false;
        }
        // The text goes on behind what the first of them holds.
        let mut left = self.memory.saturating_sub(needed);
        for (_, at) in free.into_iter().skip(1) {
            let held = self.of_text.bytes_of(self.held[at].len() as u32);
            if held > left {
                self.go_back(at, 0);
            }
            left -= held.min(left);
        }
        true
    }

    /// Gives a text a free sequence, if there is one.
    pub(super) fn begin(&mut self, request: LineRequest) {
        let Some((length, at)) = self.free(&request.prompt).first().copied() else { return };
        let mut sampler = Sampler::new(request.sampling);
        request.prompt.iter().for_each(|token| sampler.observe(*token));
        let length = if length < LEAST_SHARED { 0 } else { length };
        let (run, most) = (self.go_back(at, length), self.needed(&request));
        self.shared += run as u64;
        self.texts[at] = Some(ActiveText { request, ids: vec![], run, sampler, most });
    }

    /// Has a free sequence hold no more than so many tokens, or none if it can't go back to these, as
    /// behind a text that grew past its window. Returns how many.
    fn go_back(&mut self, at: usize, length: usize) -> usize {
        self.held[at].clear();
        let back = |length: &usize| self.engine.fork(at as u32, at as u32, *length as u32).is_ok();
        [length, 0].into_iter().find(back).unwrap_or(0)
    }

    /// Has a text go on behind what another sequence holds of it, if that is worth while.
    fn share(&mut self, from: usize, to: usize, length: usize) {
        let Some(text) = &mut self.texts[to] else { return };
        if length < text.run + LEAST_SHARED {
            return;
        }
        if self.engine.fork(from as u32, to as u32, length as u32).is_ok() {
            self.shared += (length - text.run) as u64;
            text.run = length;
        }
    }

    /// Takes over what other sequences hold of a text.
    fn take_over(&mut self, at: usize) {
        let Some(text) = self.prefilling(at) else { return };
        let others = (0..self.texts.len()).filter(|from| *from != at);
        let prompt = &text.request.prompt;
        let held = |from: usize| match &self.texts[from] {
            Some(other) => common(prompt, other.tokens().take(other.run)),
            None => common(prompt, self.held[from].iter().copied()),
        };
        let best = others.map(|from| (held(from), from)).max();
        if let Some((length, from)) = best {
            self.share(from, at, length);
        }
    }

    /// True if another text is about to run more of what a text begins with, which is worth waiting
    /// for. Of two that are as far, the first one leads.
    fn waits(&self, at: usize) -> bool {
        let Some(text) = self.prefilling(at) else { return false };
        self.texts.iter().enumerate().any(|(from, other)| {
            let Some(other) = other.as_ref().filter(|_| from != at) else { return false };
            let leads = other.run > text.run || other.run == text.run && from < at;
            let all = if leads { common(&text.request.prompt, other.tokens()) } else { 0 };
            other.run < all && all >= text.run + LEAST_SHARED
        })
    }

    /// A text, if tokens of its prompt are still to be run that others may have.
    fn prefilling(&self, at: usize) -> Option<&ActiveText> {
        self.texts[at].as_ref().filter(|text| text.run < shareable(&text.request.prompt).len())
    }

    /// Runs one pass: a token of every text, and of prompts as many more as there are columns left.
    /// Returns how many tokens were chosen, and the texts that have ended.
    pub(super) fn pass(&mut self, tell: Tell<'_>) -> Result<(u64, Vec<Answer>), RunError> {
        (0..self.texts.len()).for_each(|at| self.take_over(at));
        let waits: Vec<_> = (0..self.texts.len()).map(|at| self.waits(at)).collect();
        let runs = self.texts.iter().zip(&waits).filter(|(text, waits)| text.is_some() && !**waits);
        let active = runs.count();
        // A plan has a column at least for each one whose logits are wanted.
        let mut spare = (self.engine.plan().columns as usize).saturating_sub(active);
        let mut inputs = vec![];
        for (sequence, text) in self.texts.iter_mut().enumerate() {
            let Some(text) = text.as_mut().filter(|_| !waits[sequence]) else { continue };
            let count = text.pending().min(1 + spare);
            spare -= count - 1;
            inputs.extend(text.inputs(sequence, count));
            text.run += count;
        }
        self.engine.pass(inputs)?;
        let (mut column, mut chosen, mut answers) = (0, 0, vec![]);
        for (place, held) in self.texts.iter_mut().zip(&mut self.held) {
            let Some(text) = place.as_mut().filter(|text| text.pending() == 0) else { continue };
            let before = text.ids.len();
            let finish = text.choose(self.engine.logits_mut(column), &self.stop_tokens, tell);
            column += 1;
            chosen += (text.ids.len() - before) as u64;
            if let Some(finish) = finish.transpose()
                && let Some(text) = place.take()
            {
                *held = text.tokens().take(text.run).collect();
                let ActiveText { request, ids, .. } = text;
                answers.push(Answer { request, ids, finish });
            }
        }
        Ok((chosen, answers))
    }
}

/// How many tokens a text may take over from another that begins with these.
fn common(prompt: &[u32], other: impl Iterator<Item = u32>) -> usize {
    shareable(prompt).iter().zip(other).take_while(|(mine, other)| **mine == *other).count()
}

/// Tokens of a prompt that another text's may stand for: the last one's logits are wanted.
fn shareable(prompt: &[u32]) -> &[u32] {
    prompt.split_last().map_or(&[], |(_, before)| before)
}

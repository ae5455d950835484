//! Text from a prompt, one token at a time, or several from one pass.
//!
//! A draft of what follows can be run along with a token. Every token is still chosen from the
//! logits that plain decoding gives it, with the random number that plain decoding draws for it; a
//! drafted token that was chosen has been run already, and a pass is saved. So the text is the same
//! with any draft, for every sampling and seed; only the number of passes differs.

use crate::draft::Drafted;
use crate::engine::{Engine, Wanted};
use crate::error::RunError;
use crate::pass::Input;
use crate::program::Parts;
use crate::sample::Sampler;

/// A text under way.
pub struct Generation<'g, 'a> {
    engine: &'g mut Engine<'a>,
    sampler: Sampler,
    next: Next,
    /// Which of the last pass's logits the last token was chosen from.
    chosen_from: usize,
}

/// What comes next.
enum Next {
    /// Choose a token from what this column of the last pass led to.
    Choose(usize),
    /// Run a token that was returned.
    Run(u32),
    /// Nothing: the text has ended.
    End,
}

impl<'g, 'a> Generation<'g, 'a> {
    /// Runs the prompt, `[tokens]` of any length but 0, in passes as long as the plan allows (prefill).
    ///
    /// # Errors
    /// Those of [`Engine::forward`]; an empty prompt is [`RunError::TokenCount`].
    pub fn prefill(
        engine: &'g mut Engine<'a>,
        mut sampler: Sampler,
        prompt: &[u32],
    ) -> Result<Self, RunError> {
        let limit = engine.plan().columns;
        if prompt.is_empty() {
            return Err(RunError::TokenCount { given: 0, limit });
        }
        for tokens in prompt.chunks((limit as usize).max(1)) {
            engine.forward(tokens, Wanted::Last)?;
        }
        prompt.iter().for_each(|token| sampler.observe(*token));
        let next = Next::Choose(engine.inputs().len().saturating_sub(1));
        Ok(Self { engine, sampler, next, chosen_from: 0 })
    }

    /// True if the next token needs a pass, along with which a draft could be run.
    #[must_use]
    pub fn needs_pass(&self) -> bool {
        matches!(self.next, Next::Run(_))
    }

    /// Runs the token returned last, if the next one needs that, and with it as much of a draft as
    /// the plan's columns and the cache have room for. `draft` is `[guesses]`, a tree in preorder.
    /// Returns how many of them were run.
    ///
    /// # Errors
    /// Those of [`Engine::pass`].
    pub fn run(&mut self, draft: &[Drafted]) -> Result<usize, RunError> {
        let Next::Run(token) = self.next else { return Ok(0) };
        let (position, adapter) = (self.engine.position(), self.engine.adapter());
        let draft = fitting(self.engine, draft);
        let input = |token, depth| {
            let position = position.saturating_add(depth);
            Input { token, sequence: 0, position, logits: true, adapter, segment: 0 }
        };
        let drafted = draft.iter().map(|drafted| input(drafted.token, drafted.depth));
        self.engine.pass(core::iter::once(input(token, 0)).chain(drafted))?;
        self.next = Next::Choose(0);
        Ok(draft.len())
    }

    /// The logits, `[vocab_size]`, that the next token will be chosen from, to be changed by whoever
    /// knows more of it; `None` before the pass that computes them.
    pub fn next_logits(&mut self) -> Option<&mut [f32]> {
        let Next::Choose(column) = self.next else { return None };
        let place = self.engine.inputs().selected().position(|c| c == column)?;
        Some(self.engine.logits_mut(place))
    }

    /// The next token (decode); `None` once the model has ended the text.
    ///
    /// # Errors
    /// Those of [`Engine::forward`].
    pub fn next_token(&mut self) -> Result<Option<u32>, RunError> {
        self.run(&[])?;
        let Next::Choose(column) = self.next else { return Ok(None) };
        self.chosen_from = self.engine.inputs().selected().position(|c| c == column).unwrap_or(0);
        let token = self.sampler.sample(self.engine.logits_mut(self.chosen_from));
        if self.engine.program().stop_tokens().any(|stop| stop == token) {
            self.engine.accept(column)?;
            self.next = Next::End;
            return Ok(None);
        }
        self.next = match self.engine.inputs().child(column, token) {
            Some(child) => Next::Choose(child),
            None => {
                self.engine.accept(column)?;
                Next::Run(token)
            }
        };
        Ok(Some(token))
    }

    /// Stops, and leaves the engine where the text ends: it holds all tokens, but perhaps for the
    /// last one.
    ///
    /// # Errors
    /// None after a pass that succeeded.
    pub fn finish(self) -> Result<Sampler, RunError> {
        if let Next::Choose(column) = self.next {
            self.engine.accept(column)?;
        }
        Ok(self.sampler)
    }

    /// As [`Engine::set_parts`].
    pub fn set_parts(&mut self, parts: &'a dyn Parts) {
        self.engine.set_parts(parts);
    }

    /// The logits that the last token was chosen from, `[vocab_size]`. Only greedy sampling without a repetition
    /// penalty leaves them as they were computed.
    #[must_use]
    pub fn logits(&self) -> &[f32] {
        self.engine.logits(self.chosen_from)
    }
}

/// The part of a draft that there is room for. Beyond the cache's end a wrong guess would have
/// replaced positions that are still to be seen, so nothing is run there on trust.
fn fitting<'d>(engine: &Engine<'_>, draft: &'d [Drafted]) -> &'d [Drafted] {
    if engine.goes_only_on() {
        return &[];
    }
    let plan = engine.plan();
    let left = |places: u32| places.saturating_sub(engine.position()).saturating_sub(1) as usize;
    let places = left(plan.kv_capacity);
    let columns = plan.logit_columns.saturating_sub(1) as usize;
    let draft = draft.get(..columns).unwrap_or(draft);
    let deepest = draft.iter().map(|drafted| drafted.depth).max().unwrap_or(0) as usize;
    let branch = draft.iter().zip(1..).take_while(|(drafted, depth)| drafted.depth == *depth);
    let branch = branch.count();
    // With branches, each column needs a spare place.
    if branch < draft.len() && deepest + 1 + draft.len() <= left(engine.branching_places()) {
        return draft;
    }
    draft.get(..branch.min(places)).unwrap_or_default()
}

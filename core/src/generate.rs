//! Text from a prompt, one token at a time.

use crate::engine::{Engine, Wanted};
use crate::error::RunError;
use crate::sample::Sampler;
use crate::steps::Planes;

/// A text under way.
pub struct Generation<'g, 'a> {
    engine: &'g mut Engine<'a>,
    sampler: Sampler,
    next: Next,
}

/// What the next call has to do.
enum Next {
    /// Return a token that was chosen.
    Return(u32),
    /// Run a token that was returned, and choose another.
    Run(u32),
    /// Nothing: the text has ended.
    End,
}

impl<'g, 'a> Generation<'g, 'a> {
    /// Runs the prompt in passes as long as the plan allows (prefill).
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
        let next = Next::Return(sampler.sample(engine.logits_mut(0)));
        Ok(Self { engine, sampler, next })
    }

    /// The next token (decode); `None` once the model has ended the text.
    ///
    /// # Errors
    /// Those of [`Engine::forward`].
    pub fn next_token(&mut self) -> Result<Option<u32>, RunError> {
        if let Next::Run(token) = self.next {
            self.engine.forward(&[token], Wanted::Last)?;
            self.next = Next::Return(self.sampler.sample(self.engine.logits_mut(0)));
        }
        match self.next {
            Next::Return(token) if !self.engine.program().header().stop_tokens.contains(&token) => {
                self.next = Next::Run(token);
                Ok(Some(token))
            }
            _ => {
                self.next = Next::End;
                Ok(None)
            }
        }
    }

    /// As [`Engine::set_planes`].
    pub fn set_planes(&mut self, planes: Planes) {
        self.engine.set_planes(planes);
    }

    /// The logits that the last token was chosen from. Only greedy sampling without a repetition
    /// penalty leaves them as they were computed.
    #[must_use]
    pub fn logits(&self) -> &[f32] {
        self.engine.logits(0)
    }
}

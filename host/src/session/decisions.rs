//! What is decided without being asked for and changes texts: whoever runs a model should hear of it.

use super::{Model, SessionOptions, Tables};
use crate::plan::{MemoryPlan, RunPrecision};
use crate::{Error, Result};
use omex_core::ops::{Index, Mask, Op};
use omex_core::program::ALL;
use omex_core::state::State;

impl Tables {
    /// Positions that the model has embeddings for, where it learned some.
    pub(super) fn known_positions(&self) -> Result<Option<u32>> {
        let program = self.program()?;
        let of = |op: Op, layer: u32| match op {
            Op::Embed(op) if op.index == Index::Position => {
                let tensor = program.tensor(op.weight.at(layer))?;
                Some(tensor.rows.saturating_sub(op.offset))
            }
            _ => None,
        };
        Ok(program.steps(ALL).filter_map(|(op, layer)| of(op, layer)).min())
    }

    /// Refuses a context that is longer than the positions that the model has embeddings for.
    pub(super) fn check_positions(&self, options: &SessionOptions) -> Result<()> {
        let Some(context) = options.context else { return Ok(()) };
        match self.known_positions()? {
            Some(known) if known < context => Err(Error::Usage(format!(
                "{}: --context {context}: the model has embeddings of {known} positions and no more: \
                 give {known} at most",
                self.path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// What the plan for these options has that changes texts and was not asked for, a sentence each.
    ///
    /// # Errors
    /// Those of [`Self::plan`].
    pub fn decisions(&self, plan: &MemoryPlan, options: &SessionOptions) -> Result<Vec<String>> {
        let mut said = forced(plan, &self.plan_within(None, options)?);
        let trained = self.program()?.header().context_length;
        if let Some(context) = options.context.filter(|context| 0 < trained && trained < *context) {
            said.push(format!(
                "the context of {context} positions is more than the {trained} that the model was \
                 made for: what it writes beyond them may make no sense; --context {trained} is the \
                 most that it knows"
            ));
        }
        Ok(said)
    }
}

/// What the memory forced a plan to, besides one that is free.
fn forced(plan: &MemoryPlan, free: &MemoryPlan) -> Vec<String> {
    let mut said = vec![];
    let (kv, context) = (plan.kv_format, plan.context);
    if kv != free.kv_format {
        said.push(format!(
            "the memory is too small for keys and values in {}, they are stored in {kv}: the text \
             may be another one; raise --memory, or insist with --kv {}",
            free.kv_format, free.kv_format
        ));
    }
    if context < free.context {
        said.push(format!(
            "the memory is too small for a context of {} positions, it is {context}: the middle of a \
             longer text is forgotten; raise --memory, or insist with --context {}",
            free.context, free.context
        ));
    }
    if plan.precision == RunPrecision::Base && free.precision != RunPrecision::Base {
        let text = "the memory is too small for all planes of the weights, the base planes are read: \
                    the text may be another one; raise --memory, or insist with --precision full";
        said.push(text.to_owned());
    }
    said
}

impl Model {
    /// The longest text of which nothing is forgotten, in tokens; any if there are no KV caches.
    #[must_use]
    pub fn remembers(&self) -> usize {
        let keys = |program: &omex_core::program::Program<'_>| {
            program.states().any(|state| matches!(state, State::Kv { .. }))
        };
        match self.program().is_ok_and(|program| keys(&program)) {
            true => self.plan.plan.kv_capacity as usize,
            false => usize::MAX,
        }
    }

    /// How many tokens are out of the context where so many follow a prompt; the last one is not run.
    #[must_use]
    pub fn forgotten(&self, prompt: usize, following: usize) -> usize {
        (prompt + following.saturating_sub(1)).saturating_sub(self.remembers())
    }

    /// Says what is forgotten of a text, or of a prompt, of so many tokens.
    #[must_use]
    pub fn forgetting(&self, what: &str, tokens: usize) -> Option<String> {
        let (context, sinks) = (self.remembers(), self.plan.plan.kv_sinks as usize);
        let remedy = match self.tables.fixed {
            Some(_) => format!("pack the image again with --context {tokens} to keep them"),
            None => format!("--context {tokens} keeps them"),
        };
        (tokens > context).then(|| {
            format!(
                "the {what} has {tokens} tokens, the context {context}: all but the first {sinks} and \
                 the last {} are forgotten; {remedy}",
                context - sinks.min(context)
            )
        })
    }

    /// Tokens that a text may have behind a prompt of so many, at most.
    ///
    /// # Errors
    /// A model that reads whole texts and writes none, or a prompt that is longer than the positions that
    /// the model has embeddings for.
    pub(crate) fn longest_text(&self, prompt: usize) -> Result<usize> {
        let path = self.tables.path.display();
        let reads_whole = |op: Op| matches!(op, Op::Attend(op) if op.mask == Mask::Full);
        if self.program()?.steps(ALL).any(|(op, _)| reads_whole(op)) {
            return Err(Error::Usage(format!(
                "{path}: the model reads whole texts and writes none: use omex embed, omex rerank or omex logits"
            )));
        }
        match self.tables.known_positions()?.map(|known| known as usize) {
            Some(known) if known < prompt => Err(Error::Usage(format!(
                "{path}: the prompt has {prompt} tokens, and the model embeddings of {known} positions: shorten it"
            ))),
            known => Ok(known.unwrap_or(usize::MAX)),
        }
    }

    /// Says so if a text of so many tokens may grow past its context.
    #[must_use]
    pub fn outgrows(&self, prompt: usize, max_tokens: usize) -> Option<String> {
        // The last token of a text is not run.
        let (context, last) = (self.remembers(), max_tokens.saturating_sub(1));
        (prompt.saturating_add(last) > context).then(|| {
            format!(
                "the prompt has {prompt} tokens, and {max_tokens} may follow, which is more than the \
                 context of {context}: lower --max-tokens to {}, or raise --context",
                context.saturating_sub(prompt) + 1
            )
        })
    }
}

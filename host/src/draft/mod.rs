//! Drafts: guesses at the tokens that follow, several of which one pass verifies.
//!
//! Where they come from and how long they are cannot change a text: see
//! [`omex_core::generate`].

mod drafter;
mod width;

pub use drafter::{Drafter, ModelDrafter, Recorded, check_vocabularies};
pub use width::Width;

use crate::Result;
use omex_core::draft::Drafted;
use omex_core::error::RunError;
use omex_core::generate::Generation;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Drafts for one text.
pub struct Drafting<'d> {
    drafter: Option<Drafter<'d>>,
    width: Width,
    draft: Vec<Drafted>,
    /// The last pass, until it is known how much of its draft was right.
    last: Option<Pass>,
    counts: Counts,
}

struct Pass {
    drafted: usize,
    /// Length of the text that it was run for.
    length: usize,
    drafting: Duration,
    running: Duration,
}

/// What came of drafts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Tokens that were run on trust.
    pub drafted_tokens: usize,
    /// Of these, tokens that the text went on with.
    pub accepted_tokens: usize,
    /// Passes behind the prompt.
    pub passes: usize,
}

impl<'d> Drafting<'d> {
    /// Drafts of at most `most` tokens; without a drafter there are none.
    #[must_use]
    pub fn new(drafter: Option<Drafter<'d>>, most: usize) -> Self {
        let width = Width::new(if drafter.is_some() { most } else { 0 });
        Self { drafter, width, draft: vec![], last: None, counts: Counts::default() }
    }

    /// Notes how long the passes over a text behind its first `held` tokens took, of at most
    /// `columns` tokens each, and shows the text to the drafter.
    ///
    /// # Errors
    /// Those of a draft model's passes.
    pub fn begin(
        &mut self,
        text: &[u32],
        held: usize,
        columns: usize,
        time: Duration,
    ) -> Result<()> {
        let run = text.len() - held;
        let passes = run.div_ceil(columns.max(1)).max(1);
        self.width.note_prompt(run / passes, time.as_secs_f64() / passes as f64);
        match &mut self.drafter {
            Some(drafter) => drafter.propose(text, 1, &mut self.draft),
            None => Ok(()),
        }
    }

    /// Runs the pass that the next token of a text needs, if it needs one, with a draft. Of the
    /// text, prompt included, at most `left` tokens are still wanted.
    ///
    /// # Errors
    /// Those of the passes.
    pub fn run(
        &mut self,
        generation: &mut Generation<'_, '_>,
        text: &[u32],
        left: usize,
        failed: impl Fn(RunError) -> crate::Error,
    ) -> Result<()> {
        if !generation.needs_pass() {
            return Ok(());
        }
        self.note_last(text.len());
        let start = Instant::now();
        self.draft.clear();
        // The pass itself yields one token more.
        let most = self.width.next().min(left.saturating_sub(1));
        if let Some(drafter) = self.drafter.as_mut().filter(|_| most > 0) {
            drafter.propose(text, most, &mut self.draft)?;
        }
        let drafting = start.elapsed();
        let drafted = generation.run(&self.draft).map_err(failed)?;
        let running = start.elapsed() - drafting;
        self.last = Some(Pass { drafted, length: text.len(), drafting, running });
        Ok(())
    }

    fn note_last(&mut self, length: usize) {
        let Some(pass) = self.last.take() else { return };
        let drafted = pass.drafted;
        let accepted = (length - pass.length).saturating_sub(1).min(drafted);
        let [drafting, running] = [pass.drafting, pass.running].map(|time| time.as_secs_f64());
        self.width.note(drafted, accepted, drafting, running);
        self.counts.drafted_tokens += drafted;
        self.counts.accepted_tokens += accepted;
        self.counts.passes += 1;
    }

    /// What came of all drafts for a text that ended with this length.
    pub fn finish(mut self, length: usize) -> Counts {
        self.note_last(length);
        self.counts
    }
}

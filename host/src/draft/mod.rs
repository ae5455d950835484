//! Drafts: guesses at the tokens that follow, several of which one pass verifies.
//!
//! Where they come from and how long they are cannot change a text: see
//! [`omex_core::generate`].

mod drafter;
mod width;

pub use drafter::{Drafter, ModelDrafter, Recorded, check_vocabularies};
pub use width::{Pass, Width};

use crate::Result;
use crate::event::{Event, Listener};
use crate::mask::Mask;
use crate::pager::Progress;
use crate::session::Model;
use omex_core::draft::Drafted;
use omex_core::error::RunError;
use omex_core::generate::Generation;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Drafts for one text.
pub struct Drafting<'d> {
    drafter: Option<Drafter<'d>>,
    width: Width,
    draft: Vec<Drafted>,
    /// What the model's pager reads, unless its weights are mapped.
    progress: Option<Arc<Progress>>,
    /// The last pass, until it is known how much of its draft was right, and the length of the text
    /// that it was run for.
    last: Option<(Pass, usize)>,
    counts: Counts,
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
    /// Drafts of at most `most` tokens for the model of a session; without a drafter there are none.
    #[must_use]
    pub fn new(drafter: Option<Drafter<'d>>, most: usize, model: &Model) -> Self {
        let most = if drafter.is_some() { most } else { 0 };
        let width = Width::new(most, model.plan().experts.is_some());
        let (progress, counts) = (model.progress(), Counts::default());
        Self { drafter, width, draft: vec![], progress, last: None, counts }
    }

    fn waited(&self) -> Duration {
        self.progress.as_ref().map_or(Duration::ZERO, |progress| progress.waited())
    }

    /// Notes how long the session's first passes took, over a text behind its first `held` tokens,
    /// of at most `columns` tokens each; shows the text to the drafter, and has it guess once to see
    /// how long that takes.
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
        let computing = time.saturating_sub(self.waited()).as_secs_f64();
        self.width.note_prompt(run / passes, computing / passes as f64);
        let Some(drafter) = &mut self.drafter else { return Ok(()) };
        drafter.propose(text, 1, &mut self.draft)?;
        let start = Instant::now();
        drafter.propose(text, 1, &mut self.draft)?;
        self.width.note_guess(start.elapsed().as_secs_f64());
        Ok(())
    }

    /// Runs the pass that the next token of a text needs, if it needs one, with a draft of what a mask
    /// leaves, and tells it. Of the text, prompt included, at most `left` tokens are still wanted.
    ///
    /// # Errors
    /// Those of the passes, and the listener's.
    pub fn run(
        &mut self,
        generation: &mut Generation<'_, '_>,
        text: &[u32],
        left: usize,
        mask: Option<&mut (dyn Mask + '_)>,
        listener: Listener<'_>,
        failed: impl Fn(RunError) -> crate::Error,
    ) -> Result<()> {
        if !generation.needs_pass() {
            return Ok(());
        }
        self.note_last(text.len());
        let (start, waited) = (Instant::now(), self.waited());
        self.draft.clear();
        // The pass itself yields one token more.
        let behind = self.drafter.as_ref().map_or(0, |drafter| drafter.behind(text));
        let most = self.width.next(behind).min(left.saturating_sub(1));
        if let Some(drafter) = self.drafter.as_mut().filter(|_| most > 0) {
            drafter.propose(text, most, &mut self.draft)?;
        }
        if let Some(mask) = mask {
            mask.prune(&mut self.draft)?;
        }
        let (drafting, began) = (start.elapsed(), Instant::now());
        let drafted = generation.run(&self.draft).map_err(failed)?;
        let running = began.elapsed();
        let waiting = (self.waited() - waited).min(running);
        let [drafting, running, waiting] = [drafting, running, waiting].map(|t| t.as_secs_f64());
        self.last = Some((Pass { drafted, drafting, running, waiting }, text.len()));
        listener(Event::Pass { began, tokens: 1 })
    }

    fn note_last(&mut self, length: usize) {
        let Some((pass, before)) = self.last.take() else { return };
        let accepted = (length - before).saturating_sub(1).min(pass.drafted);
        self.width.note(&pass, accepted);
        self.counts.drafted_tokens += pass.drafted;
        self.counts.accepted_tokens += accepted;
        self.counts.passes += 1;
    }

    /// What came of all drafts for a text that ended with this length.
    pub fn finish(mut self, length: usize) -> Counts {
        self.note_last(length);
        self.counts
    }
}

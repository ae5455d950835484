//! What happens in memory while a model runs: what is pinned, what the ring and the KV cache hold,
//! reads under way, and how long the engine waits for them.
//!
//! A [`Trace`] takes bounded memory however long the run: samples are merged, and of reads, stalls
//! and passes the first ones are kept.

mod chrome;
mod reader;
mod recorder;
mod summary;
mod svg;
mod timeline;

use reader::TracingReader;
pub use recorder::{Events, Kept, Pass, ReadSpan, Stall};
use recorder::{Recorder, lock};
pub use summary::{TraceSummary, Use};
pub use timeline::Sample;

use crate::draft::Drafting;
use crate::durable::{create_beside, persist};
use crate::generate::{Event, Request, generate};
use crate::plan::MemoryPlan;
use crate::session::Session;
use crate::{Error, Result};
use omex_core::sample::Sampling;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// A run, and what happened in memory. Times are seconds since its beginning.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The plan.
    pub plan: MemoryPlan,
    /// Tokens that were generated.
    pub ids: Vec<u32>,
    /// The figures.
    pub summary: TraceSummary,
    /// The timeline; the last sample ends it.
    pub samples: Vec<Sample>,
    /// Reads, stalls and passes.
    pub events: Events,
}

/// Runs a prompt and generates at most `max_tokens` tokens, the most likely one each time, or until
/// being cancelled. `budget` are the bytes that were asked for.
///
/// # Errors
/// A prompt without tokens, a model that can't be run or whose KV caches are spilled, being cancelled before
/// the prompt was run.
pub fn trace(
    session: &mut Session,
    prompt: &[u32],
    max_tokens: usize,
    budget: Option<u64>,
) -> Result<Trace> {
    let plan = *session.plan();
    if plan.kv_spill.is_some() {
        let message = "KV caches would be spilled to storage, which a trace does not show: give a \
                       shorter --context, or more --memory";
        return Err(Error::Usage(message.to_owned()));
    }
    let recorder =
        Recorder::new(plan.bytes.kv_cache / u64::from(plan.context.max(1)), plan.context);
    let recorder = Arc::new(Mutex::new(recorder));
    let shared = Arc::clone(&recorder);
    session.wrap_pager(|pager| TracingReader::wrap(pager, &shared));
    let request = Request {
        saved: None,
        prompt,
        max_tokens,
        sampling: Sampling::GREEDY,
        mask: None,
        stop: &[],
        cancel: session.cancel().clone(),
    };
    let generated = generate_and_note(session, request, &recorder)?;
    let mut recorder = lock(&recorder);
    let summary = TraceSummary::new(&plan, budget, prompt.len(), &generated, recorder.totals);
    let (samples, events) = recorder.take();
    Ok(Trace { plan, ids: generated.ids, summary, samples, events })
}

/// What a run led to.
#[derive(Default)]
struct Generated {
    ids: Vec<u32>,
    /// Bytes that were read before the prompt had been run.
    read_for_prompt: Option<u64>,
}

fn generate_and_note(
    session: &mut Session,
    request: Request<'_>,
    recorder: &Mutex<Recorder>,
) -> Result<Generated> {
    let model = session.model();
    let (mut engine, drafting) = (session.engine()?, Drafting::new(None, 0, &model));
    let mut generated = Generated::default();
    let mut listener = |event: Event<'_>| {
        let mut recorder = lock(recorder);
        match event {
            Event::Pass { began, tokens } => recorder.pass(began, tokens),
            Event::Prompt => generated.read_for_prompt = Some(recorder.totals.read_bytes),
            Event::Token { id, .. } => generated.ids.push(id),
            Event::End { .. } => {}
        }
        Ok(())
    };
    match generate(&model, &mut engine, request, drafting, &mut listener) {
        Err(Error::Interrupted) if generated.read_for_prompt.is_some() => Ok(generated),
        made => made.map(|_| generated),
    }
}

impl Trace {
    /// Draws the timeline as SVG, with this title.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn write_svg(&self, title: &str, path: &Path) -> Result<()> {
        write(path, |file| file.write_all(svg::svg(self, title).as_bytes()))
    }

    /// Writes reads, stalls, passes and the timeline as Chrome's trace events, which Perfetto shows
    /// (<https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>).
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn write_chrome(&self, path: &Path) -> Result<()> {
        write(path, |file| chrome::write(self, file))
    }
}

/// Writes a file beside the one of this name, which it then replaces.
fn write(path: &Path, content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let failed = |error| Error::io(path, "write", error);
    let mut file = BufWriter::new(create_beside(path)?);
    content(&mut file).map_err(failed)?;
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    persist(file, path)
}

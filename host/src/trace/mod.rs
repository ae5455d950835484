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

pub(crate) use reader::TracingReader;
pub(crate) use recorder::Recorder;
pub use recorder::{Events, Kept, Pass, ReadSpan, Stall};
pub use summary::{Summary, Use};
pub use timeline::Sample;

use crate::durable::{create_beside, persist};
use crate::plan::MemoryPlan;
use crate::session::Session;
use crate::{Error, Result, interrupt};
use omex_core::engine::Wanted;
use omex_core::error::RunError;
use omex_core::generate::Generation;
use omex_core::sample::{Sampler, Sampling};
use std::cell::RefCell;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::rc::Rc;

/// A run, and what happened in memory. Times are seconds since its beginning.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The plan.
    pub plan: MemoryPlan,
    /// Tokens that were generated.
    pub ids: Vec<u32>,
    /// The figures.
    pub summary: Summary,
    /// The timeline; the last sample ends it.
    pub samples: Vec<Sample>,
    /// Reads, stalls and passes.
    pub events: Events,
}

/// Runs a prompt and generates at most `max_tokens` tokens, the most likely one each time, or until
/// Ctrl-C. `budget` are the bytes that were asked for.
///
/// # Errors
/// A prompt without tokens, a model that can't be run or whose KV caches are spilled, Ctrl-C before
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
    let recorder = Rc::new(RefCell::new(recorder));
    session.trace(&recorder);
    let generated = generate(session, prompt, max_tokens, &recorder)?;
    let mut recorder = recorder.borrow_mut();
    let summary = Summary::new(&plan, budget, prompt.len(), &generated, recorder.totals);
    let (samples, events) = recorder.take();
    Ok(Trace { plan, ids: generated.ids, summary, samples, events })
}

/// What a run led to.
struct Generated {
    ids: Vec<u32>,
    /// Bytes that were read before the prompt had been run.
    read_for_prompt: u64,
}

fn generate(
    session: &mut Session,
    prompt: &[u32],
    max_tokens: usize,
    recorder: &RefCell<Recorder>,
) -> Result<Generated> {
    let (failed, mut watch) = (session.failure(), session.pressure_watch()?);
    let columns = session.plan().prefill_chunk as usize;
    let mut engine = session.engine()?;
    let last = prompt.len().saturating_sub(1) / columns.max(1) * columns;
    let (before, last) = prompt.split_at(last);
    for tokens in before.chunks(columns.max(1)) {
        let run = || engine.forward(tokens, Wanted::Last);
        pass(recorder, tokens.len(), run).map_err(&failed)?;
        interrupt::check()?;
    }
    let sampler = Sampler::new(Sampling::GREEDY);
    let run = || Generation::prefill(&mut engine, sampler, last);
    let mut generation = pass(recorder, last.len(), run).map_err(&failed)?;
    let (mut ids, read_for_prompt) = (vec![], recorder.borrow().totals.read_bytes);
    while ids.len() < max_tokens && interrupt::check().is_ok() {
        if generation.needs_pass() {
            if let Some(watch) = &mut watch {
                generation.set_planes(watch.planes());
            }
            pass(recorder, 1, || generation.run(&[])).map_err(&failed)?;
        }
        let Some(id) = generation.next_token().map_err(&failed)? else { break };
        ids.push(id);
    }
    Ok(Generated { ids, read_for_prompt })
}

/// Runs a pass and notes it.
fn pass<T>(
    recorder: &RefCell<Recorder>,
    tokens: usize,
    run: impl FnOnce() -> Result<T, RunError>,
) -> Result<T, RunError> {
    let begin = recorder.borrow().seconds();
    let done = run()?;
    recorder.borrow_mut().pass(begin, tokens);
    Ok(done)
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

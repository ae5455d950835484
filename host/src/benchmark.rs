//! How fast a model runs: prefill, decode behind texts of some length, and startup.

use crate::cancel::Cancel;
use crate::forecast::kv_bytes_per_position;
use crate::generate::forward;
use crate::profile::Profile;
use crate::reads::weight_bytes_per_token;
use crate::session::{Session, SessionOptions};
use crate::system::{cores, peak_bytes};
use crate::{Error, Result, dispatch};
use omex_core::engine::{Engine, Wanted};
use omex_core::error::RunError;
use serde::Serialize;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Lengths of prompts, in tokens.
    pub prefill: Vec<u32>,
    /// Tokens in the KV cache when decode begins.
    pub decode_at: Vec<u32>,
    /// How often.
    pub runs: u32,
}

/// Tokens that are decoded in a run: enough for a steady figure.
pub const DECODE_TOKENS: u32 = 32;
/// How long a run of decode may take, for models that need seconds a token.
pub const DECODE_TIME: Duration = Duration::from_secs(5);
/// Tokens that are run before the clock starts.
const WARM_UP: u32 = 8;
/// Tokens of the prompt that startup is measured with.
const STARTUP_PROMPT: u32 = 8;

/// Tokens a second, of each run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// By the prompt's length.
    pub prefill: Vec<(u32, Vec<f64>)>,
    /// By the tokens in the KV cache.
    pub decode: Vec<(u32, Vec<f64>)>,
}

/// The median, the least and the largest of some samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    #[serde(skip)]
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// The spread of samples; zeros without any.
    #[must_use]
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |i: usize| sorted.get(i).copied().unwrap_or(0.0);
        let last = sorted.len().saturating_sub(1);
        let median = (at(last / 2) + at(sorted.len() / 2)) / 2.0;
        Self { median, min: at(0), max: at(last) }
    }
}

/// What was measured of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Threads that it ran on.
    pub threads: usize,
    /// The kernels.
    pub kernels: &'static str,
    /// How often each figure was measured; figures are medians.
    pub runs: u32,
    /// Prefill by the prompt's length.
    pub prefill: Vec<Prefill>,
    /// Decode by the tokens in the KV cache.
    pub decode: Vec<Decode>,
    /// Milliseconds from the start of a process to its first token.
    pub startup_ms: f64,
    /// The most memory that the process had resident, mapped weights included.
    pub peak_bytes: Option<u64>,
    /// Bytes of weights that a token needs.
    pub weight_bytes_per_token: u64,
    /// Bytes a second that this many threads can read of memory.
    pub read_bandwidth: f64,
}

/// Prefill of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Prefill {
    /// The prompt's length.
    pub tokens: u32,
    /// Tokens a second.
    pub tok_s: f64,
    /// Of all runs.
    #[serde(flatten)]
    pub spread: Spread,
}

/// Decode behind a text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Decode {
    /// Tokens in the KV cache at the beginning.
    pub context: u32,
    /// Tokens a second.
    pub tok_s: f64,
    /// Of all runs.
    #[serde(flatten)]
    pub spread: Spread,
    /// Bytes that a token needs, of weights and of the KV cache.
    pub bytes_per_token: u64,
    /// The part of the bandwidth of memory that these bytes take.
    pub bandwidth_share: f64,
}

/// Token `i` of the text that is run: any will do, and the same ones everywhere.
fn token(i: u32, vocabulary: u32) -> u32 {
    (u64::from(i) * 7919 % u64::from(vocabulary.max(1))) as u32
}

/// Takes those lengths out of the work that the model's or the plan's context can't hold, and
/// returns them.
///
/// # Errors
/// None once the session is open.
pub fn fit(work: &mut Work, session: &Session) -> Result<Vec<u32>> {
    let most = session.plan().context.min(session.program()?.header().context_length);
    let mut skipped = vec![];
    // Runs that follow one another decode that many tokens more.
    let decoded = DECODE_TOKENS.saturating_mul(work.runs);
    for (lengths, most) in
        [(&mut work.prefill, most), (&mut work.decode_at, most.saturating_sub(decoded))]
    {
        skipped.extend(lengths.iter().filter(|length| **length > most));
        lengths.retain(|length| *length <= most);
    }
    Ok(skipped)
}

/// Runs the work. Weights are in memory and their pages checked before the clock starts, if they
/// can stay there. `done` is called for each run.
///
/// # Errors
/// A model that can't be run, being cancelled.
pub fn measure(session: &mut Session, work: &Work, done: &mut dyn FnMut()) -> Result<Samples> {
    let (failed, cancel) = (session.failure(), session.cancel().clone());
    let mut text = Text { engine: session.engine()?, failed: &failed, cancel };
    let mut samples = Samples::default();
    // The first passes check pages and touch memory.
    text.begin(WARM_UP)?;
    text.forward(1)?;
    for tokens in &work.prefill {
        let mut rates = vec![];
        for _ in 0..work.runs {
            let start = Instant::now();
            text.begin(*tokens)?;
            rates.push(f64::from(*tokens) / start.elapsed().as_secs_f64());
            done();
        }
        samples.prefill.push((*tokens, rates));
    }
    for context in &work.decode_at {
        let mut rates = vec![];
        text.begin(*context)?;
        // The runs follow one another: filling the cache anew would take longer than they do.
        for _ in 0..work.runs {
            rates.push(text.decode()?);
            done();
        }
        samples.decode.push((*context, rates));
    }
    Ok(samples)
}

/// A text of arbitrary tokens.
struct Text<'t> {
    engine: Engine<'t>,
    failed: &'t dyn Fn(RunError) -> Error,
    cancel: Cancel,
}

impl Text<'_> {
    fn forward(&mut self, count: u32) -> Result<()> {
        let (first, vocabulary) =
            (self.engine.position(), self.engine.program().header().vocab_size);
        let ids: Vec<_> = (first..first + count).map(|i| token(i, vocabulary)).collect();
        let Self { engine, failed, cancel } = self;
        forward(engine, &ids, Wanted::Last, cancel, failed, &mut |_, _| Ok(()))
    }

    /// Begins a new text with this many tokens.
    fn begin(&mut self, tokens: u32) -> Result<()> {
        self.engine.reset();
        self.forward(tokens)
    }

    /// Goes on token by token, and returns tokens a second.
    fn decode(&mut self) -> Result<f64> {
        let (start, mut tokens) = (Instant::now(), 0);
        while tokens < DECODE_TOKENS && (tokens == 0 || start.elapsed() < DECODE_TIME) {
            self.forward(1)?;
            tokens += 1;
        }
        Ok(f64::from(tokens) / start.elapsed().as_secs_f64())
    }
}

/// Measures a model. `omex` is the command that startup is measured with; `progress` is called
/// with the runs done and the runs in all.
///
/// # Errors
/// A model that can't be run, being cancelled.
pub fn benchmark(
    model: &Path,
    options: &SessionOptions,
    work: &Work,
    omex: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    let mut session = Session::open(model, options)?;
    let kinds = work.prefill.len() + work.decode_at.len() + 1;
    let (mut done, all) = (0, u64::from(work.runs) * kinds as u64);
    let mut step = || {
        done += 1;
        progress(done, all);
    };
    let samples = measure(&mut session, work, &mut step)?;
    let vocabulary = session.program()?.header().vocab_size;
    let mut startups = vec![];
    for _ in 0..work.runs {
        startups.push(startup_ms(model, options, vocabulary, omex)?);
        step();
    }
    // Before memory is measured: that takes some.
    let peak_bytes = peak_bytes();
    let threads = options.threads.unwrap_or_else(cores).max(1);
    let read_bandwidth = Profile::of_this_machine(false, &options.cancel)?.read_bandwidth(threads);
    let weight_bytes =
        weight_bytes_per_token(&session.program()?, session.plan().precision.parts());
    let position_bytes = kv_bytes_per_position(&session.program()?, session.plan());
    let prefill = |(tokens, rates): &(u32, Vec<f64>)| {
        let spread = Spread::of(rates);
        Prefill { tokens: *tokens, tok_s: spread.median, spread }
    };
    let decode = |(context, rates): &(u32, Vec<f64>)| {
        let spread = Spread::of(rates);
        let bytes_per_token = weight_bytes + position_bytes * u64::from(*context);
        let bandwidth_share = spread.median * bytes_per_token as f64 / read_bandwidth;
        Decode { context: *context, tok_s: spread.median, spread, bytes_per_token, bandwidth_share }
    };
    Ok(Report {
        threads,
        kernels: dispatch::kernels()?.name,
        runs: work.runs,
        prefill: samples.prefill.iter().map(prefill).collect(),
        decode: samples.decode.iter().map(decode).collect(),
        startup_ms: Spread::of(&startups).median,
        peak_bytes,
        weight_bytes_per_token: weight_bytes,
        read_bandwidth,
    })
}

/// Milliseconds until a new process prints the token that follows a short prompt.
fn startup_ms(model: &Path, options: &SessionOptions, vocabulary: u32, omex: &Path) -> Result<f64> {
    let ids: Vec<_> = (0..STARTUP_PROMPT).map(|i| token(i, vocabulary).to_string()).collect();
    let mut command = Command::new(omex);
    command.arg("run").arg(model).args(["--ids", &ids.join(","), "--max-tokens", "1", "--json"]);
    let numbers = [
        ("--memory", options.memory),
        ("--context", options.context.map(u64::from)),
        ("--threads", options.threads.map(|n| n as u64)),
    ];
    for (name, number) in numbers {
        command.args(number.into_iter().flat_map(|number| [name.to_owned(), number.to_string()]));
    }
    if let Some(pages) = options.pages {
        command.args(["--pages", pages.name()]);
    }
    if let Some(kv) = options.kv {
        command.args(["--kv", &kv.to_string()]);
    }
    let failed = |e| Error::io(omex, "run", e);
    let start = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line).map_err(failed)?;
    }
    let elapsed = start.elapsed();
    let mut said = String::new();
    if let Some(mut err) = child.stderr.take() {
        err.read_to_string(&mut said).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    options.cancel.check()?;
    if !status.success() || line.is_empty() {
        return Err(failed(std::io::Error::other(said.trim().to_owned())));
    }
    Ok(elapsed.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers_of_samples() {
        let spread = Spread::of(&[3.0, 1.0, 2.0]);
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of(&[7.0]).median, 7.0);
        assert_eq!(Spread::of(&[]).max, 0.0);
    }
}

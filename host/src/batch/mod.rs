//! Many prompts, each on a line of a file: their texts share every pass over the weights.
//!
//! Texts are independent: each is the one that its prompt and seed give alone, whatever runs beside
//! it. So a batch that was cut off goes on where it was, with the same outputs.

mod active;
mod journal;
mod prompts;
mod request;

pub use journal::Journal;
pub use prompts::Prompts;
pub use request::{Defaults, Rule};

use crate::Result;
use crate::cancel::Cancel;
use crate::chat::Moment;
use crate::preprocess::Preprocessor;
use crate::session::Session;
use crate::tokenizer::TEXT_BYTES;
use active::{ActiveTexts, Answer};
use journal::{Forgotten, JournalHeader, Outcome, Record};
use omex_core::token::Tokenizer;
use request::{LineRequest, Requests, id_of};
use serde::Serialize;
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// What came of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct BatchSummary {
    /// Lines of prompts.
    pub requests: u64,
    /// Of these, texts that were generated.
    pub done: u64,
    /// Lines that could not be run.
    pub failed: u64,
    /// Lines that the output already held.
    pub skipped: u64,
    /// Texts that grew past the context.
    pub forgetful: u64,
    /// Tokens generated.
    pub tokens: u64,
    /// Tokens of prompts that were not run, since another prompt begins with them.
    pub shared_tokens: u64,
    /// Time taken.
    pub seconds: f64,
    /// Passes over the weights.
    pub passes: u64,
    /// Tokens generated a second.
    pub tok_s: f64,
}

/// What is reported while a batch runs.
#[derive(Clone, Copy, Debug)]
pub enum Event<'e> {
    /// A line of prompts can't be run.
    BadLine {
        /// Its number, counted from 1.
        line: u64,
        /// What is wrong with it.
        error: &'e str,
    },
    /// Something about a line of prompts that its author may not have meant.
    Note {
        /// Its number, counted from 1.
        line: u64,
        /// What to know.
        note: &'e str,
    },
    /// A pass was run.
    Pass(&'e BatchSummary),
}

/// Positions that a text of these lines takes on average, about: its prompt, and what is generated.
#[must_use]
pub fn text_positions(prompts: &Prompts, max_tokens: u32) -> u32 {
    let prompt = u32::try_from(prompts.mean() / TOKEN_BYTES).unwrap_or(u32::MAX);
    prompt.saturating_add(1).saturating_add(max_tokens)
}

/// Bytes of a line for each token, or more. Where it takes fewer, fewer texts are under way at once.
const TOKEN_BYTES: u64 = 3;

/// Bytes to set aside for the texts of so many lines at once, besides those that every plan has.
#[must_use]
pub fn text_bytes(prompts: &Prompts, sequences: u32, memory: Option<u64>) -> u64 {
    // The line, its prompt, and tokens of each, of which there are at most as many as bytes.
    let needed = prompts.longest().saturating_mul(4 * u64::from(sequences) + 2);
    let most = memory.unwrap_or(u64::MAX) / PART;
    needed.saturating_sub(TEXT_BYTES).min(most)
}

/// Texts get this part of a budget; lines that take more are refused one by one.
const PART: u64 = 8;

/// Opens the output for these prompts, model and defaults, or makes it; `restart` makes it anew.
///
/// # Errors
/// A file that is no output of a batch, or of another one, or that another process writes to.
pub fn open_journal(
    path: &Path,
    prompts: &Prompts,
    session: &Session,
    defaults: &Defaults,
    restart: bool,
) -> Result<Journal> {
    let Defaults { max_tokens, sampling, parse_special, strict, .. } = defaults;
    let plan = session.plan();
    // Numbers as they are typed: 0.8, not the double next to its float.
    let mut settings = json!({
            "max_tokens": max_tokens,
            "temperature": sampling.temperature.to_string(),
            "top_k": sampling.top_k,
            "top_p": sampling.top_p.to_string(),
            "min_p": sampling.min_p.to_string(),
            "repetition_penalty": sampling.repetition_penalty.to_string(),
            "seed": sampling.seed,
            "stop": defaults.stop,
            "preprocessor": defaults.preprocessor,
            "formatter": defaults.formatter,
            "parse_special": parse_special,
            "strict": strict,
            "context": plan.context,
            "kv_format": plan.kv_format,
            "precision": plan.precision,
    });
    if let Some(date) = defaults.date {
        settings["date"] = date.format("%F %T").into();
    }
    if let Some(crc32c) = defaults.rule_crc32c {
        settings["rule_crc32c"] = crc32c.into();
    }
    let header = JournalHeader { omex_batch: 1, model_crc32c: session.crc32c(), settings };
    Journal::open(path, &header, prompts.checksums(), restart)
}

/// Generates the texts that the journal lacks, and appends each as it ends. The planes are the
/// plan's throughout: a text may not depend on the memory that is left while it runs. Templates of a preprocessor
/// take `now` for the present, where the defaults have no date; texts keep to `rule`, whose checksum the defaults have.
///
/// # Errors
/// A pass that fails, files that can't be read or written, or being cancelled; what was appended stays.
pub fn run(
    session: &mut Session,
    prompts: &mut Prompts,
    journal: &mut Journal,
    (defaults, now, rule): (Defaults, Moment, Option<Rule<'_>>),
    report: &mut dyn FnMut(Event<'_>),
) -> Result<BatchSummary> {
    let for_texts = session.for_texts();
    let preprocessor = defaults.preprocessor.as_ref();
    let preprocessor = preprocessor
        .map(|it| Preprocessor::new(it, "the preprocessor", defaults.date.unwrap_or(now)));
    let within = for_texts.saturating_add(TEXT_BYTES);
    let preprocessor = preprocessor.transpose()?.map(|it| it.within(within));
    let tables = session.tokenizer_tables();
    let tokenizer = tables.as_deref().map(Tokenizer::open).transpose();
    let tokenizer = tokenizer.map_err(|error| session.bad_tokenizer(&error))?;
    let vocabulary = session.program()?.header().vocab_size;
    let (failed, cancel) = (session.failure(), session.cancel().clone());
    let longest = prompts.limit(for_texts.saturating_add(TEXT_BYTES));
    let model = session.model();
    let memory = session.plan().bytes.kv_cache;
    let (requests, skipped) = (prompts.lines(), journal.count());
    let mut batch = Batch {
        prompts,
        journal,
        requests: Requests {
            tokenizer,
            model,
            vocabulary,
            defaults,
            preprocessor,
            rule,
            for_texts,
            longest,
        },
        active: ActiveTexts::new(session.engine()?, memory),
        waiting: None,
        summary: BatchSummary { requests, skipped, ..BatchSummary::default() },
        report,
        cancel,
    };
    let start = Instant::now();
    loop {
        batch.fill()?;
        if batch.active.is_empty() {
            batch.journal.sync()?;
            return Ok(batch.summary);
        }
        let Batch { active, requests, .. } = &mut batch;
        let passed = active.pass(&mut |text, token| requests.push(text, token));
        let (tokens, answers) = passed.map_err(&failed)?;
        batch.keep(answers)?;
        let summary = &mut batch.summary;
        summary.shared_tokens = batch.active.shared();
        summary.passes += 1;
        summary.tokens += tokens;
        summary.seconds = start.elapsed().as_secs_f64();
        summary.tok_s = summary.tokens as f64 / summary.seconds;
        (batch.report)(Event::Pass(summary));
        batch.cancel.check()?;
    }
}

/// A batch under way.
struct Batch<'b> {
    prompts: &'b mut Prompts,
    journal: &'b mut Journal,
    requests: Requests<'b>,
    active: ActiveTexts<'b>,
    /// The next one, which there was no memory for.
    waiting: Option<LineRequest>,
    summary: BatchSummary,
    report: &'b mut dyn FnMut(Event<'_>),
    cancel: Cancel,
}

impl Batch<'_> {
    /// Begins the texts of the next lines while there is room.
    fn fill(&mut self) -> Result<()> {
        while self.active.has_place() {
            let next = match self.waiting.take() {
                Some(request) => Some(request),
                None => self.next_request()?,
            };
            let Some(request) = next else { break };
            if !self.active.make_room(&request) {
                self.waiting = Some(request);
                break;
            }
            self.active.begin(request);
        }
        Ok(())
    }

    /// What the next line asks for that can be run and was not done before.
    fn next_request(&mut self) -> Result<Option<LineRequest>> {
        let mut text = vec![];
        while let Some(line) = self.prompts.next_line(&mut text)? {
            self.cancel.check()?;
            if self.journal.has(line) {
                continue;
            }
            // Editors leave blank lines; they ask for nothing.
            if text.trim_ascii().is_empty() {
                self.summary.requests -= 1;
                continue;
            }
            let held = self.active.prompt_bytes() + text.len() as u64;
            match self.requests.read(line, &text, held) {
                Ok(request) => {
                    for note in request.notes.iter().flatten() {
                        (self.report)(Event::Note { line, note });
                    }
                    return Ok(Some(request));
                }
                Err(error) => self.fail(line, id_of(&text), &error)?,
            }
        }
        Ok(None)
    }

    /// Appends texts that have ended.
    fn keep(&mut self, answers: Vec<Answer>) -> Result<()> {
        if answers.is_empty() {
            return Ok(());
        }
        for Answer { request: LineRequest { line, id, prompt, mut text, .. }, ids, finish } in
            answers
        {
            text.finish();
            let text = self.requests.formatted(text.all);
            match finish.and_then(|finish| Ok((finish, text?))) {
                Ok((finish, text)) => {
                    let model = &self.requests.model;
                    let [prompt, all] =
                        [0, ids.len()].map(|ids| model.forgotten(prompt.len(), ids));
                    let forgotten = Forgotten { prompt, all };
                    let outcome = Outcome::Answer { text, ids: &ids, finish, forgotten };
                    self.summary.forgetful += u64::from(all > 0);
                    let prompt_crc32c = self.prompts.checksum(line);
                    self.journal.append(&Record { line, prompt_crc32c, id, outcome })?;
                    self.summary.done += 1;
                }
                Err(error) => self.fail(line, id, &error)?,
            }
        }
        self.journal.sync()
    }

    fn fail(&mut self, line: u64, id: Option<serde_json::Value>, error: &str) -> Result<()> {
        let (prompt_crc32c, outcome) = (self.prompts.checksum(line), Outcome::Failure { error });
        self.journal.append(&Record { line, prompt_crc32c, id, outcome })?;
        self.summary.failed += 1;
        (self.report)(Event::BadLine { line, error });
        Ok(())
    }
}

//! `omex batch`.

use super::chat::prompt::today;
use super::constrain::{Constraint, RuleArgs};
use super::format::FormatArgs;
use super::preprocess::PreprocessArgs;
use super::sampling::SamplingArgs;
use super::text::TextArgs;
use super::{RunArgs, affordable};
use crate::{output, signals};
use omex::batch::{self, BatchSummary, Defaults, Event, Prompts, Rule};
use omex::chat::Moment;
use omex::mask::Mask;
use omex::session::{SessionOptions, Tables};
use omex::{Error, Result};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Generate many texts that share every pass over the weights.
///
/// Each line of the prompts is a JSON object with "prompt" or "ids" (of tokens), and where wanted
/// "id", "max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop" (a
/// list) and "parse_special". The output has a line for each: its number, its id, and the text that omex run
/// gives, or an error; where the context was too short, "forgotten_prompt_tokens" and
/// "forgotten_tokens" say how much of the text it lost. A batch that was cut off goes on when it is
/// run again with the same arguments; of prompts that were corrected, the lines are done that changed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex batch stories.omex prompts.jsonl -o out.jsonl
  omex batch stories.omex prompts.jsonl -o out.jsonl --parallel 32 --temperature 0.8 --json
  omex batch qwen.omex people.jsonl -o out.jsonl --json-schema person.json
  echo '{\"prompt\": \"Once upon a time\", \"seed\": 7}' | omex batch stories.omex - -o out.jsonl")]
pub(crate) struct Args {
    /// A package, or a flash image
    pub(crate) model: PathBuf,
    /// Prompts, one JSON object a line; - reads standard input
    prompts: PathBuf,
    /// The file to append to
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Begin anew, whatever the output holds
    #[arg(long)]
    restart: bool,
    /// Texts under way at once, at most: fewer where the memory is too small for their KV caches
    #[arg(long, allow_negative_numbers = true, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: u32,
    /// Tokens to generate at most
    #[arg(long, allow_negative_numbers = true, value_name = "N", default_value_t = 256)]
    max_tokens: u32,
    #[command(flatten)]
    preprocess: PreprocessArgs,
    /// The day that a preprocessor's template takes for today [default: today, in UTC]
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = Moment::parse)]
    date: Option<Moment>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    rule: RuleArgs,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let mut prompts = Prompts::open(&args.prompts, &signals::cancel())?;
    let tables = Tables::open(&args.model)?;
    let constraint = args.rule.open(&tables)?;
    let options = affordable(&tables, args.parallel, |count| {
        args.options(&prompts, count, constraint.as_ref())
    })?;
    let mut session = args.run.open_with(tables, &options)?;
    let (max_tokens, sampling) = (args.max_tokens, args.sampling.sampling());
    let (parse_special, strict) = (args.text.parse_special(), args.run.strict);
    let format = args.format.open(&args.model)?;
    let defaults = Defaults {
        max_tokens,
        sampling,
        stop: args.sampling.stop().to_vec(),
        preprocessor: args.preprocess.settings(&args.model)?,
        formatter: format.settings().cloned(),
        rule_crc32c: constraint.as_ref().map(Constraint::crc32c),
        date: args.date,
        parse_special,
        strict,
    };
    let mut journal =
        batch::open_journal(&args.output, &prompts, &session, &defaults, args.restart)?;
    let file = prompts.path().to_owned();
    if journal.outdated() > 0 {
        output::note(&format!(
            "note: {}: {} lines are not what they were, and are done again",
            file.display(),
            journal.outdated()
        ));
    }
    let mut progress = Progress::new(prompts.lines());
    let fork =
        constraint.as_ref().map(|constraint| || -> Box<dyn Mask> { Box::new(constraint.fork()) });
    let rule = fork.as_ref().map(|fork| fork as Rule<'_>);
    let defaults = (defaults, today(), rule);
    let result =
        batch::run(&mut session, &mut prompts, &mut journal, defaults, &mut |event| match event {
            Event::Pass(summary) => progress.show(summary),
            Event::BadLine { line, error } => {
                progress.note(&format!("{}: line {line}: {error}", file.display()));
            }
            Event::Note { line, note } => {
                progress.note(&format!("note: {}: line {line}: {note}", file.display()));
            }
        });
    progress.bar.finish_and_clear();
    let summary = result?;
    if summary.forgetful > 0 {
        output::note(&format!(
            "note: {} texts are longer than the context of {} positions, whose middle is forgotten, as \
             their lines say (forgotten_tokens): raise --context, or refuse such with --strict",
            summary.forgetful,
            session.plan().context
        ));
    }
    if args.json {
        output::json(&summary)?
    } else {
        output::text(&picture(&summary))?
    }
    match journal.failures() {
        0 => Ok(()),
        count => Err(Error::Invalid { path: file, count }),
    }
}

impl Args {
    fn options(
        &self,
        prompts: &Prompts,
        sequences: u32,
        constraint: Option<&Constraint>,
    ) -> SessionOptions {
        let of_rule = constraint.map_or(0, |constraint| {
            constraint.bytes() + u64::from(sequences) * constraint.fork_bytes()
        });
        let texts = batch::text_bytes(prompts, sequences, self.run.memory) + of_rule;
        let text_positions = Some(batch::text_positions(prompts, self.max_tokens));
        SessionOptions { sequences, text_positions, texts, ..self.run.options(sequences) }
    }
}

fn picture(summary: &BatchSummary) -> String {
    let BatchSummary { done, failed, skipped, tokens, seconds, passes, tok_s, .. } = summary;
    let shared = match summary.shared_tokens {
        0 => String::new(),
        count => format!("; {count} tokens that prompts begin with in common were run once"),
    };
    format!(
        "{done} done, {failed} failed, {skipped} skipped: {tokens} tokens in {seconds:.1} s and \
         {passes} passes, {tok_s:.1} tok/s{shared}\n"
    )
}

/// How often a line is printed where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// A bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: indicatif::ProgressBar,
    last: Instant,
}

impl Progress {
    fn new(lines: u64) -> Self {
        Self { bar: output::progress("generating", lines, false), last: Instant::now() }
    }

    fn show(&mut self, summary: &BatchSummary) {
        let BatchSummary { requests, done, failed, skipped, tok_s, .. } = summary;
        let ended = done + failed + skipped;
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("{ended} of {requests}, {tok_s:.0} tok/s"));
            self.bar.set_position(ended);
        } else if self.last.elapsed() >= INTERVAL {
            self.last = Instant::now();
            output::note(&format!("{ended} of {requests} prompts, {tok_s:.1} tok/s"));
        }
    }

    fn note(&self, message: &str) {
        self.bar.suspend(|| output::note(message));
    }
}

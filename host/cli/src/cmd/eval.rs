//! `omex eval`.

use super::text::{TextArgs, kept_bytes, longest};
use super::{RunArgs, logits::COLUMNS};
use crate::{output, standard_input};
use omex::generate::forward;
use omex::plan::RunPrecision;
use omex::session::{SessionOptions, Tables};
use omex::{Error, Result, input};
use omex_core::engine::Wanted;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Measure perplexity on a text.
///
/// The text is cut into windows as long as the KV cache; in each, every token but the first is
/// predicted from those before it. Perplexity is exp(mean negative log-likelihood).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex eval stories.omex --data story.txt
  omex eval stories.omex --data story.txt --context 512 --json")]
pub(crate) struct Args {
    /// A package, or a flash image
    pub(crate) model: PathBuf,
    /// A file of text; - reads standard input
    #[arg(long, value_name = "TEXTFILE")]
    data: PathBuf,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    perplexity: f64,
    tokens: u64,
    precision: RunPrecision,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let asked = &args.run;
    let text = match args.data.as_os_str() {
        dash if dash == "-" => standard_input::read(longest(asked.memory))?,
        _ => input::read_text(&args.data, longest(asked.memory))?,
    };
    let tables = Tables::open(&args.model)?;
    let ids = args.text.encode(asked.memory, &tables, &text, true)?;
    drop(text);
    if ids.len() < 2 {
        let found = format!("{} tokens", ids.len());
        return Err(Error::malformed(
            if args.data.as_os_str() == "-" { Path::new("standard input") } else { &args.data },
            "text",
            found,
            "at least 2",
            "give a longer text",
        ));
    }
    let options = SessionOptions { texts: kept_bytes("", &ids), ..asked.options(COLUMNS) };
    let mut session = asked.open_with(tables, &options)?;
    let window = session.plan().context as usize;
    let precision = session.plan().precision;
    let (failed, cancel) = (session.failure(), session.cancel().clone());
    let mut engine = session.engine()?;
    let bar = output::progress("evaluating", ids.len() as u64, false);
    let (mut sum, mut tokens) = (0.0, 0);
    for window in ids.chunks(window.max(2)) {
        engine.reset();
        let mut targets = window.iter().skip(1);
        forward(&mut engine, window, Wanted::All, &cancel, &failed, &mut |engine, chunk| {
            for (column, target) in targets.by_ref().take(chunk.len()).enumerate() {
                sum += negative_log_likelihood(engine.logits(column), *target);
                tokens += 1;
            }
            bar.inc(chunk.len() as u64);
            Ok(())
        })?;
    }
    bar.finish_and_clear();
    let perplexity = (sum / tokens as f64).exp();
    if args.json {
        return output::json(&Output { perplexity, tokens, precision });
    }
    let planes = if precision == RunPrecision::Base { ", base planes" } else { "" };
    output::text(&format!("perplexity {perplexity:.4} over {tokens} tokens{planes}\n"))
}

fn negative_log_likelihood(logits: &[f32], target: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - largest).exp()).sum();
    sum.ln() - f64::from(logits[target as usize] - largest)
}

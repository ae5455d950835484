//! `omex benchmark`.

use super::RunArgs;
use crate::{bytes, output};
use omex::benchmark::{Report, Spread, Work, benchmark, fit};
use omex::profile::Profile;
use omex::session::Session;
use omex::{Error, Result};
use std::path::{Path, PathBuf};

/// Measure how fast a model runs.
///
/// Prefill, decode behind texts of some length, and the time from the start of a process to its
/// first token: medians of several runs, once weights are in memory. Every token is arbitrary.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex benchmark tinyllama.omex
  omex benchmark tinyllama.omex --prefill 128 --decode-at 0,1024 --threads 1
  omex benchmark tinyllama.omex --memory 200MB --runs 3 --json")]
pub(crate) struct Args {
    /// A package, or a flash image
    pub(crate) model: PathBuf,
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What to measure: shared with `omex compare`.
#[derive(clap::Args)]
pub(super) struct WorkArgs {
    /// Lengths of prompts to measure prefill with
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "128,512",
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    prefill: Vec<u32>,
    /// Tokens in the KV cache when decode begins
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "0,1024",
          value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    decode_at: Vec<u32>,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
}

impl WorkArgs {
    /// The work that a model can do; says what it can't.
    pub(super) fn fit(&self, session: &Session, model: &Path) -> Result<Work> {
        let mut work = Work {
            prefill: self.prefill.clone(),
            decode_at: self.decode_at.clone(),
            runs: self.runs,
        };
        for tokens in fit(&mut work, session)? {
            output::note(&format!(
                "note: {tokens} tokens, and what is decoded behind them, are more than {} can hold: skipped",
                model.display()
            ));
        }
        Ok(work)
    }
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let omex = std::env::current_exe().map_err(|e| Error::io(Path::new("omex"), "find", e))?;
    let work = args.work.fit(&args.run.open(&args.model, 1)?, &args.model)?;
    if !Profile::is_kept() {
        output::note("note: the bandwidth of memory will be measured, once (see omex profile)");
    }
    let bar = output::progress("measuring", 1, false);
    let report =
        benchmark(&args.model, &args.run.options(1), &work, &omex, &mut output::advance(&bar));
    bar.finish_and_clear();
    let report = report?;
    if args.json { output::json(&report) } else { output::text(&picture(&report)) }
}

fn picture(report: &Report) -> String {
    let Report { threads, kernels, runs, .. } = report;
    let mut text = format!(
        "{threads} threads, {kernels} kernels; median of {runs} runs (least to largest)\n\n"
    );
    let fastest = report.prefill.iter().map(|p| p.tok_s).fold(0.0, f64::max);
    for p in &report.prefill {
        let name = format!("prefill {}", p.tokens);
        text.push_str(&format!("{}\n", line(&name, p.tok_s, fastest, &p.spread)));
    }
    let fastest = report.decode.iter().map(|d| d.tok_s).fold(0.0, f64::max);
    for d in &report.decode {
        let name = format!("decode at {}", d.context);
        text.push_str(&format!(
            "{}  {} a token, {:.0}% of the bandwidth\n",
            line(&name, d.tok_s, fastest, &d.spread),
            bytes::show(d.bytes_per_token),
            100.0 * d.bandwidth_share
        ));
    }
    text.push_str(&format!(
        "\nstartup         {:.1} ms to the first token\nmemory          {} peak\n\
         bandwidth       {}/s of memory can be read\n",
        report.startup_ms,
        report.peak_bytes.map_or("unknown".to_owned(), bytes::show),
        bytes::show(report.read_bandwidth as u64)
    ));
    text
}

const BAR: usize = 24;

fn line(name: &str, tok_s: f64, fastest: f64, spread: &Spread) -> String {
    let length = (BAR as f64 * tok_s / fastest.max(f64::MIN_POSITIVE)).round() as usize;
    let bar = "█".repeat(length.clamp(1, BAR));
    format!("{name:15} {bar:BAR$} {tok_s:8.2} tok/s ({:.2} to {:.2})", spread.min, spread.max)
}

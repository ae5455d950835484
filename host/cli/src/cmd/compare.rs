//! `omex compare`.

use super::RunArgs;
use super::benchmark::WorkArgs;
use crate::{output, signals};
use omex::compare::{Comparison, Given, Peers, Rate, compare};
use omex::plan::Residency;
use omex::session::Tables;
use omex::{Error, Result};
use std::path::PathBuf;

/// Run the same work on OMEX and on other programs.
///
/// llama.cpp gets the same weights as a GGUF file, with as many bits, and the same tokens; the
/// programs take turns. What was not found is said, with how to install it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex compare tinyllama.omex
  omex compare tinyllama.omex --python venv/bin/python --threads 2 --json
  omex compare tinyllama.omex --llama-bench llama.cpp/build/bin/llama-bench --decode-at 0")]
pub(crate) struct Args {
    /// A package
    pub(crate) model: PathBuf,
    /// A Python with llama-cpp-python [default: that of $VIRTUAL_ENV, or python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// llama.cpp's llama-bench [default: the one on the path]
    #[arg(long, value_name = "PATH", conflicts_with = "python")]
    llama_bench: Option<PathBuf>,
    /// Keep the weights for llama.cpp in this file, or use those that are there
    #[arg(long, value_name = "FILE")]
    gguf: Option<PathBuf>,
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    if args.model.is_file() {
        // What is no image either is named as what it is.
        Tables::open(&args.model)?;
        let message = "is no package, and only packages can be compared";
        return Err(Error::Usage(format!("{}: {message}", args.model.display())));
    }
    let work = args.work.fit(&args.run.open(&args.model, 1)?, &args.model)?;
    let given = Given { python: args.python.as_deref(), llama_bench: args.llama_bench.as_deref() };
    let peers = Peers::find(&given, &signals::cancel())?;
    for missing in &peers.missing {
        output::note(&format!("note: {} is not compared: {}", missing.name, missing.why));
    }
    let bar = output::progress("measuring", 1, false);
    let progress = &mut |what, done, all| {
        bar.set_message(what);
        bar.set_length(all);
        bar.set_position(done);
    };
    let options = args.run.options(1);
    let comparison = compare(&args.model, &options, &work, peers, args.gguf.as_deref(), progress);
    bar.finish_and_clear();
    let comparison = comparison?;
    if args.json { output::json(&comparison) } else { output::text(&table(&comparison)) }
}

fn table(comparison: &Comparison) -> String {
    let Comparison { threads, runs, kv_format, peer, prefill, decode, .. } = comparison;
    let peer = peer.as_deref().unwrap_or("nothing to compare with");
    let weights = match comparison.residency {
        Residency::Mapped => "stay in memory",
        Residency::Streamed { .. } => "are read for every pass",
    };
    let mut text = format!(
        "{threads} threads, tok/s: median of {runs} runs (least to largest)\n\
         OMEX: weights {weights}, KV cache in {kv_format}\n\n{:15} {:30} {peer}\n",
        "", "OMEX"
    );
    let shown = |rate: &Rate| {
        format!("{:.2} ({:.2} to {:.2})", rate.tok_s, rate.spread.min, rate.spread.max)
    };
    for (what, rows) in [("prefill", prefill), ("decode at", decode)] {
        for row in rows {
            let name = format!("{what} {}", row.tokens);
            let line = format!("{name:15} {:30} ", shown(&row.omex));
            text.push_str(&line);
            if let (Some(peer), Some(ratio)) = (&row.peer, row.ratio) {
                text.push_str(&format!("{:30} {ratio:.2} times as fast", shown(peer)));
            }
            text.push('\n');
        }
    }
    text
}

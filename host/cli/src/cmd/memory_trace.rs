//! `omex memory-trace`.

use super::text::{TextArgs, kept_bytes, longest};
use super::{RunArgs, parse_ids};
use crate::{bytes, output, standard_input};
use omex::Result;
use omex::plan::{MemoryPlan, PROCESS_BYTES, Residency};
use omex::session::{SessionOptions, Tables};
use omex::trace::{Sample, Trace, TraceSummary, Use, trace};
use serde::Serialize;
use std::path::PathBuf;

/// Run a model and show what happens in memory: what is pinned, what the ring and the KV cache hold,
/// the process's resident set, reads under way, and how long the engine waits for them.
///
/// Tokens are the most likely ones, as omex run's. A read counts as under way until the engine could
/// know that it is done, which it looks for when it needs a page. Of mapped weights there are no
/// reads to see: what of them is in memory is part of the resident set. Ctrl-C ends the text, and what
/// happened until then is shown.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex memory-trace llama.omex \"Once upon a time\" --memory 1GB
  omex memory-trace llama.omex \"Once upon a time\" --memory 1GB -o memory.svg
  omex memory-trace llama.omex --ids 1,15,27 --memory 1GB --chrome trace.json
    (opens in https://ui.perfetto.dev, or in chrome://tracing)
  omex memory-trace stories.omex \"The cat\" --pages read --json")]
pub(crate) struct Args {
    /// A package, or a flash image
    pub(crate) model: PathBuf,
    /// What the text begins with; - reads it from standard input
    #[arg(default_value = "")]
    prompt: String,
    /// Token ids to begin with, instead of a prompt
    #[arg(long, value_name = "1,2,3", value_parser = parse_ids, conflicts_with = "prompt")]
    ids: Option<::std::vec::Vec<u32>>,
    /// Tokens to generate at most
    #[arg(long, allow_negative_numbers = true, value_name = "N", default_value_t = 32)]
    max_tokens: u32,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Draw the timeline into this SVG file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write reads, stalls, passes and the timeline as Chrome's trace events into this file; of a
    /// long run, the first reads, stalls and passes
    #[arg(long, value_name = "FILE")]
    chrome: Option<PathBuf>,
    /// Print one JSON object: the plan, the figures, and the timeline
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output<'t> {
    plan: &'t MemoryPlan,
    ids: &'t [u32],
    summary: &'t TraceSummary,
    samples: &'t [Sample],
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let memory = args.run.memory;
    let given = match args.prompt.as_str() {
        "-" => standard_input::read(longest(memory))?,
        text => text.to_owned(),
    };
    let tables = Tables::open(&args.model)?;
    let prompt = match &args.ids {
        Some(ids) => ids.clone(),
        None => args.text.encode(memory, &tables, &given, true)?,
    };
    let texts = kept_bytes(&given, &prompt);
    let options = SessionOptions { texts, ..args.run.options(1) };
    let mut session = args.run.open_with(tables, &options)?;
    args.run.tell_of_prompt(&session, prompt.len(), args.max_tokens as usize)?;
    let trace = trace(&mut session, &prompt, args.max_tokens as usize, args.run.memory)?;
    if let Some(file) = &args.output {
        let title = format!("omex memory-trace {}", args.model.display());
        trace.write_svg(&title, file)?;
    }
    if let Some(file) = &args.chrome {
        trace.write_chrome(file)?;
    }
    let Trace { plan, ids, summary, samples, .. } = &trace;
    match args.json {
        true => output::json(&Output { plan, ids, summary, samples })?,
        false => output::text(&text(plan, summary))?,
    }
    session.cancel().check()
}

fn text(plan: &MemoryPlan, summary: &TraceSummary) -> String {
    let TraceSummary { passes, pass_seconds, prompt_tokens, generated_tokens, .. } = summary;
    let mut text = format!(
        "passes    {passes} in {pass_seconds:.3} s: {prompt_tokens} tokens of the prompt, \
         {generated_tokens} generated\n{}",
        budget(summary)
    );
    let in_use = |name: &str, Use { planned, peak }: Use| {
        let (peak, planned) = (bytes::show(peak), bytes::show(planned));
        format!("{name:10}{peak} at the peak, {planned} planned\n")
    };
    if plan.residency == Residency::Mapped {
        text.push_str(&in_use("KV cache", summary.kv_cache));
        text.push_str("weights   mapped: part of what is resident, without reads to see\n");
        return text;
    }
    text.push_str(&in_use("pinned", summary.pinned));
    text.push_str(&in_use("ring", summary.ring));
    text.push_str(&in_use("KV cache", summary.kv_cache));
    let overlap = summary.overlap.unwrap_or(0.0);
    text.push_str(&format!(
        "read      {} in {} reads, {} for each generated token\n\
         stalled   {:.3} s waiting for reads, {:.1} % of the passes' time\n\
         overlap   {:.1} % of the time with reads under way went on without waiting\n",
        bytes::show(summary.read_bytes),
        summary.reads,
        bytes::show(summary.streamed_bytes_per_token),
        summary.stalled_seconds,
        100.0 * summary.stalled_share,
        100.0 * overlap,
    ));
    text
}

fn budget(summary: &TraceSummary) -> String {
    let planned = bytes::show(summary.planned_bytes);
    let given = match summary.budget_bytes {
        Some(budget) => format!("{} given, {planned} planned", bytes::show(budget)),
        None => format!("none given, {planned} planned"),
    };
    let besides = bytes::show(PROCESS_BYTES);
    let resident = match (summary.peak_resident_bytes, summary.budget_kept) {
        (Some(peak), Some(kept)) => format!(
            "{} resident at the peak: {} (a process takes up to {besides} besides)",
            bytes::show(peak),
            if kept { "kept" } else { "exceeded" },
        ),
        _ => "the operating system does not tell what was resident".to_owned(),
    };
    format!("budget    {given}, {resident}\n")
}

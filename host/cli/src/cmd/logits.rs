//! `omex logits`.

use super::{RunArgs, parse_ids};
use crate::output;
use omex::Result;
use omex::generate::forward;
use omex_core::engine::Wanted;
use serde::Serialize;
use std::path::PathBuf;

/// Compute the logits at every position.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex logits stories.omex --ids 1,403,407 --json
  omex logits stories.omex --ids 1,403,407      (the five largest at each position)")]
pub(crate) struct Args {
    /// A package, or a flash image
    model: PathBuf,
    /// Token ids
    #[arg(long, value_name = "1,2,3", value_parser = parse_ids, required = true)]
    ids: ::std::vec::Vec<u32>,
    #[command(flatten)]
    run: RunArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    logits: Vec<Vec<f32>>,
}

/// Tokens in one pass.
pub(crate) const COLUMNS: u32 = 16;

pub(crate) fn main(args: &Args) -> Result<()> {
    let mut session = args.run.open(&args.model, COLUMNS)?;
    args.run.tell_of_prompt(&session, args.ids.len(), 0)?;
    let (failed, cancel) = (session.failure(), session.cancel().clone());
    let mut engine = session.engine()?;
    let mut logits = vec![];
    forward(&mut engine, &args.ids, Wanted::All, &cancel, &failed, &mut |engine, ids| {
        logits.extend((0..ids.len()).map(|column| engine.logits(column).to_vec()));
        Ok(())
    })?;
    if args.json {
        return output::json(&Output { logits });
    }
    logits.iter().enumerate().try_for_each(|(position, row)| output::text(&largest(position, row)))
}

fn largest(position: usize, row: &[f32]) -> String {
    let mut order: Vec<_> = row.iter().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(a.1));
    let best: Vec<_> = order.iter().take(5).map(|(id, logit)| format!("{id} {logit:.4}")).collect();
    format!("{position:>6}: {}\n", best.join(", "))
}

//! `omex logits`.

use super::{RunArgs, parse_ids};
use crate::output;
use omex::embed::HIDDEN;
use omex::generate::forward;
use omex::session::Tables;
use omex::{Error, Result};
use omex_core::engine::{LOGITS, Wanted};
use serde::Serialize;
use std::path::PathBuf;

/// Compute the logits at every position.
///
/// An encoder with a head has logits of every token at each place; with --hidden, what it gives out is
/// its last hidden states.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex logits stories.omex --ids 1,403,407 --json
  omex logits stories.omex --ids 1,403,407      (the five largest at each position)
  omex logits minilm.omex --ids 101,1996,4937,102,0,0 --mask 1,1,1,1,0,0 --hidden --json")]
pub(crate) struct Args {
    /// A package, or a flash image
    pub(crate) model: PathBuf,
    /// Token ids
    #[arg(long, value_name = "1,2,3", value_parser = parse_ids, required = true)]
    ids: ::std::vec::Vec<u32>,
    /// 1 for each token that counts, then 0 for those that fill up the text, which get no row
    #[arg(long, value_name = "1,1,0", value_parser = parse_ids)]
    mask: Option<::std::vec::Vec<u32>>,
    /// Give out the last hidden states instead, where the model has them
    #[arg(long)]
    hidden: bool,
    #[command(flatten)]
    run: RunArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Output {
    Logits(Vec<Vec<f32>>),
    Hidden(Vec<Vec<f32>>),
}

/// Tokens in one pass.
pub(crate) const COLUMNS: u32 = 16;

pub(crate) fn main(args: &Args) -> Result<()> {
    let ids = args.unmasked()?;
    let tables = Tables::open(&args.model)?;
    let whole = tables.program()?.runs_texts_whole();
    // Hidden states are there for every token, and then nobody asks for logits.
    let columns = match (args.hidden, whole) {
        (true, _) => 1,
        (false, true) => ids.len() as u32,
        (false, false) => COLUMNS,
    };
    let options = args.run.options(columns);
    let mut session = args.run.open_with(tables, &options)?;
    if whole && ids.len() > session.plan().context as usize {
        let (found, most) = (ids.len(), session.plan().context);
        return Err(Error::Usage(format!("found {found} tokens, expected at most {most}")));
    }
    args.run.tell_of_prompt(&session, ids.len(), 0)?;
    let (failed, cancel) = (session.failure(), session.cancel().clone());
    let mut engine = session.engine()?;
    let name = if args.hidden { HIDDEN } else { LOGITS };
    let program = engine.program().clone();
    let port = program.outputs().find(|port| port.name == name).ok_or_else(|| {
        let other = if args.hidden { "leave --hidden out" } else { "try --hidden" };
        Error::Usage(format!("{}: no output \"{name}\": {other}", args.model.display()))
    })?;
    let mut rows = vec![];
    let wanted = if args.hidden { Wanted::Last } else { Wanted::All };
    forward(&mut engine, ids, wanted, &cancel, &failed, &mut |engine, ids| {
        rows.extend((0..ids.len()).map(|column| engine.output(&port, column).to_vec()));
        Ok(())
    })?;
    if args.json {
        return output::json(&if args.hidden {
            Output::Hidden(rows)
        } else {
            Output::Logits(rows)
        });
    }
    rows.iter().enumerate().try_for_each(|(position, row)| output::text(&largest(position, row)))
}

impl Args {
    /// The tokens that count.
    fn unmasked(&self) -> Result<&[u32]> {
        let Some(mask) = &self.mask else { return Ok(&self.ids) };
        let count = mask.iter().take_while(|mark| **mark == 1).count();
        let fits = mask.len() == self.ids.len() && count > 0;
        if fits && mask[count..].iter().all(|mark| *mark == 0) {
            return Ok(&self.ids[..count]);
        }
        let found = mask.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let expected =
            format!("{} numbers, 1 for some tokens and 0 for those behind", self.ids.len());
        Err(Error::Usage(format!("--mask: found {found}, expected {expected}")))
    }
}

fn largest(position: usize, row: &[f32]) -> String {
    let mut order: Vec<_> = row.iter().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(a.1));
    let best: Vec<_> = order.iter().take(5).map(|(id, logit)| format!("{id} {logit:.4}")).collect();
    format!("{position:>6}: {}\n", best.join(", "))
}

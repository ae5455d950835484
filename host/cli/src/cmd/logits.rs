//! `omex logits`.

use super::{RunArgs, parse_ids};
use crate::output;
use omex::embed::HIDDEN;
use omex::generate::forward;
use omex::graph::CLASSES;
use omex::session::{Session, Tables};
use omex::{Error, Result, whole};
use omex_core::engine::{LOGITS, Wanted};
use serde::Serialize;
use std::path::PathBuf;

/// Compute the logits at every position.
///
/// An encoder with a head has logits of every token at each place, or those of the classes that it sorts
/// texts into; with --hidden, what it gives out is its last hidden states.
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
    /// The segment of each token, where a model tells pairs of texts apart [default: 0 for all]
    #[arg(long, value_name = "0,0,1", value_parser = parse_segments)]
    segments: Option<::std::vec::Vec<u8>>,
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
    let name = args.output(&tables)?;
    let whole = tables.program()?.runs_texts_whole();
    let columns = match name {
        LOGITS if whole => ids.len() as u32,
        LOGITS => COLUMNS,
        _ => 1,
    };
    let options = args.run.options(columns);
    let mut session = args.run.open_with(tables, &options)?;
    if whole && ids.len() > session.plan().context as usize {
        let (found, most) = (ids.len(), session.plan().context);
        return Err(Error::Usage(format!("found {found} tokens, expected at most {most}")));
    }
    args.run.tell_of_prompt(&session, ids.len(), 0)?;
    let rows = if whole {
        args.of_whole(&mut session, name, ids)?
    } else {
        args.of_passes(&mut session, name, ids)?
    };
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
    /// The output that is asked for: hidden states, or else what a head makes of them.
    fn output(&self, tables: &Tables) -> Result<&'static str> {
        let program = tables.program()?;
        let wanted: &[&'static str] = if self.hidden { &[HIDDEN] } else { &[LOGITS, CLASSES] };
        let there = |name: &&&str| program.outputs().any(|port| port.name == **name);
        wanted.iter().find(there).copied().ok_or_else(|| {
            let other = if self.hidden { "leave --hidden out" } else { "try --hidden" };
            let name = wanted.join("\" or \"");
            Error::Usage(format!("{}: no output \"{name}\": {other}", self.model.display()))
        })
    }

    /// The rows of a text that tokens see all of.
    fn of_whole(&self, session: &mut Session, name: &str, ids: &[u32]) -> Result<Vec<Vec<f32>>> {
        let segments = self.segments.iter().flatten().copied().chain(std::iter::repeat(0));
        let text: Vec<_> = ids.iter().copied().zip(segments).collect();
        let mut rows = vec![];
        whole::run(session, name, &[text], |text| text.iter().copied(), &mut |engine, port, _| {
            let columns = (0..).map(|column| engine.output(port, column).to_vec());
            rows.extend(columns.take_while(|row| !row.is_empty()));
        })?;
        Ok(rows)
    }

    /// The rows of a text that goes on pass by pass.
    fn of_passes(&self, session: &mut Session, name: &str, ids: &[u32]) -> Result<Vec<Vec<f32>>> {
        if self.segments.is_some() {
            let message =
                "--segments: found a model whose texts have no segments, expected an encoder";
            return Err(Error::Usage(message.to_owned()));
        }
        let (failed, cancel) = (session.failure(), session.cancel().clone());
        let mut engine = session.engine()?;
        let program = engine.program().clone();
        let port = program.outputs().find(|port| port.name == name);
        let mut rows = vec![];
        // Hidden states are there for every token, and then nobody asks for logits.
        let wanted = if self.hidden { Wanted::Last } else { Wanted::All };
        forward(&mut engine, ids, wanted, &cancel, &failed, &mut |engine, ids| {
            let row = |column| port.map(|port| engine.output(&port, column).to_vec());
            rows.extend((0..ids.len()).filter_map(row));
            Ok(())
        })?;
        Ok(rows)
    }

    /// The tokens that count.
    fn unmasked(&self) -> Result<&[u32]> {
        let given = self.segments.as_ref().map_or(self.ids.len(), Vec::len);
        if given != self.ids.len() {
            let expected = self.ids.len();
            let message = format!("--segments: found {given} of them, expected {expected}");
            return Err(Error::Usage(message));
        }
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

/// Segments separated by commas.
fn parse_segments(text: &str) -> Result<Vec<u8>, String> {
    let segment = |word: &str| {
        word.trim().parse().map_err(|_| format!("\"{word}\" is not a segment, from 0 to 255"))
    };
    text.split(',').map(segment).collect()
}

fn largest(position: usize, row: &[f32]) -> String {
    let mut order: Vec<_> = row.iter().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(a.1));
    let best: Vec<_> = order.iter().take(5).map(|(id, logit)| format!("{id} {logit:.4}")).collect();
    format!("{position:>6}: {}\n", best.join(", "))
}

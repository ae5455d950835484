//! `omex plan`.

use super::RunArgs;
use super::draft::with_drafts;
use super::model::ModelArgs;
use super::pack;
use super::storage::{self, StorageArgs};
use crate::{bytes, output};
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use omex::Result;
use omex::device::{BOARDS, Board, Room};
use omex::experts::ExpertMemory;
use omex::forecast::{Forecast, forecast};
use omex::package::Package;
use omex::plan::{KvSpill, MemoryPlan, Residency, RunPrecision};
use omex::profile::Profile;
use omex::session::{SessionOptions, Tables};
use serde::Serialize;
use std::path::PathBuf;

/// Show where every byte goes under a memory budget, and how fast that will be.
///
/// What this machine can do is measured on first use, and kept (see omex profile).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex plan tinyllama.omex
  omex plan tinyllama.omex --memory 200MB --json
  omex plan llama-8b.omex --memory 2GB --storage-bandwidth 1.2GB/s
  omex plan config.json --quantization int4 --memory 4GB
  omex plan tinyllama.omex --device raspberry-pi-5
  omex plan kws.omex --device pico2
  omex plan tinyllama.omex --device raspberry-pi-5 --profile pi.json
    (after omex profile --json > pi.json on that device)")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// A device whose memory is the budget; how fast it is, only its own profile tells. Of a board, also its flash
    /// and its stack
    #[arg(long, value_name = "NAME", value_parser = planned(), conflicts_with = "memory")]
    device: Option<Planned>,
    /// What another machine can do, as its omex profile --json says
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    storage: StorageArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Devices by name. The operating system keeps a part of the memory.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Device {
    /// 512 MB
    #[value(name = "raspberry-pi-zero", aliases = ["raspberry-pi-zero-2"])]
    RaspberryPiZero,
    /// 4 GB
    #[value(name = "raspberry-pi-4")]
    RaspberryPi4,
    /// 8 GB
    #[value(name = "raspberry-pi-5")]
    RaspberryPi5,
}

impl Device {
    /// Three quarters of the memory: the rest is the system's.
    pub(super) fn budget(self) -> u64 {
        let memory: u64 = match self {
            Self::RaspberryPiZero => 512 << 20,
            Self::RaspberryPi4 => 4 << 30,
            Self::RaspberryPi5 => 8 << 30,
        };
        memory / 4 * 3
    }
}

/// What a plan can be for.
#[derive(Clone, Copy, Debug)]
enum Planned {
    Computer(Device),
    Board(&'static Board),
}

/// Computers and boards by name.
fn planned() -> impl TypedValueParser<Value = Planned> {
    let computers = Device::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let boards = BOARDS.iter().map(|board| PossibleValue::new(board.name));
    PossibleValuesParser::new(computers.chain(boards)).try_map(|name| {
        let board = Board::named(&name).map(Planned::Board);
        board.map_or_else(|| Device::from_str(&name, false).map(Planned::Computer), Ok)
    })
}

fn board(args: &Args, board: &Board) -> Result<()> {
    let plan = board.plan(&Package::open(args.model.given())?, args.run.context)?;
    if args.json {
        return output::json(&plan);
    }
    let mut text = pack::memory_table(&plan.memory);
    let rooms = [
        ("stack, at most", Some(plan.stack)),
        ("flash for the firmware, at most", Some(plan.firmware)),
        ("flash for the image", plan.image),
    ];
    for (what, room) in rooms {
        match room {
            Some(Room { needed, given }) => {
                text.push_str(&format!("{what:40} {needed:>8} of {given}\n"));
            }
            None => text.push_str(&format!("{:40} {:>8}\n", "image, on a card", plan.memory.image)),
        }
    }
    text.push_str(&format!("it fits, with {} bytes of memory to spare\n", plan.memory_left));
    output::text(&text)
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let mut options = args.run.options(1);
    // A budget beside a device is a default.
    options.memory = match args.device {
        Some(Planned::Board(named)) => return board(args, named),
        Some(Planned::Computer(device)) => Some(device.budget()),
        None => options.memory,
    };
    let tables = args.model.tables()?;
    let options = with_drafts(&tables, options, None)?;
    let plan = tables.plan(&options)?;
    let (profile, program) = (args.profile(&tables, &plan, &options)?, tables.program()?);
    let threads = match (&args.profile, &profile) {
        (Some(_), Some(there)) => options.threads.unwrap_or(there.cores),
        _ => args.run.threads(),
    };
    let costs = |plan: &MemoryPlan| forecast(profile.as_ref()?, &program, plan, threads);
    let more = options.memory.filter(|_| plan.reads_storage()).map(|memory| memory + ANOTHER_GB);
    let larger = match more {
        Some(memory) => costs(&tables.plan(&SessionOptions { memory: Some(memory), ..options })?),
        None => None,
    };
    let forecast = costs(&plan);
    let decode_tok_s_with_another_gb = larger.map(|forecast| forecast.decode_tok_s);
    let shown = Output { plan, forecast, decode_tok_s_with_another_gb };
    if args.json { output::json(&shown) } else { output::text(&text(&shown, options.memory)) }
}

impl Args {
    /// What the machine that the plan is for can do; `None` if it is another one, and nobody says.
    fn profile(
        &self,
        tables: &Tables,
        plan: &MemoryPlan,
        options: &SessionOptions,
    ) -> Result<Option<Profile>> {
        match (&self.profile, self.device) {
            (Some(file), _) => {
                let profile = Profile::read(file)?;
                Ok(Some(self.storage.of_another(profile)))
            }
            (None, Some(_)) => {
                output::note(
                    "note: no forecast: only the device itself tells how fast it is; type omex \
                     profile --json > device.json there, and give --profile device.json here",
                );
                Ok(None)
            }
            (None, None) => self.storage.profile(tables, plan, options).map(Some),
        }
    }
}

/// What more memory is tried.
const ANOTHER_GB: u64 = 1_000_000_000;

#[derive(Serialize)]
struct Output {
    #[serde(flatten)]
    plan: MemoryPlan,
    /// `None` if the device's speed is unknown, or a pass reads from a storage whose bandwidth is.
    forecast: Option<Forecast>,
    /// `None` where more memory changes nothing.
    decode_tok_s_with_another_gb: Option<f64>,
}

fn text(shown: &Output, budget: Option<u64>) -> String {
    let mut text = table(&shown.plan, budget);
    if let Some(forecast) = &shown.forecast {
        text.push('\n');
        text.push_str(&storage::text(forecast));
    }
    if let Some(tok_s) = shown.decode_tok_s_with_another_gb {
        text.push_str(&format!("with 1 GB more   {tok_s:.2} tok/s decode\n"));
    }
    text
}

pub(super) fn table(plan: &MemoryPlan, budget: Option<u64>) -> String {
    let planes = if plan.precision == RunPrecision::Base { ", base planes" } else { "" };
    let weights = match plan.residency {
        Residency::Mapped => format!("weights{planes}, mapped"),
        Residency::Streamed { .. } => format!("weights{planes}, pinned"),
    };
    let ring = match plan.residency {
        Residency::Mapped => "ring".to_owned(),
        Residency::Streamed { ring_tiles, .. } => format!("ring of {ring_tiles} tiles"),
    };
    let spilled = if plan.kv_spill.is_some() { ", spilled" } else { "" };
    let kv = format!("KV cache, {} positions, {}{spilled}", plan.context, plan.kv_format);
    let mut rows = vec![
        (weights, plan.bytes.weights),
        (ring, plan.bytes.ring),
        (kv, plan.bytes.kv_cache),
        (format!("activations, {} tokens a pass", plan.prefill_chunk), plan.bytes.activations),
        ("tables and tokenizer".to_owned(), plan.bytes.tables),
        ("in all".to_owned(), plan.total),
    ];
    if let Some(ExpertMemory { all, .. }) = plan.experts {
        let of_all = format!("experts used most, of {}", bytes::show(all));
        rows.insert(2, (of_all, plan.bytes.experts));
    }
    let row = |what: &str, size| format!("{what:40} {size:>14}  {:>8}\n", bytes::show(size));
    let mut text: String = rows.iter().map(|(what, size)| row(what, *size)).collect();
    if let Some(budget) = budget {
        text.push_str(&row("left of the budget", budget - plan.total));
    }
    if plan.lent_bytes > 0 {
        text.push_str(&row("of the KV cache, lent to weights at first", plan.lent_bytes));
    }
    if let Some(KvSpill { caches, bytes }) = plan.kv_spill {
        text.push_str(&row(&format!("on storage: KV caches of {caches} layers"), bytes));
    }
    text
}

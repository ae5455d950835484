//! `omex pack`.

use super::preprocess::note_left_out;
use crate::{bytes, choices, output, signals};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use omex::device::{BOARDS, Board};
use omex::pack::{BoardPlan, Target, pack};
use omex::package::Package;
use omex::plan::Kv;
use omex::{Result, features};
use std::path::PathBuf;

/// Make the flash image for a board.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex pack stories.omex --ram 64K -o card.img
  omex pack kws.omex --device pico2 -o kws.img
  omex pack stories.omex --ram 256K --reserve 32K --page-size 4096 -o card.img --json
  omex pack kws.omex --ram 64K -o card.img --print-features
  cargo build --release --no-default-features --features $(that)    in boards/NAME")]
pub(crate) struct Args {
    /// A package
    pub(crate) model: PathBuf,
    /// The board, if there is firmware for it
    #[arg(long, value_name = "NAME", value_parser = board(), conflicts_with_all = ["ram", "reserve"])]
    device: Option<&'static Board>,
    /// Memory of the board (K is 1024 bytes)
    #[arg(long, value_name = "SIZE", value_parser = bytes::parse, required_unless_present = "device")]
    ram: Option<u64>,
    /// Part of it that the firmware needs for its stack and variables
    #[arg(long, value_name = "SIZE", value_parser = bytes::parse, default_value = "16K")]
    reserve: u64,
    /// The image to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Bytes a page, a power of two [default: 1024 up to 128K of memory, else 4096]
    #[arg(long, value_name = "SIZE", value_parser = bytes::parse)]
    page_size: Option<u64>,
    /// Tokens of the prompt in one pass [default: what a sixth of the memory allows, at most 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    columns: Option<u32>,
    /// Positions of the KV cache [default: as many as fit]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    context: Option<u32>,
    /// Format of the KV cache [default: f16, or int8 where f16 has no room for
    /// all positions; f32 for a model in f32]
    #[arg(long, value_parser = choices::kv(), value_name = "FORMAT")]
    kv: Option<Kv>,
    /// Print what firmware has to be built with for this image, and nothing else: the features that
    /// cargo build --no-default-features --features takes in boards/NAME
    #[arg(long, conflicts_with = "json")]
    print_features: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Boards by name.
fn board() -> impl TypedValueParser<Value = &'static Board> {
    PossibleValuesParser::new(BOARDS.iter().map(|board| board.name))
        .try_map(|name| Board::named(&name).ok_or("no such board"))
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let package = Package::open(&args.model)?;
    let (ram, reserve) = (args.ram.unwrap_or(0), args.reserve);
    let mapped = false;
    let given =
        Target { ram, reserve, mapped, page_size: None, columns: None, context: None, kv: None };
    let target = Target {
        page_size: args.page_size.map(|size| u32::try_from(size).unwrap_or(u32::MAX)),
        columns: args.columns,
        context: args.context,
        kv: args.kv,
        ..args.device.map_or(given, |board| board.target(None))
    };
    let plan = pack(&package, &target, &args.output, &signals::cancel())?;
    note_left_out(&package)?;
    if args.print_features {
        let features = features::of(&package, plan.kv_format)?;
        let names: Vec<_> = features.iter().map(|name| format!("omex-board/{name}")).collect();
        return output::text(&format!("{}\n", names.join(",")));
    }
    if args.json {
        return output::json(&plan);
    }
    let mut text = memory_table(&plan);
    text.push_str(&format!("{}: {}\n", args.output.display(), bytes::show(plan.image)));
    output::text(&text)
}

/// Where the bytes of a board's memory go.
pub(super) fn memory_table(plan: &BoardPlan) -> String {
    let rows = [
        ("stack and variables".to_owned(), plan.reserve),
        (format!("KV cache, {} positions, {}", plan.context, plan.kv_format), plan.kv_cache),
        (format!("activations, {} tokens a pass", plan.prefill_chunk), plan.activations),
        (format!("pages of {} bytes", plan.page_size), plan.ring),
        ("tables".to_owned(), plan.tables),
    ];
    let mut text = String::new();
    // A model without caches has no use for a line about them.
    let needed = |(_, size): &&(String, u64)| *size > 0;
    for (what, size) in rows.iter().filter(needed) {
        text.push_str(&format!("{what:40} {size:>8}\n"));
    }
    let used: u64 = rows.iter().map(|(_, size)| size).sum();
    text.push_str(&format!("{:40} {used:>8} of {}\n", "in all", plan.ram));
    for note in [plan.thread(), plan.banded()].into_iter().flatten() {
        text.push_str(&format!("{note}\n"));
    }
    text
}

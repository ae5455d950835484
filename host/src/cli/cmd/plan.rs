//! `omex plan`.

use super::Machine;
use crate::cli::{bytes, output};
use omex::Result;
use omex::plan::{MemoryPlan, Residency, RunPrecision};
use omex::session::plan_model;
use std::path::PathBuf;

/// Show where every byte goes under a memory budget.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex plan tinyllama.omex
  omex plan tinyllama.omex --memory 200MB --json
  omex plan tinyllama.omex --device raspberry-pi-zero")]
pub(crate) struct Args {
    /// A package, or a flash image
    model: PathBuf,
    /// A device whose memory is the budget
    #[arg(long, value_name = "NAME", value_enum, conflicts_with = "memory")]
    device: Option<Device>,
    #[command(flatten)]
    machine: Machine,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Devices by name. The operating system keeps a part of the memory.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Device {
    /// 512 MB
    RaspberryPiZero,
    /// 4 GB
    RaspberryPi4,
    /// 8 GB
    RaspberryPi5,
}

impl Device {
    /// Three quarters of the memory: the rest is the system's.
    fn budget(self) -> u64 {
        let memory: u64 = match self {
            Self::RaspberryPiZero => 512 << 20,
            Self::RaspberryPi4 => 4 << 30,
            Self::RaspberryPi5 => 8 << 30,
        };
        memory / 4 * 3
    }
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let mut options = args.machine.options(1);
    options.memory = options.memory.or(args.device.map(Device::budget));
    let plan = plan_model(&args.model, &options)?;
    if args.json { output::json(&plan) } else { output::text(&table(&plan, options.memory)) }
}

fn table(plan: &MemoryPlan, budget: Option<u64>) -> String {
    let planes = if plan.precision == RunPrecision::Base { ", base planes" } else { "" };
    let weights = match plan.residency {
        Residency::Mapped => format!("weights{planes}, mapped"),
        Residency::Streamed { .. } => format!("weights{planes}, pinned"),
    };
    let ring = match plan.residency {
        Residency::Mapped => "ring".to_owned(),
        Residency::Streamed { ring_tiles, .. } => format!("ring of {ring_tiles} tiles"),
    };
    let rows = [
        (weights, plan.bytes.weights),
        (ring, plan.bytes.ring),
        (format!("KV cache, {} positions, {}", plan.context, plan.kv_format), plan.bytes.kv_cache),
        (format!("activations, {} tokens a pass", plan.prefill_chunk), plan.bytes.activations),
        ("tables and tokenizer".to_owned(), plan.bytes.tables),
        ("in all".to_owned(), plan.total),
    ];
    let mut text = String::new();
    for (what, size) in rows {
        text.push_str(&format!("{what:40} {:>14}  {:>8}\n", size, bytes::show(size)));
    }
    if let Some(budget) = budget {
        let left = budget - plan.total;
        text.push_str(&format!(
            "{:40} {left:>14}  {:>8}\n",
            "left of the budget",
            bytes::show(left)
        ));
    }
    text
}

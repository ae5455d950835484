//! `omex profile`.

use super::{RunArgs, storage};
use crate::{bytes, output, signals};
use omex::Result;
use omex::forecast::{Forecast, forecast};
use omex::profile::{Profile, storage_bandwidth};
use omex::session::Tables;
use omex_core::quant::Format;
use serde::Serialize;
use std::path::PathBuf;

/// Show what this machine can do, and what that means for a model.
///
/// Figures are measured once and kept in the user's cache folder.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex profile
  omex profile tinyllama.omex --json
  omex profile tinyllama.omex --memory 200MB
  omex profile tinyllama.omex --storage /mnt/card
  omex profile --refresh")]
pub(crate) struct Args {
    /// A package, or a flash image, to forecast the speed of
    pub(crate) model: Option<PathBuf>,
    /// Measure again
    #[arg(long)]
    refresh: bool,
    /// Measure the storage that this file or folder lies on, instead of the cache folder's
    #[arg(long, value_name = "PATH")]
    storage: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    #[serde(flatten)]
    profile: Profile,
    #[serde(skip_serializing_if = "Option::is_none")]
    forecast: Option<Forecast>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    // First: a model that can't be opened should not wait for measurements.
    let tables = args.model.as_deref().map(Tables::open).transpose()?;
    let plan = tables.as_ref().map(|tables| tables.plan(&args.run.options(1))).transpose()?;
    if args.refresh || args.storage.is_some() || !Profile::is_kept() {
        output::note("note: measuring, which takes up to a minute");
    }
    let cancel = signals::cancel();
    let storage =
        args.storage.as_deref().map(|path| storage_bandwidth(path, &cancel)).transpose()?;
    let mut profile = Profile::of_this_machine(args.refresh, &cancel)?;
    if profile.is_disturbed() {
        output::note(storage::DISTURBED);
    }
    profile.storage_bandwidth = storage.or(profile.storage_bandwidth);
    let forecast = match (&tables, &plan) {
        (Some(tables), Some(plan)) => {
            forecast(&profile, &tables.program()?, plan, args.run.threads())
        }
        _ => None,
    };
    let shown = Output { profile, forecast };
    if args.json { output::json(&shown) } else { output::text(&text(&shown)) }
}

fn text(Output { profile, forecast }: &Output) -> String {
    let speed = |bandwidth: f64| format!("{}/s", bytes::show(bandwidth as u64));
    let memory = profile.read_bandwidth;
    let storage = profile.storage_bandwidth.map_or("unknown".to_owned(), speed);
    let mut text = format!(
        "CPU              {}\ncores            {}\nkernels          {}\nmemory           {} on one thread, {} on all\n\
         storage          {storage}\n",
        if profile.cpu.is_empty() { "unknown" } else { &profile.cpu },
        profile.cores,
        profile.kernels.join(", "),
        speed(memory.one_thread),
        speed(memory.all_threads),
    );
    for columns in [1, 64] {
        let products = |format| {
            let bytes = 1 << 30;
            speed(bytes as f64 / profile.compute_seconds(format, bytes, columns, profile.cores))
        };
        text.push_str(&format!(
            "{:<17}{} of int4 weights, {} of int8, on all threads\n",
            format!("{columns} token{} a pass", if columns == 1 { "" } else { "s" }),
            products(Format::Int4),
            products(Format::Int8),
        ));
    }
    if let Some(forecast) = forecast {
        text.push('\n');
        text.push_str(&storage::text(forecast));
    }
    text
}

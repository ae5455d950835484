//! `omex profile`.

use super::Machine;
use crate::cli::{bytes, output};
use omex::Result;
use omex::profile::{Forecast, Profile};
use serde::Serialize;
use std::path::PathBuf;

/// Show what this machine can do, and what that means for a model.
///
/// Bandwidths are measured once and kept in the user's cache folder.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex profile
  omex profile tinyllama.omex --json
  omex profile tinyllama.omex --memory 200MB
  omex profile --refresh")]
pub(crate) struct Args {
    /// A package, or a flash image, to forecast the speed of
    model: Option<PathBuf>,
    /// Measure again
    #[arg(long)]
    refresh: bool,
    #[command(flatten)]
    machine: Machine,
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
    let session = args.model.as_deref().map(|model| args.machine.open(model, 1)).transpose()?;
    if args.refresh || !Profile::is_kept() {
        output::note("note: measuring memory and storage, which takes some seconds");
    }
    let profile = Profile::of_this_machine(args.refresh)?;
    let forecast = match &session {
        Some(session) => Some(profile.forecast(&session.program()?, session.plan())),
        None => None,
    };
    let shown = Output { profile, forecast };
    if args.json { output::json(&shown) } else { output::text(&text(&shown)) }
}

fn text(Output { profile, forecast }: &Output) -> String {
    let speed = |bandwidth: f64| format!("{}/s", bytes::show(bandwidth as u64));
    let memory = profile.read_bandwidth;
    let storage = profile.storage_bandwidth.map_or("unknown".to_owned(), speed);
    let mut text = format!(
        "cores            {}\nkernels          {}\nmemory           {} on one thread, {} on all\n\
         storage          {storage}\n",
        profile.cores,
        profile.kernels.join(", "),
        speed(memory.one_thread),
        speed(memory.all_threads),
    );
    if let Some(forecast) = forecast {
        let from = if forecast.streamed { "storage" } else { "memory" };
        text.push_str(&format!(
            "\nweights          {} a token, from {from}\nKV cache         {} a token for each \
             position before it\ndecode           at most {:.2} tok/s on one thread, {:.2} on all\n",
            bytes::show(forecast.weight_bytes_per_token),
            bytes::show(forecast.kv_bytes_per_position),
            forecast.decode_tok_s.one_thread,
            forecast.decode_tok_s.all_threads,
        ));
        if let Some(streamed) = forecast.streamed_decode_tok_s.filter(|_| !forecast.streamed) {
            text.push_str(&format!(
                "                 at most {streamed:.2} tok/s if weights had to be streamed\n"
            ));
        }
    }
    text
}

//! `omex layer-inspect`.

use super::RunArgs;
use super::draft::with_drafts;
use super::model::ModelArgs;
use super::storage::{self, StorageArgs};
use crate::{bytes, output};
use omex::Result;
use omex::forecast::{Cost, Forecast, forecast};
use omex::layers::{Layer, layers};
use omex::plan::MemoryPlan;
use serde::Serialize;

/// Show what each layer needs: memory, reads, arithmetic, and time on this machine.
///
/// A row a layer, for a pass of one token: bytes of weights by plane, those that stay in memory and
/// those that every pass reads from storage, and how long reading and computing take, which go on at
/// once. What this machine can do is measured on first use, and kept (see omex profile).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex layer-inspect tinyllama.omex
  omex layer-inspect llama-8b.omex --memory 2GB
  omex layer-inspect llama-8b.omex --memory 2GB --precision base --json
  omex layer-inspect config.json --quantization int4 --memory 4GB")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    storage: StorageArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    /// What adds up to the plan.
    layers: Vec<Layer>,
    plan: MemoryPlan,
    /// `None` if weights stream from a storage whose bandwidth is unknown.
    forecast: Option<Forecast>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let tables = args.model.tables()?;
    let options = with_drafts(&tables, args.run.options(1), None)?;
    let plan = tables.plan(&options)?;
    let profile = args.storage.profile(&tables, &plan, &options)?;
    let threads = args.run.threads();
    let layers = layers(&tables, &profile, &plan, threads)?;
    let forecast = forecast(&profile, &tables.program()?, &plan, threads);
    let shown = Output { layers, plan, forecast };
    if args.json { output::json(&shown) } else { output::text(&text(&shown)) }
}

const HEADINGS: [&str; 10] = [
    "",
    "base",
    "residual",
    "in memory",
    "streamed",
    "KV cache",
    "mult-adds",
    "read",
    "compute",
    "limit",
];

fn text(Output { layers, forecast, .. }: &Output) -> String {
    let mut text = line(HEADINGS.map(str::to_owned));
    layers.iter().for_each(|layer| text.push_str(&row(layer)));
    text.push_str(&row(&total(layers, forecast.as_ref())));
    if let Some(forecast) = forecast {
        text.push('\n');
        text.push_str(&storage::text(forecast));
    }
    text
}

fn total(layers: &[Layer], forecast: Option<&Forecast>) -> Layer {
    let sum = |of: fn(&Layer) -> u64| layers.iter().map(of).sum();
    let seconds =
        |of: fn(&Cost) -> f64| layers.iter().filter_map(|l| l.cost.as_ref()).map(of).sum();
    Layer {
        name: "in all".to_owned(),
        multiply_adds: sum(|l| l.multiply_adds),
        base_bytes: sum(|l| l.base_bytes),
        residual_bytes: sum(|l| l.residual_bytes),
        resident_bytes: sum(|l| l.resident_bytes),
        streamed_bytes: sum(|l| l.streamed_bytes),
        kv_cache_bytes: sum(|l| l.kv_cache_bytes),
        cost: forecast.map(|forecast| Cost {
            read_seconds: seconds(|cost| cost.read_seconds),
            compute_seconds: seconds(|cost| cost.compute_seconds),
            limit: forecast.decode_limit,
        }),
    }
}

fn row(layer: &Layer) -> String {
    let size = |bytes| if bytes == 0 { "-".to_owned() } else { bytes::show(bytes) };
    let milliseconds = |seconds: fn(&Cost) -> f64| match layer.cost.as_ref().map(seconds) {
        Some(seconds) if seconds > 0.0 => format!("{:.3} ms", seconds * 1e3),
        _ => "-".to_owned(),
    };
    line([
        layer.name.clone(),
        size(layer.base_bytes),
        size(layer.residual_bytes),
        size(layer.resident_bytes),
        size(layer.streamed_bytes),
        size(layer.kv_cache_bytes),
        if layer.multiply_adds == 0 { "-".to_owned() } else { layer.multiply_adds.to_string() },
        milliseconds(|cost| cost.read_seconds),
        milliseconds(|cost| cost.compute_seconds),
        layer.cost.map_or("-".to_owned(), |cost| cost.limit.to_string()),
    ])
}

fn line(
    [name, base, residual, memory, streamed, kv, adds, read, compute, limit]: [String; 10],
) -> String {
    format!(
        "{name:10} {base:>8} {residual:>8} {memory:>9} {streamed:>8} {kv:>8} {adds:>12} {read:>11} \
         {compute:>11} {limit:>8}\n"
    )
}

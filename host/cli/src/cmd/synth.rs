//! `omex synth`.

use super::convert::{Converted, parse_precision};
use crate::{output, signals};
use clap::builder::PossibleValuesParser;
use omex::quantize::Precision;
use omex::synth::{SHAPES, write};
use omex::{Error, Result};
use std::path::PathBuf;

/// Write a package with random weights in the shape of a known model, to measure with.
///
/// It takes token ids only, and never ends a text. All matrices get the precision asked for.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex synth --shape tinyllama-1.1b --output-dir random-1.1b.omex
  omex synth --shape llama3-70b --quantization int4 --output-dir random-70b.omex
  omex synth --shape qwen3-30b-a3b --output-dir random-mixture.omex
  omex run random-1.1b.omex --ids 1,2,3 --max-tokens 20 --stats")]
pub(crate) struct Args {
    /// The model whose shape it gets
    #[arg(long, value_name = "NAME", value_parser = shapes())]
    shape: String,
    /// Precision of the weights
    #[arg(long, value_name = "f32|f16|int8|int4", value_parser = parse_precision, default_value = "int4")]
    quantization: Precision,
    /// The package to write, by convention NAME.omex
    #[arg(long, value_name = "DIR")]
    output_dir: PathBuf,
    /// Where the random numbers begin
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Replace an existing package
    #[arg(long)]
    force: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn shapes() -> PossibleValuesParser {
    SHAPES.map(|shape| shape.name).into()
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let shape = SHAPES.iter().find(|shape| shape.name == args.shape);
    let shape = shape.ok_or_else(|| Error::Usage(format!("no shape {}", args.shape)))?;
    let bar = output::progress("writing", 1, true);
    let progress = &mut output::advance(&bar);
    let (seed, cancel) = (args.seed, signals::cancel());
    let package =
        write(shape, args.quantization, seed, &args.output_dir, args.force, &cancel, progress);
    bar.finish_and_clear();
    Converted::new(&package?, &args.output_dir).print(args.json)
}

//! `omex optimize`.

use crate::{output, signals};
use omex::Result;
use omex::convert::ConvertOptions;
use omex::optimize::{OptimizeOptions, Optimized, optimize, samples};
use std::path::PathBuf;

/// Quantize a graph of floats to signed bytes, by what its values are for some inputs.
///
/// Convolutions, matrices, poolings, sums, products and functions compute in integers then, with a scale for each
/// channel of weights; what has no such form stays as it is. Inputs and outputs stay floats.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex convert model.onnx                                   (writes model.omex)
  omex optimize model.omex --calibrate samples/ -o small.omex
  omex optimize model.omex --calibrate samples.npy -o small.omex --percentile 99.99 --json")]
pub(crate) struct Args {
    /// A package of a graph of floats over one array, converted from .tflite or .onnx
    pub(crate) model: PathBuf,
    /// Typical inputs: a folder of .npy files, or one .npy file whose first dimension counts them
    #[arg(long, value_name = "DATA")]
    calibrate: PathBuf,
    /// The new package
    #[arg(short, long, value_name = "OUT.omex")]
    output: PathBuf,
    /// How much of each value's numbers keep their place, in percent; the others are cut off
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0, value_parser = percent)]
    percentile: f64,
    /// Replace an existing package
    #[arg(long)]
    force: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| (90.0..=100.0).contains(percent));
    percent.ok_or_else(|| "a number from 90 to 100".to_owned())
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let samples = samples(&args.calibrate)?;
    let convert = ConvertOptions {
        force: args.force,
        cancel: signals::cancel(),
        ..ConvertOptions::default()
    };
    let options = OptimizeOptions { percentile: args.percentile, convert };
    let optimized = optimize(&args.model, &samples, &args.output, &options)?;
    if args.json {
        return output::json(&optimized);
    }
    output::text(&shown(&optimized, samples.len()))
}

fn shown(optimized: &Optimized, samples: usize) -> String {
    let [before, after] = optimized.bytes;
    let [integers, all] = optimized.operations;
    let mut text = format!(
        "weights: {before} bytes before, {after} after\n\
         operations: {integers} of {all} in signed bytes\n"
    );
    for output in &optimized.outputs {
        text += &format!(
            "{}: apart by {:.4} of its size, cosine {:.4}; the largest number is the same in {:.1} % of {samples} samples\n",
            output.name,
            output.error,
            output.cosine,
            100.0 * output.same_largest,
        );
    }
    text
}

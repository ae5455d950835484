//! `omex infer`.

use super::RunArgs;
use crate::output;
use omex::Result;
use omex::infer::{Input, array_of, infer};
use omex::npy::{Array, Element};
use serde::Serialize;
use std::path::PathBuf;

/// Run a model that takes arrays, as an image or sound classifier does.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex convert kws.tflite                                   (writes kws.omex)
  omex infer kws.omex --input spectrogram.npy               (the five largest outputs)
  omex infer kws.omex --input spectrogram.npy -o scores.npy
  omex infer kws.omex --input seeded --json                 (the same numbers everywhere)
  omex infer wake.omex --input frames.npy -o scores.npy     (frame by frame, if the model keeps something between)
  omex infer two.omex --input left=a.npy --input right=b.npy --json")]
pub(crate) struct Args {
    /// A package, or a flash image
    pub(crate) model: PathBuf,
    /// A file, or zero or seeded (numbers that look random, the same everywhere); NAME= where the model has
    /// several inputs
    ///
    /// An array in NumPy's format (.npy), samples (.wav: 16 bits, one channel, as floats), or the input's own
    /// bytes (any other file)
    #[arg(long = "input", value_name = "[NAME=]FILE|zero|seeded", required = true)]
    inputs: Vec<String>,
    /// Write the output into a file in NumPy's format; several go to OUT.NAME.npy each
    #[arg(short, long, value_name = "OUT.npy")]
    output: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let paths: Vec<(Option<&str>, PathBuf)> =
        args.inputs.iter().map(|input| parse(input)).collect();
    let mut session = args.run.open(&args.model, 1)?;
    let mut inputs = vec![];
    for (name, path) in &paths {
        let array = array_of(&mut session, *name, path)?;
        inputs.push(Input { name: *name, path, array });
    }
    let outputs = infer(&mut session, &inputs)?;
    if let Some(path) = &args.output {
        for (name, array) in &outputs {
            let path = if outputs.len() == 1 { path.clone() } else { named(path, name) };
            array.write(&path)?;
        }
    }
    if args.json {
        let outputs: Vec<_> = outputs.iter().map(|(name, array)| shown(name, array)).collect();
        return output::json(&serde_json::json!({ "outputs": outputs }));
    }
    if args.output.is_some() {
        return Ok(());
    }
    outputs.iter().try_for_each(|(name, array)| output::text(&largest(&shown(name, array))))
}

/// `name=file`, or a file.
fn parse(input: &str) -> (Option<&str>, PathBuf) {
    match input.split_once('=') {
        Some((name, path)) => (Some(name), path.into()),
        None => (None, input.into()),
    }
}

fn named(path: &std::path::Path, name: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
    path.with_file_name(format!("{stem}.{name}.npy"))
}

fn shown(name: &str, array: &Array) -> Output {
    let values = match array.element {
        Element::F32 => {
            array.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
        Element::I8 => array.bytes.iter().map(|byte| f32::from(byte.cast_signed())).collect(),
    };
    Output { name: name.to_owned(), shape: array.shape.clone(), values }
}

/// The five largest values of an output.
fn largest(output: &Output) -> String {
    let mut order: Vec<_> = output.values.iter().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(a.1));
    let best: Vec<_> = order.iter().take(5).map(|(at, value)| format!("{at} {value}")).collect();
    format!("{} {:?}: {}\n", output.name, output.shape, best.join(", "))
}

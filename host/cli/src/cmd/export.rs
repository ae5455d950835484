//! `omex export`.

use super::preprocess::note_left_out;
use crate::{bytes, choices, output, signals};
use omex::Result;
use omex::export::{Dtype, Exported, Format, gguf, safetensors};
use omex::import::model_name;
use omex::package::Package;
use std::path::PathBuf;

/// Write a package's model as other programs store it.
///
/// safetensors is a folder as Hugging Face's transformers reads it: weights as floats, under the names of
/// the checkpoint, with config.json, the tokenizer and the chat templates. gguf is a file for llama.cpp:
/// int8 and int4 stay what they are, block for block, as Q8_0 and Q4_0. What is rounded is said.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex export tinyllama.omex --format gguf              (writes tinyllama.gguf)
  omex export tinyllama.omex --format safetensors       (writes the folder tinyllama)
  omex export qwen.omex --format safetensors --dtype bf16 -o qwen-hf --json")]
pub(crate) struct Args {
    /// A package
    pub(crate) model: PathBuf,
    /// What to write
    #[arg(long, value_parser = choices::export(), value_name = "FORMAT")]
    format: Format,
    /// The file or folder to write; a folder must be new [default: the package's name, in this folder]
    #[arg(short, long, value_name = "PATH", alias = "output-dir")]
    output: Option<PathBuf>,
    /// Type of numbers that are written as floats, but for the vectors of GGUF, which are f32
    #[arg(long, value_parser = choices::dtype(), value_name = "TYPE", default_value = "f32")]
    dtype: Dtype,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let package = Package::open(&args.model)?;
    let path = args.output();
    let bar = output::progress("writing", 1, true);
    let progress = &mut output::advance(&bar);
    let (cancel, dtype) = (signals::cancel(), args.dtype);
    let exported = match args.format {
        Format::Gguf => gguf::write(&package, &path, dtype, &cancel, progress),
        Format::Safetensors => safetensors::write(&package, &path, dtype, &cancel, progress),
    };
    bar.finish_and_clear();
    let exported = exported?;
    note_left_out(&package)?;
    if args.json {
        return output::json(&exported);
    }
    exported.notes.iter().for_each(|note| output::note(&format!("note: {note}")));
    let head = format!("{} -> {}", args.model.display(), path.display());
    output::text(&(head + &report(&exported)))
}

impl Args {
    fn output(&self) -> PathBuf {
        let name = model_name(&self.model);
        let name = name.strip_suffix(".omex").unwrap_or(&name);
        let named = match self.format {
            Format::Gguf => format!("{name}.gguf"),
            Format::Safetensors => name.to_owned(),
        };
        self.output.clone().unwrap_or_else(|| named.into())
    }
}

fn report(exported: &Exported) -> String {
    let Exported { architecture, bytes, .. } = exported;
    let mut text = format!(": {architecture}, {} of tensors\n", bytes::show(*bytes));
    for group in &exported.groups {
        let how = match (group.exact, group.from == group.to || group.from == "vector") {
            (true, true) => "as they are",
            (true, false) => "the same numbers",
            (false, _) => "rounded",
        };
        let size = bytes::show(group.bytes);
        text.push_str(&format!(
            "  {:>5} tensors, {:<7} as {:<5} {size:>9}, {how}\n",
            group.tensors, group.from, group.to
        ));
    }
    text
}

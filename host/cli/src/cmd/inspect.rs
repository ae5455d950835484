//! `omex inspect`.

use crate::{bytes, output};
use omex::pack::Image;
use omex::package::{Metadata, Package, TensorEntry};
use omex::{Error, Result};
use omex_core::ops::{Op, Operand};
use omex_core::program::{PerLayer, Program, Record, Value};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Show what is in a package or image.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex inspect tinyllama.omex
  omex inspect card.img --json")]
pub(crate) struct Args {
    /// A package, or a flash image
    pub(crate) path: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct ImageView {
    version: u32,
    page_size: u32,
    ram_bytes: u32,
    prefill_chunk: u32,
    context: u32,
    attention_sinks: u32,
    vocab_size: u32,
    sections: Vec<SectionView>,
    tensors: Vec<TensorView>,
    operations: Vec<String>,
}

#[derive(Serialize)]
struct SectionView {
    name: &'static str,
    offset: u64,
    length: u64,
}

#[derive(Serialize)]
struct TensorView {
    address: u64,
    length: u64,
    shape: [u32; 2],
    format: String,
}

#[derive(Serialize)]
struct PackageView<'p> {
    metadata: &'p Metadata,
    weight_bytes: u64,
    page_size: u32,
    tensors: &'p [TensorEntry],
    operations: Vec<String>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    if args.path.is_dir() { package(args) } else { image(args) }
}

/// The operations, a line each: what they are, their tensors and states, what they read and write.
fn operations(program: &Program<'_>) -> Vec<String> {
    program
        .records()
        .map(|record| match record {
            Record::Repeat { records, layers } => {
                format!("repeat the next {records} operations for {layers} layers")
            }
            Record::Op(op) => operation(&op),
        })
        .collect()
}

fn operation(op: &Op) -> String {
    let number = |n: &PerLayer| match n.stride {
        0 => n.first.to_string(),
        1 => format!("{} + layer", n.first),
        stride => format!("{} + {stride} layer", n.first),
    };
    let rows = |v: &Value| format!("{}[{}..{}]", v.slot, v.first, v.first + v.width);
    let mut text = format!("{:<11}", op.name());
    op.operands(&mut |operand| {
        text.push_str(&match operand {
            Operand::Weight(weight) => format!(" tensor {}", number(weight)),
            Operand::State(state) => format!(" state {}", number(state)),
            Operand::Read(value) | Operand::Source(value) => format!(" reads {}", rows(value)),
            Operand::Write(value) => format!(" writes {}", rows(value)),
            Operand::Update(value) => format!(" changes {}", rows(value)),
        });
        text.push(',');
    });
    text.trim_end_matches(',').to_owned()
}

fn package(args: &Args) -> Result<()> {
    let package = Package::open(&args.path)?;
    let view = PackageView {
        metadata: &package.metadata,
        weight_bytes: package.index.space(),
        page_size: package.index.page_size,
        tensors: &package.index.tensors,
        operations: operations(&package.program()?),
    };
    if args.json {
        return output::json(&view);
    }
    let architecture = &view.metadata.model_architecture;
    let mut text = format!(
        "{}: {}, {} parameters, {}, {} of weights in pages of {} bytes\n\n",
        view.metadata.name,
        architecture.family,
        architecture.parameters,
        architecture.quantization,
        bytes::show(view.weight_bytes),
        view.page_size
    );
    for t in view.tensors {
        let [rows, columns] = t.shape;
        let format = format!("{:?}", t.format).to_lowercase();
        let name = if t.plane == 0 { t.name.clone() } else { format!("{} residual", t.name) };
        text.push_str(&format!(
            "{name:36} {format:6} {rows:>7} × {columns:<7} {} at {}, {} bytes\n",
            t.file, t.offset, t.length
        ));
    }
    print(text, &view.operations)
}

fn image(args: &Args) -> Result<()> {
    let image = Image::open(&args.path)?;
    let view = view(&image, &args.path)?;
    if args.json {
        return output::json(&view);
    }
    let mut text = format!(
        "image version {}, {} KB of memory, pages of {} bytes, {} positions, {} tokens a pass\n\n",
        view.version,
        view.ram_bytes >> 10,
        view.page_size,
        view.context,
        view.prefill_chunk
    );
    for section in &view.sections {
        text.push_str(&format!(
            "{:10} {:>10} {:>10}\n",
            section.name, section.offset, section.length
        ));
    }
    text.push('\n');
    for (number, t) in view.tensors.iter().enumerate() {
        let [rows, columns] = t.shape;
        text.push_str(&format!(
            "{number:>4} {:6} {rows:>7} × {columns:<7} at {}, {} bytes\n",
            t.format, t.address, t.length
        ));
    }
    print(text, &view.operations)
}

fn print(mut text: String, operations: &[String]) -> Result<()> {
    text.push('\n');
    for operation in operations {
        text.push_str(operation);
        text.push('\n');
    }
    output::text(&text)
}

fn view(image: &Image, path: &Path) -> Result<ImageView> {
    let h = &image.header;
    let pages = h.pages.offset..h.pages.offset + h.pages.length;
    let program = Program::parse(&image.program, &image.tensors, pages)
        .map_err(|error| Error::load(path, error))?;
    let extents = [
        ("program", h.program),
        ("tensors", h.tensors),
        ("checksums", h.checksums),
        ("tokenizer", h.tokenizer),
        ("pages", h.pages),
    ];
    let tensors = (0..).map_while(|i| program.tensor(i)).map(|t| TensorView {
        address: t.address,
        length: t.bytes(),
        shape: [t.rows, t.columns],
        format: format!("{:?}", t.format).to_lowercase(),
    });
    Ok(ImageView {
        version: omex_core::image::VERSION,
        page_size: h.page_size,
        ram_bytes: h.ram_bytes,
        prefill_chunk: h.plan.columns,
        context: h.plan.kv_capacity,
        attention_sinks: h.plan.kv_sinks,
        vocab_size: program.header().vocab_size,
        sections: extents
            .map(|(name, e)| SectionView { name, offset: e.offset, length: e.length })
            .into(),
        tensors: tensors.collect(),
        operations: operations(&program),
    })
}

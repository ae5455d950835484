//! `omex convert`.

use crate::{bytes, output, signals};
use omex::convert::{Calibration, ConvertOptions, TokenizerChoice, convert};
use omex::import::{self, SourceFormat};
use omex::package::Package;
use omex::quantize::Precision;
use omex::{Error, Result};
use std::path::{Path, PathBuf};

/// Turn another program's model into a package.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex convert --source-format huggingface --model-path ./TinyLlama --output-dir tinyllama.omex
  omex convert --model-path model-q4_0.gguf --output-dir model.omex
  omex convert --model-path ./TinyLlama --quantization int4+4 --output-dir tinyllama.omex
  omex convert --model-path stories260K.bin --tokenizer tok512.bin --quantization int8 \\
               --output-dir stories.omex")]
pub(crate) struct Args {
    /// Format of the source [default: found out]
    #[arg(long, value_name = "huggingface|gguf|pytorch|llama2c|tflite")]
    source_format: Option<SourceFormat>,
    /// A Hugging Face folder, a GGUF file (or one of its parts), a PyTorch checkpoint, a llama2.c file,
    /// or a TensorFlow Lite file
    ///
    /// A checkpoint (.pt, .pth, .bin) needs the model's config.json beside it, unless it holds its
    /// hyperparameters itself
    #[arg(long, value_name = "PATH")]
    model_path: PathBuf,
    /// The package to write, by convention NAME.omex
    #[arg(long, value_name = "DIR")]
    output_dir: PathBuf,
    /// Precision of the weights [default: int8; what is quantized already is kept]
    ///
    /// int4+4 is int4 and, apart from it, what that got wrong, as int4: read together they are about
    /// as good as int8, the first alone is what int4 is (see omex run --precision)
    #[arg(long, value_name = "f32|f16|int8|int4|int4+4", value_parser = parse_quantization)]
    quantization: Option<Quantization>,
    /// A tokenizer.json, or llama2.c's tokenizer.bin [default: the one beside the model]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Leave the tokenizer out: the package takes token ids only
    #[arg(long, conflicts_with = "tokenizer")]
    no_tokenizer: bool,
    /// A text that shows how weights are best rounded to int4 [default: small models write their own]
    #[arg(long, value_name = "TEXTFILE", conflicts_with = "no_calibration")]
    calibration: Option<PathBuf>,
    /// Round weights to int4 plainly
    #[arg(long)]
    no_calibration: bool,
    /// Replace an existing package
    #[arg(long)]
    force: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A precision, and whether a residual plane goes with it.
pub(super) type Quantization = (Precision, bool);

pub(super) fn parse_quantization(text: &str) -> Result<Quantization, String> {
    match text {
        "int4+4" => Ok((Precision::Int4, true)),
        _ => match parse_precision(text) {
            Ok(precision) => Ok((precision, false)),
            Err(_) => Err("expected f32, f16, int8, int4 or int4+4".into()),
        },
    }
}

pub(super) fn parse_precision(text: &str) -> Result<Precision, String> {
    match text {
        "f32" => Ok(Precision::F32),
        "f16" => Ok(Precision::F16),
        "int8" => Ok(Precision::Int8),
        "int4" => Ok(Precision::Int4),
        _ => Err("expected f32, f16, int8 or int4".into()),
    }
}

/// A package that was written, for people and as JSON.
#[derive(serde::Serialize)]
pub(super) struct Converted {
    /// Lossy, where a path is no UTF-8: what was written can be named in JSON all the same.
    path: String,
    parameters: u64,
    quantization: String,
    weight_bytes: u64,
}

impl Converted {
    pub(super) fn new(package: &Package, path: &Path) -> Self {
        let architecture = &package.metadata.model_architecture;
        Self {
            path: path.display().to_string(),
            parameters: architecture.parameters,
            quantization: architecture.quantization.clone(),
            weight_bytes: package.index.space(),
        }
    }

    pub(super) fn print(&self, json: bool) -> Result<()> {
        if json {
            return output::json(self);
        }
        output::text(&format!(
            "{}: {} parameters, {}, {} of weights\n",
            self.path,
            self.parameters,
            self.quantization,
            bytes::show(self.weight_bytes)
        ))
    }
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let package = convert_to(args, &args.output_dir)?;
    Converted::new(&package, &args.output_dir).print(args.json)
}

fn convert_to(args: &Args, output: &Path) -> Result<Package> {
    let format = match args.source_format {
        Some(format) => format,
        None => import::detect(&args.model_path)?,
    };
    let source = import::open(&args.model_path, Some(format))?;
    let name = import::model_name(&args.model_path);
    let options = ConvertOptions {
        precision: args.quantization.map(|(precision, _)| precision),
        residual: args.quantization.is_some_and(|(_, residual)| residual),
        tokenizer: match &args.tokenizer {
            Some(file) => TokenizerChoice::File(file),
            None if args.no_tokenizer => TokenizerChoice::None,
            None => TokenizerChoice::Own,
        },
        calibration: match &args.calibration {
            Some(text) => Calibration::Text(text),
            None if args.no_calibration => Calibration::Off,
            None => Calibration::Auto,
        },
        force: args.force,
        cancel: signals::cancel(),
    };
    let takes_text = format != SourceFormat::Tflite;
    let none_found = source.tokenizer().is_none() && options.tokenizer == TokenizerChoice::Own;
    if takes_text && none_found {
        output::note(
            "note: no tokenizer found; the package takes token ids only (see --tokenizer)",
        );
    }
    let bar = output::progress("converting", 1, false);
    let package =
        convert(&*source, &format.to_string(), &name, output, &options, &mut |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        });
    bar.finish_and_clear();
    package
}

/// Converts a model with the defaults, for `omex` without a command.
pub(crate) fn convert_plainly(model: &Path, output: &Path) -> Result<(), Error> {
    let args = Args {
        source_format: None,
        model_path: model.to_owned(),
        output_dir: output.to_owned(),
        quantization: None,
        tokenizer: None,
        no_tokenizer: false,
        calibration: None,
        no_calibration: false,
        force: true,
        json: false,
    };
    convert_to(&args, output).map(|_| ())
}

//! `omex convert`.

mod report;

pub(super) use report::Converted;

use crate::{output, signals};
use omex::convert::{self, Calibration, ConvertOptions, Found, TokenizerChoice};
use omex::import::{self, Container, SourceFormat};
use omex::package::Package;
use omex::quantize::Precision;
use omex::{Error, Result, memory};
use report::{Plan, Report};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Turn another program's model into a package.
///
/// Says what the model is and what is made of it. In the end, the package and the model, with its weights
/// as they are stored, run a short text, and how far they are apart is told.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex convert ./TinyLlama                  (writes TinyLlama.omex)
  omex convert model-q4_0.gguf --dry-run    (says what it would do, and what it can't)
  omex convert ./MiniLM/onnx/model_quantized.onnx
  omex convert ./TinyLlama --quantization int4+4 --output-dir tinyllama.omex
  omex convert stories260K.bin --tokenizer tok512.bin --quantization int8
  omex convert --source-format huggingface --model-path ./TinyLlama --output-dir tinyllama.omex")]
pub(crate) struct Args {
    /// Format of the source [default: found out]
    #[arg(long, value_name = "huggingface|gguf|pytorch|onnx|llama2c|tflite")]
    source_format: Option<SourceFormat>,
    /// A Hugging Face folder, a GGUF file (or one of its parts), a PyTorch checkpoint, an ONNX file, a
    /// llama2.c file, a TensorFlow Lite file, or hf:ORGANISATION/NAME: a model of a hub (see omex pull)
    ///
    /// A checkpoint (.pt, .pth, .bin) needs the model's config.json beside it, unless it holds its
    /// hyperparameters itself; an ONNX file, as optimum and torch export transformers, beside it or its folder
    #[arg(value_name = "MODEL", required_unless_present = "model_path")]
    model: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "PATH", conflicts_with = "model")]
    model_path: Option<PathBuf>,
    /// The package to write [default: NAME.omex in this folder, with the model's name]
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Precision of the weights [default: int8, or int4 where this machine's memory does not hold that;
    /// what is quantized already is kept]
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
    /// Say what the model is and what would be written, with all that is not supported, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Leave out comparing the package with the model
    #[arg(long)]
    no_check: bool,
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

pub(crate) fn main(args: &Args) -> Result<()> {
    let source = args.open()?;
    let output = args.output();
    let found = convert::found(&*source, args.tokenizer());
    let plan = match found.problems.is_empty() {
        true => Some(args.plan(&*source, &output)?),
        false => None,
    };
    let mut report = Report::new(args.source_path(), found, plan);
    if !args.json {
        output::text(&report.before())?;
    }
    if args.dry_run {
        return args.end_dry_run(report);
    }
    if !report.found.problems.is_empty() {
        return Err(report.found.problems.swap_remove(0));
    }
    args.tell_of_tokenizer(&report.found);
    let precision = report.plan.as_ref().and_then(|plan| plan.precision);
    let package = args.convert_to(&*source, precision, &output)?;
    report.written(&package, &output);
    if !args.no_check {
        report.check = Some(convert::check(&source, &output, &signals::cancel())?);
    }
    if args.json { output::json(&report) } else { output::text(&report.after()) }
}

impl Args {
    /// Where the model lies.
    pub(crate) fn path(&mut self) -> Option<&mut PathBuf> {
        self.model.as_mut().or(self.model_path.as_mut())
    }

    fn source_path(&self) -> &Path {
        self.model.as_deref().or(self.model_path.as_deref()).unwrap_or(Path::new(""))
    }

    fn open(&self) -> Result<Arc<dyn Container>> {
        import::open(self.source_path(), self.source_format).map(Arc::from)
    }

    fn output(&self) -> PathBuf {
        let named = || PathBuf::from(format!("{}.omex", import::model_name(self.source_path())));
        self.output_dir.clone().unwrap_or_else(named)
    }

    fn tokenizer(&self) -> TokenizerChoice<'_> {
        match &self.tokenizer {
            Some(file) => TokenizerChoice::File(file),
            None if self.no_tokenizer => TokenizerChoice::None,
            None => TokenizerChoice::Own,
        }
    }

    /// What is written, and why in this precision.
    fn plan(&self, source: &dyn Container, output: &Path) -> Result<Plan> {
        let available = memory::usable();
        let ((precision, outlook), chosen) = match self.quantization {
            Some((precision, residual)) => {
                let outlook = convert::outlook(source, Some(precision), residual)?;
                ((Some(precision), outlook), false)
            }
            None => (convert::best_precision(source, available)?, true),
        };
        Ok(Plan { path: output.display().to_string(), precision, outlook, available, chosen })
    }

    /// Ends without having written anything: with all that is wrong, if something is.
    fn end_dry_run(&self, mut report: Report) -> Result<()> {
        if let Err(error) = convert::check_output(&self.output(), self.force) {
            report.found.problems.push(error);
        }
        let problems = &report.found.problems;
        if self.json {
            output::json(&report)?;
        } else {
            problems.iter().for_each(output::error);
        }
        match problems.len() {
            0 => Ok(()),
            count => Err(Error::Invalid { path: self.source_path().to_owned(), count }),
        }
    }

    fn tell_of_tokenizer(&self, found: &Found) {
        let takes_text = found.source_format != SourceFormat::Tflite.to_string();
        if takes_text && found.tokenizer.is_none() && !self.no_tokenizer {
            output::note(
                "note: no tokenizer found; the package takes token ids only (see --tokenizer)",
            );
        }
    }

    fn convert_to(
        &self,
        source: &dyn Container,
        precision: Option<Precision>,
        output: &Path,
    ) -> Result<Package> {
        let options = ConvertOptions {
            precision,
            residual: self.quantization.is_some_and(|(_, residual)| residual),
            tokenizer: self.tokenizer(),
            calibration: match &self.calibration {
                Some(text) => Calibration::Text(text),
                None if self.no_calibration => Calibration::Off,
                None => Calibration::Auto,
            },
            force: self.force,
            cancel: signals::cancel(),
        };
        let format = source.format().to_string();
        let name = import::model_name(self.source_path());
        let bar = output::progress("converting", 1, false);
        let mut progress = |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        };
        let package = convert::convert(source, &format, &name, output, &options, &mut progress);
        bar.finish_and_clear();
        package
    }
}

/// Converts a model with the defaults but for the precision, in place of a package that is there.
pub(super) fn convert_plainly(
    model: &Path,
    output: &Path,
    quantization: Option<Quantization>,
) -> Result<(), Error> {
    let args = Args {
        source_format: None,
        model: Some(model.to_owned()),
        model_path: None,
        output_dir: None,
        quantization,
        tokenizer: None,
        no_tokenizer: false,
        calibration: None,
        no_calibration: false,
        force: true,
        dry_run: false,
        no_check: true,
        json: false,
    };
    let precision = quantization.map(|(precision, _)| precision);
    args.convert_to(&*args.open()?, precision, output).map(|_| ())
}

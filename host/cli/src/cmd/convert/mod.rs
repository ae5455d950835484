//! `omex convert`.

mod report;

pub(super) use report::Converted;

use crate::{bytes, output, signals};
use indicatif::ProgressBar;
use omex::convert::{self, Calibration, ConvertOptions, Found, Note, TokenizerChoice, Told};
use omex::import::{self, Container, SourceFormat};
use omex::package::Package;
use omex::quantize::Precision;
use omex::{Error, Result, memory};
use report::{Plan, Report};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

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
  omex convert ./Llama-3-70B --memory 256MB
  omex convert ./Phi-3.5-mini --long-context
  omex convert silero_vad.onnx --input-shape input=1x576 --input-shape state=2x1x128 --set sr=16000
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
    /// hyperparameters itself; an ONNX file that optimum or torch exported of a transformer, beside it or its folder.
    /// Other ONNX files are graphs over arrays, for omex infer
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
    /// Take texts longer than the model was trained on at first, where it has other factors for them (LongRoPE:
    /// Phi 3 and 4)
    ///
    /// They apply to all positions and texts of any length: short texts come out a little differently
    #[arg(long)]
    long_context: bool,
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
    /// Dimensions of an input that an ONNX graph leaves open, such as input=1x576
    #[arg(long, value_name = "NAME=AxBxC", value_parser = parse_shape)]
    input_shape: Vec<(String, Vec<usize>)>,
    /// A number in place of an input of an ONNX graph, such as a sample rate: sr=16000
    #[arg(long, value_name = "NAME=NUMBER", value_parser = parse_number)]
    set: Vec<(String, f64)>,
    /// Memory that converting may take: what can't be done in it is refused before anything is written
    ///
    /// Weights are read a part at a time in any case: models of any size are converted in some 70 MB, or in
    /// what their tokenizer takes, about 2 KB a token. Comparing with the model takes some 200 MB, and is
    /// left out if it does not fit
    #[arg(long, value_name = "SIZE", value_parser = bytes::parse)]
    memory: Option<u64>,
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

fn parse_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, sides) = text.split_once('=').ok_or("expected NAME=AxBxC")?;
    let sides: Result<_, _> = sides.split('x').map(str::parse).collect();
    Ok((name.to_owned(), sides.map_err(|_| "expected numbers with x between them: 1x3x224x224")?))
}

fn parse_number(text: &str) -> Result<(String, f64), String> {
    let (name, number) = text.split_once('=').ok_or("expected NAME=NUMBER")?;
    Ok((name.to_owned(), number.parse().map_err(|_| "expected a number behind =")?))
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let source = args.open()?;
    let output = args.output();
    args.check_memory(&*source)?;
    let found = convert::found(&*source, &args.options(None));
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
    let began = Instant::now();
    let package = args.convert_to(&*source, precision, &output, false)?;
    report.written(&package, &output, began.elapsed());
    if !args.no_check {
        report.check = Some(convert::check(&source, &output, &args.options(precision))?);
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
        let inputs = import::GraphInputs {
            shapes: self.input_shape.iter().cloned().collect(),
            numbers: self.set.iter().cloned().collect(),
        };
        import::open_with(self.source_path(), self.source_format, &inputs).map(Arc::from)
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
            Some((precision, _)) => {
                let precision = Some(precision);
                ((precision, convert::outlook(source, &self.options(precision))?), false)
            }
            None => (convert::best_precision(source, &self.options(None), available)?, true),
        };
        let (path, long_context) = (output.display().to_string(), self.long_context);
        Ok(Plan { path, precision, outlook, available, chosen, long_context })
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

    fn options(&self, precision: Option<Precision>) -> ConvertOptions<'_> {
        ConvertOptions {
            precision,
            residual: self.quantization.is_some_and(|(_, residual)| residual),
            long_context: self.long_context,
            tokenizer: self.tokenizer(),
            calibration: match &self.calibration {
                Some(text) => Calibration::Text(text),
                None if self.no_calibration => Calibration::Off,
                None => Calibration::Auto,
            },
            memory: self.memory,
            force: self.force,
            cancel: signals::cancel(),
            ..Default::default()
        }
    }

    /// Refuses too little memory before more is taken. What else may be wrong is found later.
    fn check_memory(&self, source: &dyn Container) -> Result<()> {
        let precision = self.quantization.map(|(precision, _)| precision);
        match convert::check_memory(source, &self.options(precision)) {
            Err(error @ Error::Room { .. }) => Err(error),
            _ => Ok(()),
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
        wait: bool,
    ) -> Result<Package> {
        let bar = output::progress("converting", 1, true);
        let tell = |note: &Note<'_>| tell(&bar, note);
        let options = ConvertOptions { wait, told: Told(Some(&tell)), ..self.options(precision) };
        let format = source.format().to_string();
        let name = import::model_name(self.source_path());
        let mut progress = output::advance(&bar);
        let package = convert::convert(source, &format, &name, output, &options, &mut progress);
        bar.finish_and_clear();
        let partial = convert::partial_path(output);
        if matches!(package, Err(Error::Io { .. })) && partial.exists() {
            let partial = partial.display();
            output::note(&format!(
                "{partial}: has what is finished: the same command goes on with it, if it stays"
            ));
        }
        package
    }
}

/// Says what happens, above the bar if there is one.
fn tell(bar: &ProgressBar, note: &Note<'_>) {
    match note {
        Note::Calibrates => bar.set_message("calibrating"),
        _ => bar.suspend(|| output::note(&note.to_string())),
    }
    // What was kept came at once, and says nothing of how long the rest takes.
    bar.reset_eta();
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
        long_context: false,
        tokenizer: None,
        no_tokenizer: false,
        calibration: None,
        no_calibration: false,
        input_shape: vec![],
        set: vec![],
        memory: None,
        force: true,
        dry_run: false,
        no_check: true,
        json: false,
    };
    let precision = quantization.map(|(precision, _)| precision);
    args.convert_to(&*args.open()?, precision, output, true).map(|_| ())
}

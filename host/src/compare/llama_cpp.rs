//! llama.cpp, through `llama-bench` or through llama-cpp-python.

use super::{Given, has_module, on_path, output, pythons};
use crate::benchmark::{DECODE_TIME, DECODE_TOKENS, Samples, Work};
use crate::cancel::Cancel;
use crate::export::{Dtype, gguf};
use crate::package::Package;
use crate::{Error, Result};
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// llama.cpp on this machine.
#[derive(Clone, Debug)]
pub struct LlamaCpp {
    program: PathBuf,
    kind: Kind,
    version: String,
    cancel: Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    LlamaBench,
    Python,
}

impl fmt::Display for LlamaCpp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::LlamaBench => write!(f, "llama.cpp (llama-bench)"),
            Kind::Python => write!(f, "llama.cpp (llama-cpp-python {})", self.version),
        }
    }
}

const INSTALL: &str = "install it with \"pip install llama-cpp-python\" in a virtual environment \
                       and give its --python, or build llama.cpp and give its --llama-bench";

/// Prints the version, and fails where the module can't be loaded.
const VERSION: &str = "import llama_cpp; print(llama_cpp.__version__)";

impl LlamaCpp {
    /// Looks for it; what is given comes first. Says why if there is none.
    pub(super) fn find(given: &Given<'_>, cancel: &Cancel) -> Result<Result<Self, String>> {
        let new = |program, kind, version| Self { program, kind, version, cancel: cancel.clone() };
        if let (Some(program), _) | (None, Some(program)) = (
            given.llama_bench.map(Path::to_owned),
            on_path("llama-bench").filter(|_| given.python.is_none()),
        ) {
            output(Command::new(&program).arg("--help"), cancel)?;
            return Ok(Ok(new(program, Kind::LlamaBench, String::new())));
        }
        let mut looked = vec!["llama-bench on the path".to_owned()];
        for program in pythons(given) {
            if has_module(&program, "llama_cpp", cancel) {
                let version = output(Command::new(&program).args(["-I", "-c", VERSION]), cancel)?;
                let version = version.trim().to_owned();
                return Ok(Ok(new(program, Kind::Python, version)));
            }
            looked.push(format!("llama_cpp in {}", program.display()));
        }
        Ok(Err(format!("found no {}; {INSTALL}", looked.join(" and no "))))
    }

    /// Runs the work once.
    pub(super) fn run(&self, job: &Job) -> Result<Samples> {
        match self.kind {
            Kind::LlamaBench => self.run_bench(job),
            Kind::Python => self.run_python(job),
        }
    }

    fn run_python(&self, job: &Job) -> Result<Samples> {
        let Work { prefill, decode_at, .. } = &job.work;
        let description = serde_json::json!({
            "gguf": job.gguf, "threads": job.threads, "context": job.context,
            "vocabulary": job.vocabulary, "prefill": prefill, "decode_at": decode_at,
            "tokens": DECODE_TOKENS, "seconds": DECODE_TIME.as_secs(),
        });
        let mut command = Command::new(&self.program);
        command.args(["-I", "-c", include_str!("llama_cpp.py"), &description.to_string()]);
        let said: Rates = self.parse(&output(&mut command, &self.cancel)?)?;
        let samples = |tokens: &[u32], rates: &[f64]| {
            tokens.iter().copied().zip(rates.iter().map(|rate| vec![*rate])).collect()
        };
        Ok(Samples {
            prefill: samples(prefill, &said.prefill),
            decode: samples(decode_at, &said.decode),
        })
    }

    fn run_bench(&self, job: &Job) -> Result<Samples> {
        let Work { prefill, decode_at, .. } = &job.work;
        let list =
            |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let bench = |args: &[&str]| -> Result<Vec<Test>> {
            let mut command = Command::new(&self.program);
            command.arg("-m").arg(&job.gguf).args(["-t", &job.threads.to_string()]);
            // On the CPU, whatever else llama.cpp could use.
            command.args(["-ngl", "0", "-r", "1", "-o", "json"]).args(args);
            self.parse(&output(&mut command, &self.cancel)?)
        };
        let rate = |tests: &[Test], what: String, is: &dyn Fn(&Test) -> bool| {
            let found = tests.iter().find(|test| is(test)).map(|test| vec![test.avg_ts]);
            found.ok_or_else(|| self.unexpected(format!("no {what}")))
        };
        let mut samples = Samples::default();
        if !prefill.is_empty() {
            let tests = bench(&["-p", &list(prefill), "-n", "0"])?;
            for tokens in prefill {
                let is = |test: &Test| test.n_prompt == *tokens && test.n_gen == 0;
                let rate = rate(&tests, format!("prompt of {tokens} tokens"), &is)?;
                samples.prefill.push((*tokens, rate));
            }
        }
        if !decode_at.is_empty() {
            let (tokens, depths) = (DECODE_TOKENS.to_string(), list(decode_at));
            let mut args = vec!["-p", "0", "-n", &tokens];
            // Older versions know no depth.
            if decode_at.iter().any(|depth| *depth > 0) {
                args.extend(["-d", &depths]);
            }
            let tests = bench(&args)?;
            for depth in decode_at {
                let is = |test: &Test| test.n_prompt == 0 && test.n_depth == *depth;
                let rate = rate(&tests, format!("generation at depth {depth}"), &is)?;
                samples.decode.push((*depth, rate));
            }
        }
        Ok(samples)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, said: &str) -> Result<T> {
        serde_json::from_str(said).map_err(|e| self.unexpected(e.to_string()))
    }

    fn unexpected(&self, found: String) -> Error {
        let expected = "JSON with the rates that were asked for";
        Error::malformed(&self.program, "its output", found, expected, "try another version of it")
    }
}

/// What llama-cpp-python's side prints.
#[derive(Deserialize)]
struct Rates {
    prefill: Vec<f64>,
    decode: Vec<f64>,
}

/// A test of `llama-bench`.
#[derive(Deserialize)]
struct Test {
    n_prompt: u32,
    n_gen: u32,
    #[serde(default)]
    n_depth: u32,
    avg_ts: f64,
}

/// Work for llama.cpp, and the weights that it is done with.
pub(super) struct Job {
    gguf: PathBuf,
    threads: usize,
    /// Positions of the KV cache.
    context: u32,
    vocabulary: u32,
    work: Work,
}

impl Job {
    /// Writes the weights, unless they are there.
    pub(super) fn new(
        model: &Path,
        gguf: PathBuf,
        threads: usize,
        work: &Work,
        cancel: &Cancel,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let package = Package::open(model)?;
        if !gguf.exists() {
            gguf::write(&package, &gguf, Dtype::F32, cancel, progress)?;
        } else if !gguf::is_of(&package, &gguf)? {
            let message = "exists and holds other weights: give another path, or remove it";
            return Err(Error::Usage(format!("{}: {message}", gguf.display())));
        }
        let lengths = work.decode_at.iter().map(|depth| depth + DECODE_TOKENS);
        let context = lengths.chain(work.prefill.iter().copied()).max().unwrap_or(0);
        let vocabulary = package.graph.vocab_size;
        Ok(Self { gguf, threads, context, vocabulary, work: work.clone() })
    }
}

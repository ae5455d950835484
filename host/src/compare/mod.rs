//! The same weights and the same work on OMEX and on other programs, in turn.

mod llama_cpp;

use crate::benchmark::{Samples, Spread, Work, measure};
use crate::cancel::Cancel;
use crate::plan::{Kv, Residency};
use crate::scratch::ScratchFolder;
use crate::session::{Session, SessionOptions, plan_model};
use crate::system::{cache_folder, cores};
use crate::{Error, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use llama_cpp::LlamaCpp;

/// Where to look for other programs first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'g> {
    /// A Python with llama-cpp-python.
    pub python: Option<&'g Path>,
    /// llama.cpp's `llama-bench`.
    pub llama_bench: Option<&'g Path>,
}

/// Other programs on this machine.
#[derive(Debug, Default)]
pub struct Peers {
    /// llama.cpp.
    pub llama_cpp: Option<LlamaCpp>,
    /// What is not compared.
    pub missing: Vec<Missing>,
}

/// A program that is not compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Its name.
    pub name: &'static str,
    /// Why, and what to do about it.
    pub why: String,
}

impl Peers {
    /// Looks for other programs.
    ///
    /// # Errors
    /// being cancelled. A program that was given and can't be used is among those that are missing.
    pub fn find(given: &Given<'_>, cancel: &Cancel) -> Result<Self> {
        let mut peers = Self::default();
        match LlamaCpp::find(given, cancel)? {
            Ok(found) => peers.llama_cpp = Some(found),
            Err(why) => peers.missing.push(Missing { name: "llama.cpp", why }),
        }
        if let Some(python) =
            pythons(given).into_iter().find(|p| has_module(p, "onnxruntime", cancel))
        {
            let why = format!("found in {}, but it needs an ONNX model", python.display());
            peers.missing.push(Missing { name: "ONNX Runtime", why });
        }
        cancel.check()?;
        Ok(peers)
    }
}

/// Pythons to look into: the one given, or that of the environment and that on the path.
fn pythons(given: &Given<'_>) -> Vec<PathBuf> {
    if let Some(python) = given.python {
        return vec![python.to_owned()];
    }
    let environment = std::env::var_os("VIRTUAL_ENV").map(|v| Path::new(&v).join("bin/python"));
    environment.filter(|p| p.is_file()).into_iter().chain(on_path("python3")).collect()
}

/// A program on the path.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn has_module(python: &Path, module: &str, cancel: &Cancel) -> bool {
    // Found, not imported: importing may take seconds.
    let code = format!(
        "import importlib.util, sys; sys.exit(importlib.util.find_spec('{module}') is None)"
    );
    output(Command::new(python).args(["-I", "-c", &code]), cancel).is_ok()
}

/// What a program prints to standard output.
fn output(command: &mut Command, cancel: &Cancel) -> Result<String> {
    let program = PathBuf::from(command.get_program());
    let failed = |e| Error::io(&program, "run", e);
    let done = command.stdin(Stdio::null()).output().map_err(failed)?;
    cancel.check()?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let end: Vec<_> = said.trim().lines().rev().take(5).collect();
        let end: Vec<_> = end.into_iter().rev().collect();
        return Err(failed(std::io::Error::other(format!("{}: {}", done.status, end.join("; ")))));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// A comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Threads of each program.
    pub threads: usize,
    /// How often everything was measured; figures are medians.
    pub runs: u32,
    /// How weights reach OMEX's engine.
    pub residency: Residency,
    /// How OMEX stores keys and values.
    pub kv_format: Kv,
    /// The program that OMEX was compared with, and how it was run.
    pub peer: Option<String>,
    /// By the prompt's length.
    pub prefill: Vec<Row>,
    /// By the tokens in the KV cache.
    pub decode: Vec<Row>,
    /// What is not compared.
    pub not_compared: Vec<Missing>,
}

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The prompt's length, or the tokens in the KV cache.
    pub tokens: u32,
    /// OMEX.
    pub omex: Rate,
    /// The other program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Rate>,
    /// How many times as fast as the other program OMEX is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// Tokens a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// The median.
    pub tok_s: f64,
    /// The least and the largest.
    #[serde(flatten)]
    pub spread: Spread,
}

/// Runs the work on OMEX and on the other programs in turn. `gguf` is where the weights are kept
/// for the other programs; without it they go to the cache folder until it is done. `progress`
/// is called with what is being done, how much is done, and how much there is.
///
/// # Errors
/// A model that can't be run or written, another program that fails, being cancelled.
pub fn compare(
    model: &Path,
    options: &SessionOptions,
    work: &Work,
    peers: Peers,
    gguf: Option<&Path>,
    progress: &mut dyn FnMut(&'static str, u64, u64),
) -> Result<Comparison> {
    let threads = options.threads.unwrap_or_else(cores).max(1);
    let once = Work { runs: 1, ..work.clone() };
    let temporary;
    let job = match &peers.llama_cpp {
        None => None,
        Some(_) => {
            let path = match gguf {
                Some(path) => path.to_owned(),
                None => {
                    temporary = temporary_folder()?;
                    temporary.path().join("model.gguf")
                }
            };
            let progress = &mut |done, all| progress("writing the weights as GGUF", done, all);
            Some(llama_cpp::Job::new(model, path, threads, &once, &options.cancel, progress)?)
        }
    };
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for run in 0..work.runs {
        progress("measuring", u64::from(run), u64::from(work.runs));
        // Opened for each run, as the other program is.
        let mut session = Session::open(model, options)?;
        ours.extend(measure(&mut session, &once, &mut || {})?);
        drop(session);
        if let (Some(llama_cpp), Some(job)) = (&peers.llama_cpp, &job) {
            theirs.extend(llama_cpp.run(job)?);
        }
    }
    let plan = plan_model(model, options)?;
    Ok(Comparison {
        threads,
        runs: work.runs,
        residency: plan.residency,
        kv_format: plan.kv_format,
        peer: peers.llama_cpp.map(|found| found.to_string()),
        prefill: rows(&ours.prefill, &theirs.prefill),
        decode: rows(&ours.decode, &theirs.decode),
        not_compared: peers.missing,
    })
}

/// A folder in the cache folder.
fn temporary_folder() -> Result<ScratchFolder> {
    let cache = cache_folder().unwrap_or_else(std::env::temp_dir);
    std::fs::create_dir_all(&cache).map_err(|e| Error::io(&cache, "write into", e))?;
    ScratchFolder::new(&cache, "compare-")
}

impl Samples {
    /// Adds the samples of another run of the same work.
    fn extend(&mut self, other: Self) {
        for (mine, other) in [(&mut self.prefill, other.prefill), (&mut self.decode, other.decode)]
        {
            if mine.is_empty() {
                *mine = other;
            } else {
                for ((_, mine), (_, other)) in mine.iter_mut().zip(other) {
                    mine.extend(other);
                }
            }
        }
    }
}

fn rows(ours: &[(u32, Vec<f64>)], theirs: &[(u32, Vec<f64>)]) -> Vec<Row> {
    let rate = |samples: &[f64]| {
        let spread = Spread::of(samples);
        Rate { tok_s: spread.median, spread }
    };
    let row = |(i, (tokens, samples)): (usize, &(u32, Vec<f64>))| {
        let omex = rate(samples);
        let peer = theirs.get(i).map(|(_, samples)| rate(samples));
        let ratio = peer.map(|peer| omex.tok_s / peer.tok_s);
        Row { tokens: *tokens, omex, peer, ratio }
    };
    ours.iter().enumerate().map(row).collect()
}

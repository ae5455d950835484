//! The commands, one file each.

pub(crate) mod batch;
pub(crate) mod benchmark;
pub(crate) mod chat;
pub(crate) mod compare;
#[cfg(feature = "constrain")]
mod constrain;
#[cfg(not(feature = "constrain"))]
#[path = "no_constrain.rs"]
mod constrain;
pub(crate) mod convert;
pub(crate) mod demo;
mod draft;
pub(crate) mod embed;
pub(crate) mod eval;
pub(crate) mod export;
mod format;
pub(crate) mod graph_visualize;
#[cfg(feature = "hub")]
pub(crate) mod hub;
#[cfg(not(feature = "hub"))]
#[path = "no_hub.rs"]
pub(crate) mod hub;
pub(crate) mod infer;
pub(crate) mod inspect;
pub(crate) mod layer_inspect;
#[cfg(feature = "hub")]
pub(crate) mod load_model;
pub(crate) mod logits;
pub(crate) mod memory_trace;
mod model;
pub(crate) mod optimize;
pub(crate) mod pack;
pub(crate) mod plan;
mod preprocess;
pub(crate) mod profile;
#[cfg(feature = "hub")]
pub(crate) mod pull;
pub(crate) mod rerank;
pub(crate) mod run;
mod sampling;
mod stats;
mod storage;
pub(crate) mod synth;
mod text;
mod texts;
pub(crate) mod tokenize;
pub(crate) mod validate;

use crate::{bytes, choices, output, signals};
use clap::Args;
use omex::pager::PageSource;
use omex::plan::{Kv, RunPrecision};
use omex::session::{Model, Session, SessionOptions, Tables};
use omex::{Error, Result};
use std::path::Path;

/// What of a model a command needs.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Need {
    /// Something to run.
    Package,
    /// Something to convert.
    Source,
    /// Something to plan.
    Config,
}

/// How a model is to be run: shared by the commands that run one.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Memory to stay within: bytes, or with KB, MB, GB (powers of 1000), KiB, MiB, GiB (of 1024)
    #[arg(long, value_name = "SIZE", value_parser = bytes::parse)]
    memory: Option<u64>,
    /// Positions that the KV cache holds; generation goes on past them. What of it does not fit the
    /// memory is spilled to a file in the user's cache folder, and read for every token
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    context: Option<u32>,
    /// Format of the KV cache [default: f16, or int8 where the memory is too small for it; f32 for
    /// models in f32]
    #[arg(long, value_parser = choices::kv(), value_name = "FORMAT")]
    kv: Option<Kv>,
    /// Threads to compute on, at most: fewer where that is faster [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Where weights come from [default: mapped if they fit the budget, else read]
    #[arg(long, value_parser = choices::pages(), value_name = "SOURCE")]
    pages: Option<PageSource>,
    /// Planes to read of weights that have two (see omex convert --quantization)
    #[arg(long, value_parser = choices::precision(), value_name = "PRECISION", default_value_t = RunPrecision::Full)]
    precision: RunPrecision,
    /// Refuse what would change the text without being asked for, instead of noting it: another
    /// format of the KV cache or a smaller context for the memory's sake, a prompt that is cut, a
    /// text that may grow past its context
    #[arg(long)]
    strict: bool,
}

impl RunArgs {
    fn options(&self, logit_columns: u32) -> SessionOptions {
        SessionOptions {
            memory: self.memory,
            context: self.context,
            kv: self.kv,
            threads: self.threads.map(usize::from),
            logit_columns,
            sequences: 1,
            text_positions: None,
            texts: 0,
            pages: self.pages,
            precision: self.precision,
            cancel: signals::cancel(),
        }
    }

    /// Threads to compute on.
    fn threads(&self) -> usize {
        self.threads.map_or_else(omex::system::cores, usize::from)
    }

    fn open(&self, model: &Path, logit_columns: u32) -> Result<Session> {
        self.open_with(Tables::open(model)?, &self.options(logit_columns))
    }

    /// Opens a model whose tables are open, and tells what of it was decided.
    fn open_with(&self, tables: Tables, options: &SessionOptions) -> Result<Session> {
        let plan = tables.plan(options)?;
        let decisions = tables.decisions(&plan, options)?;
        decisions.into_iter().try_for_each(|decision| self.tell(&decision))?;
        Session::with_plan(tables, plan, options)
    }

    /// Tells what changes a text without being asked for, or refuses it.
    fn tell(&self, decision: &str) -> Result<()> {
        if self.strict {
            return Err(Error::Usage(format!("{decision} (--strict)")));
        }
        output::note(&format!("note: {decision}"));
        Ok(())
    }

    /// Tells what is forgotten of a prompt behind which so many tokens may follow, or refuses it.
    fn tell_of_prompt(&self, model: &Model, prompt: usize, max_tokens: usize) -> Result<()> {
        if let Some(forgetting) = model.forgetting("prompt", prompt) {
            return self.tell(&forgetting);
        }
        match model.outgrows(prompt, max_tokens).filter(|_| self.strict) {
            Some(outgrows) => self.tell(&outgrows),
            None => Ok(()),
        }
    }
}

/// Options for as many texts at once, of `most`, as leave the plan of one as it is: company must not
/// cost a text its context.
fn affordable(
    tables: &Tables,
    most: u32,
    options: impl Fn(u32) -> SessionOptions,
) -> Result<SessionOptions> {
    let alone = tables.plan(&options(1))?;
    let leaves_plan = |count: &u32| {
        *count < 2 || tables.plan(&options(*count)).is_ok_and(|plan| plan.agrees_with(&alone))
    };
    let mut counts = std::iter::successors(Some(most), |count| Some(count / 2));
    Ok(options(counts.find(leaves_plan).unwrap_or(1)))
}

/// Token ids separated by commas.
pub(crate) fn parse_ids(text: &str) -> Result<Vec<u32>, String> {
    let id = |word: &str| word.trim().parse().map_err(|_| format!("\"{word}\" is not a token id"));
    text.split(',').filter(|word| !word.trim().is_empty()).map(id).collect()
}

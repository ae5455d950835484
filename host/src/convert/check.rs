//! A package compared with the model that it was made of: both run one short text, the model with its
//! weights as they are stored.

use super::options::ConvertOptions;
use super::planned::Planned;
use super::unrounded::{self, MADE_AT_ONCE};
use super::weights::WeightLayout;
use super::{blueprint, room};
use crate::arch::Role;
use crate::cancel::Cancel;
use crate::embed::HIDDEN;
use crate::generate::forward;
use crate::import::Container;
use crate::memory;
use crate::pager::PageSource;
use crate::plan::Kv;
use crate::quantize::Precision;
use crate::session::{Session, SessionOptions, Tables};
use crate::{Error, Result};
use omex_core::engine::{LOGITS, Wanted};
use omex_core::quant::PANEL;
use omex_core::token::EncodeOptions;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What both run, where the package has a tokenizer.
const TEXT: &str = "The quick brown fox jumps over the lazy dog, and 12 more of them follow.";

/// Tokens of it at most: enough to tell, and few enough to cost little more than reading the weights.
const TOKENS: usize = 16;

/// Memory that either takes, unless the model can't do with that.
const MEMORY: u64 = 128 << 20;

/// How long the model with its stored weights may run.
const TIME: Duration = Duration::from_secs(60);

/// What became of the comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Checked {
    /// It was made over so many tokens.
    Compared {
        /// Tokens.
        tokens: usize,
        /// What came of it.
        #[serde(flatten)]
        comparison: Comparison,
    },
    /// Why it was left out.
    Skipped(String),
}

/// How a package's numbers compare with the model's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Comparison {
    /// Those of the next token.
    Logits {
        /// Kullback-Leibler divergence from the model's probabilities to the package's, in nats: the
        /// mean over the tokens.
        kl_divergence: f64,
        /// The part of the tokens behind which both find the same next one most probable.
        top1_agreement: f64,
    },
    /// Other vectors.
    Vectors {
        /// The least cosine of the angle between the model's vector and the package's.
        cosine: f64,
    },
}

/// Runs a package and the model that it was made of with these options, within their memory if that is given.
///
/// # Errors
/// A package that can't be run for another reason than its size; [`Error::Interrupted`].
pub fn check(
    source: &Arc<dyn Container>,
    package: &Path,
    options: &ConvertOptions<'_>,
) -> Result<Checked> {
    let (memory, cancel) = (options.memory, &options.cancel);
    let skipped = |why: &str| Ok(Checked::Skipped(why.to_owned()));
    let blueprint = blueprint(&**source, options)?;
    if blueprint.graph.vocab_size == 0 {
        let rounds = blueprint.tensors().any(|tensor| tensor.role == Role::Kernel);
        return skipped(match rounds {
            true => "the model takes arrays: omex infer runs it",
            false => "the package has the source's integers",
        });
    }
    let tables = Tables::open(package)?;
    let ids = prompt(&tables, blueprint.graph.vocab_size, blueprint.graph.context_length)?;
    let deadline = Instant::now() + TIME;
    let unrounded = unrounded::tables(source, &blueprint, deadline)?;
    let layout = WeightLayout::new(&**source, &blueprint, Some(Precision::F32), false);
    let beside = beside(&**source, &layout, ids.len());
    let limit = Limit { given: memory, beside };
    let stored = match run(unrounded, &ids, Some(Kv::F32), limit, cancel) {
        Ok(stored) => stored,
        Err(Error::Budget { needed, .. }) => return Ok(limit.too_small(needed, "the model")),
        Err(Error::Page { .. }) if Instant::now() >= deadline => {
            return skipped("running the model as it is stored takes more than a minute");
        }
        Err(error) => return Err(error),
    };
    let converted = match run(tables, &ids, None, limit, cancel) {
        Err(Error::Budget { needed, .. }) => return Ok(limit.too_small(needed, "the package")),
        other => other?,
    };
    let comparison = match (&stored, &converted) {
        (Output::Logits(stored), Output::Logits(converted)) => logits(stored, converted),
        (Output::Vectors(stored), Output::Vectors(converted)) => vectors(stored, converted),
        _ => return skipped("the package gives out other numbers than the model"),
    };
    Ok(Checked::Compared { tokens: ids.len(), comparison })
}

/// The tokens of [`TEXT`], or else tokens from all over the vocabulary.
fn prompt(tables: &Tables, vocabulary: u32, context: u32) -> Result<Vec<u32>> {
    let options = EncodeOptions { add_special: true, parse_special: false };
    let most = if context == 0 { TOKENS } else { TOKENS.min(context as usize) };
    let text = match tables.tokenizer() {
        Ok(_) => tables.encode(TEXT, options, u64::MAX)?,
        Err(_) => vec![],
    };
    let known = text.into_iter().filter(|id| *id < vocabulary).take(most).collect::<Vec<_>>();
    if !known.is_empty() {
        return Ok(known);
    }
    let vocabulary = u64::from(vocabulary.max(1));
    Ok((0..most as u64).map(|i| (vocabulary * (2 * i + 1) / (2 * most as u64)) as u32).collect())
}

/// Memory that may be taken.
#[derive(Clone, Copy)]
struct Limit {
    given: Option<u64>,
    /// What is taken besides what a session plans.
    beside: u64,
}

impl Limit {
    /// What a session may plan with that can't do with less than `needed`.
    fn session(self, needed: u64) -> u64 {
        let most = match self.given {
            Some(given) => Some(given.saturating_sub(self.beside)),
            None => memory::usable(),
        };
        let enough = most.is_none_or(|most| needed <= most);
        let usual = most.filter(|_| self.given.is_some()).map_or(MEMORY, |most| most.min(MEMORY));
        if enough { needed.max(usual) } else { usual.min(needed.saturating_sub(1)) }
    }

    fn too_small(self, needed: u64, what: &str) -> Checked {
        Checked::Skipped(match self.given {
            Some(given) => {
                let needed = needed + self.beside;
                let short = needed.saturating_sub(given);
                format!(
                    "{what} takes {short} bytes more than --memory leaves; --memory {needed} is enough"
                )
            }
            None => format!("{what} takes more memory than there is"),
        })
    }
}

/// What comparing takes besides what sessions plan: the numbers of both, and rows on their way from the
/// source.
fn beside(source: &dyn Container, stored: &WeightLayout, tokens: usize) -> u64 {
    let outputs = 2 * 4 * tokens as u64 * u64::from(stored.graph.vocab_size);
    let panel = |tensor: &Planned| 4 * PANEL as u64 * u64::from(tensor.plan.columns);
    let widest = stored.in_order().map(panel).max().unwrap_or(0);
    room::base(source, stored) + outputs + 8 * widest.max(MADE_AT_ONCE)
}

/// A row for each token.
enum Output {
    Logits(Vec<Vec<f32>>),
    Vectors(Vec<Vec<f32>>),
}

fn run(
    tables: Tables,
    ids: &[u32],
    kv: Option<Kv>,
    limit: Limit,
    cancel: &Cancel,
) -> Result<Output> {
    let mut options = SessionOptions {
        memory: Some(1),
        context: Some(ids.len() as u32),
        kv,
        logit_columns: ids.len() as u32,
        // Mapped weights would count as this process's memory.
        pages: Some(PageSource::Read),
        cancel: cancel.clone(),
        ..Default::default()
    };
    let needed = match tables.plan(&options) {
        Err(Error::Budget { needed, .. }) => needed,
        other => other?.total,
    };
    options.memory = Some(limit.session(needed));
    let mut session = Session::new(tables, &options)?;
    let failed = session.failure();
    let mut engine = session.engine()?;
    let program = engine.program().clone();
    let named = |name: &str| program.outputs().find(|port| port.name == name);
    let (port, has_logits) = match named(LOGITS) {
        Some(port) => (Some(port), true),
        None => (named(HIDDEN).or_else(|| program.outputs().next()), false),
    };
    let Some(port) = port else { return Ok(Output::Vectors(vec![])) };
    let wanted = if has_logits { Wanted::All } else { Wanted::Last };
    let mut rows = vec![];
    forward(&mut engine, ids, wanted, cancel, &failed, &mut |engine, ids| {
        rows.extend((0..ids.len()).map(|column| engine.output(&port, column).to_vec()));
        Ok(())
    })?;
    Ok(if has_logits { Output::Logits(rows) } else { Output::Vectors(rows) })
}

fn logits(stored: &[Vec<f32>], converted: &[Vec<f32>]) -> Comparison {
    let pairs = || stored.iter().zip(converted);
    let count = stored.len().max(1) as f64;
    let kl_divergence = pairs().map(|(p, q)| divergence(p, q)).sum::<f64>() / count;
    let same = pairs().filter(|(p, q)| largest(p) == largest(q)).count();
    Comparison::Logits { kl_divergence, top1_agreement: same as f64 / count }
}

/// Kullback-Leibler divergence of the probabilities that these are logits of.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p, q) = (log_probabilities(p), log_probabilities(q));
    // Rounding can bring the sum below 0, which it never is.
    p.zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>().max(0.0)
}

fn log_probabilities(logits: &[f32]) -> impl Iterator<Item = f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let of = move |x: &f32| f64::from(*x) - f64::from(largest);
    let all = logits.iter().map(|x| of(x).exp()).sum::<f64>().ln();
    logits.iter().map(move |x| of(x) - all)
}

fn largest(row: &[f32]) -> Option<usize> {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]))
}

fn vectors(stored: &[Vec<f32>], converted: &[Vec<f32>]) -> Comparison {
    let dot =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
    let cosine = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        let product: f64 = dot(a, b);
        let lengths: f64 = dot(a, a) * dot(b, b);
        if lengths > 0.0 { product / lengths.sqrt() } else { f64::from(u8::from(a == b)) }
    };
    let cosine = stored.iter().zip(converted).map(cosine).fold(1.0, f64::min);
    Comparison::Vectors { cosine }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_diverges_nowhere_and_what_is_not_by_what_it_should() {
        let rows = [vec![1.0, 2.0, 0.5], vec![0.0, -30.0, 60.0]];
        let Comparison::Logits { kl_divergence, top1_agreement } = logits(&rows, &rows) else {
            panic!("logits")
        };
        assert_eq!((kl_divergence, top1_agreement), (0.0, 1.0));
        // Halves against a quarter and three: ln 2 - ln 3 / 2.
        let (even, odd) = (vec![0.0, 0.0], vec![0.0, 3f32.ln()]);
        let expected = 2f64.ln() - 3f64.ln() / 2.0;
        assert!((divergence(&even, &odd) - expected).abs() < 1e-6 && expected > 0.1);
        let turned = logits(&[vec![1.0, 0.0], vec![1.0, 0.0]], &[vec![0.0, 1.0], vec![2.0, 0.0]]);
        let Comparison::Logits { top1_agreement, .. } = turned else { panic!("logits") };
        assert_eq!(top1_agreement, 0.5);
        let Comparison::Vectors { cosine } = vectors(&[vec![1.0, 0.0]], &[vec![3.0, 4.0]]) else {
            panic!("vectors")
        };
        assert!((cosine - 0.6).abs() < 1e-12);
    }
}

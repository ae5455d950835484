//! Running models, and comparing what they say.

use omex::pager::PageSource;
use omex::plan::{Kv, RunPrecision};
use omex::session::{Session, SessionOptions};
use omex_core::engine::Wanted;
use omex_core::sample;
use omex_core::simd::Kernels;
use std::path::Path;

/// Logits by position.
pub type Rows = Vec<Vec<f32>>;

/// How a model is run: but for the KV cache and the precision, everything here may differ without changing a bit of
/// the result.
#[derive(Clone, Copy, Default)]
pub struct Setting<'s> {
    /// The kernels; the fastest if `None`.
    pub kernels: Option<&'static Kernels>,
    /// Threads; one if `None`.
    pub threads: Option<usize>,
    /// Where pages come from.
    pub pages: Option<PageSource>,
    /// Memory to stay within.
    pub memory: Option<u64>,
    /// Positions of the KV cache. (A shorter one changes the result once a text is longer.)
    pub context: Option<u32>,
    /// How keys and values are stored; what the planner chooses if `None`.
    pub kv: Option<Kv>,
    /// The planes to read of weights that have two.
    pub precision: RunPrecision,
    /// Tokens a pass, over and over; as many as fit if empty.
    pub chunks: &'s [usize],
}

impl Setting<'_> {
    /// Opens a package or an image.
    ///
    /// # Errors
    /// Those of [`Session::open`].
    pub fn open(&self, model: &Path, logit_columns: u32) -> omex::Result<Session> {
        let options = SessionOptions {
            memory: self.memory,
            context: self.context,
            kv: self.kv,
            threads: Some(self.threads.unwrap_or(1)),
            logit_columns,
            pages: self.pages,
            precision: self.precision,
            ..SessionOptions::default()
        };
        let mut session = Session::open(model, &options)?;
        if let Some(kernels) = self.kernels {
            session.set_kernels(kernels);
        }
        Ok(session)
    }
}

/// The logits at every position.
#[must_use]
pub fn logits(model: &Path, ids: &[u32], setting: &Setting<'_>) -> Rows {
    let wanted = setting.chunks.iter().copied().max().unwrap_or(16) as u32;
    let mut session = setting.open(model, wanted).unwrap_or_else(|e| panic!("{e}"));
    let most = session.logit_columns();
    let mut engine = session.engine().unwrap_or_else(|e| panic!("{e}"));
    let mut lengths = setting.chunks.iter().cycle();
    let (mut rows, mut rest) = (vec![], ids);
    while !rest.is_empty() {
        let length = lengths.next().copied().unwrap_or(most).min(most).min(rest.len());
        let (now, later) = rest.split_at(length);
        engine.forward(now, Wanted::All).unwrap_or_else(|e| panic!("{}: {e}", model.display()));
        rows.extend((0..length).map(|column| engine.logits(column).to_vec()));
        rest = later;
    }
    rows
}

/// The most likely token after each position.
#[must_use]
pub fn greedy(rows: &Rows) -> Vec<u32> {
    rows.iter().map(|row| sample::greedy(row)).collect()
}

/// Generates `count` tokens, always the most likely one, and the logits that each was chosen from.
#[must_use]
pub fn greedy_logits(
    model: &Path,
    prompt: &[u32],
    count: usize,
    setting: &Setting<'_>,
) -> (Vec<u32>, Rows) {
    let mut session = setting.open(model, 1).unwrap_or_else(|e| panic!("{e}"));
    let mut engine = session.engine().unwrap_or_else(|e| panic!("{e}"));
    let most = engine.plan().columns as usize;
    for chunk in prompt.chunks(most) {
        engine.forward(chunk, Wanted::Last).unwrap_or_else(|e| panic!("{e}"));
    }
    let (mut ids, mut rows) = (vec![], vec![]);
    for _ in 0..count {
        rows.push(engine.logits(0).to_vec());
        let id = sample::greedy(engine.logits(0));
        ids.push(id);
        engine.forward(&[id], Wanted::Last).unwrap_or_else(|e| panic!("{e}"));
    }
    (ids, rows)
}

/// CRC-32C over the logits' little-endian bytes, in order.
#[must_use]
pub fn checksum(rows: &Rows) -> u32 {
    rows.iter().flatten().fold(0, |crc, x| crc32c::crc32c_append(crc, &x.to_le_bytes()))
}

/// The largest difference of a logit, relative to the largest magnitude of its row.
#[must_use]
pub fn worst_error(found: &Rows, expected: &[Vec<f32>]) -> f32 {
    assert_eq!(found.len(), expected.len(), "positions");
    let mut worst = 0f32;
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len(), "logits");
        let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
        for (f, e) in found.iter().zip(expected) {
            assert!(f.is_finite());
            worst = worst.max((f - e).abs() / largest);
        }
    }
    worst
}

/// The perplexity of a text, whose logits at every position are given.
#[must_use]
pub fn perplexity(rows: &Rows, ids: &[u32]) -> f64 {
    let mut sum = 0.0;
    for (row, target) in rows.iter().zip(&ids[1..]) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = row.iter().map(|x| f64::from(x - largest).exp()).sum();
        sum += total.ln() - f64::from(row[*target as usize] - largest);
    }
    (sum / (ids.len() - 1) as f64).exp()
}

//! What a run took.

use crate::{bytes, output};
use omex::draft::Counts;
use omex::generate::Generated;
use omex::pager::PageSource;
use omex::plan::{Kv, RunPrecision};
use omex::session::Model;
use omex::system::peak_bytes;
use serde::Serialize;
use std::time::Duration;

/// Times and memory of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Stats {
    time_to_first_token_ms: f64,
    prefill_tok_s: f64,
    decode_tok_s: f64,
    pub(crate) planned_bytes: u64,
    peak_bytes: Option<u64>,
    streamed_bytes_per_token: u64,
    /// Of KV caches, from storage.
    kv_bytes_read_per_token: u64,
    pages: PageSource,
    #[serde(flatten)]
    drafts: Counts,
    tokens_per_pass: f64,
    /// A budget may ask for another format, and that changes what is computed.
    kv_format: Kv,
    /// Or for fewer positions.
    context: u32,
    /// What of the prompt was out of the context when the text went on, and of both in the end.
    pub(super) forgotten_prompt_tokens: usize,
    pub(super) forgotten_tokens: usize,
    /// As does the choice of planes.
    precision: RunPrecision,
    /// Passes that left planes out because memory was short, which `--precision auto` allows.
    reduced_passes: u64,
}

impl Stats {
    pub(super) fn new(model: &Model, generated: &Generated, first_token: Duration) -> Self {
        let rate = |tokens: usize, time: Duration| match tokens {
            0 => 0.0,
            tokens => tokens as f64 / time.as_secs_f64(),
        };
        let (prompt, prefill) = generated.prefill;
        // The first token came from the prompt's last pass.
        let decoded = generated.ids.len().saturating_sub(1);
        let [weights, kv] = generated.bytes_read.map(|bytes| bytes / decoded.max(1) as u64);
        let passes = generated.drafts.passes.max(1) as f64;
        let plan = model.plan();
        Self {
            time_to_first_token_ms: first_token.as_secs_f64() * 1e3,
            prefill_tok_s: rate(prompt, prefill),
            decode_tok_s: rate(decoded, generated.decode),
            planned_bytes: plan.total,
            peak_bytes: peak_bytes(),
            streamed_bytes_per_token: weights,
            kv_bytes_read_per_token: kv,
            pages: model.source(),
            drafts: generated.drafts,
            tokens_per_pass: decoded as f64 / passes,
            kv_format: plan.kv_format,
            context: plan.context,
            precision: plan.precision,
            reduced_passes: generated.reduced_passes,
            ..Self::default()
        }
    }

    pub(super) fn print(&self) {
        let fewer = match self.reduced_passes {
            0 => String::new(),
            passes => format!(", fewer in {passes} passes"),
        };
        let spilled = match self.kv_bytes_read_per_token {
            0 => String::new(),
            bytes => format!(", {} a token read from storage", bytes::show(bytes)),
        };
        let forgotten = match self.forgotten_tokens {
            0 => String::new(),
            tokens => format!(", {tokens} tokens forgotten"),
        };
        let peak = self.peak_bytes.map_or("unknown".to_owned(), bytes::show);
        output::note(&format!(
            "time to first token  {:.1} ms\nprefill              {:.1} tok/s\n\
             decode               {:.1} tok/s\nmemory               {} planned, {peak} peak\n\
             streamed             {} a token\nKV cache             {}, {} positions{forgotten}{spilled}\n\
             planes               {}{fewer}\n\
             drafts               {} of {} tokens accepted, {:.2} tokens a pass\n\
             pages                {}",
            self.time_to_first_token_ms,
            self.prefill_tok_s,
            self.decode_tok_s,
            bytes::show(self.planned_bytes),
            bytes::show(self.streamed_bytes_per_token),
            self.kv_format,
            self.context,
            self.precision,
            self.drafts.accepted_tokens,
            self.drafts.drafted_tokens,
            self.tokens_per_pass,
            self.pages,
        ));
    }
}

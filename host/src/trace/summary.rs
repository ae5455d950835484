//! The figures of a trace.

use super::Generated;
use super::recorder::Totals;
use crate::plan::{MemoryPlan, PROCESS_BYTES, Residency};
use crate::system::peak_bytes;
use serde::Serialize;

/// The figures of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TraceSummary {
    /// Seconds from the beginning to the end of the last pass.
    pub seconds: f64,
    /// Passes, over the prompt and over what was generated.
    pub passes: u64,
    /// Seconds that they took.
    pub pass_seconds: f64,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that were generated.
    pub generated_tokens: usize,
    /// Bytes that were asked for; `None` if any number was allowed.
    pub budget_bytes: Option<u64>,
    /// Bytes that the plan needs.
    pub planned_bytes: u64,
    /// The most memory that the process had resident, where the operating system tells.
    pub peak_resident_bytes: Option<u64>,
    /// Whether that is at most the budget, or the plan without one, and [`PROCESS_BYTES`].
    pub budget_kept: Option<bool>,
    /// Pinned weights.
    pub pinned: Use,
    /// Buffers through which weights stream.
    pub ring: Use,
    /// Keys and values.
    pub kv_cache: Use,
    /// Reads that ended.
    pub reads: u64,
    /// Bytes that they brought.
    pub read_bytes: u64,
    /// Bytes read for each pass over a generated token.
    pub streamed_bytes_per_token: u64,
    /// Seconds that the engine waited for reads.
    pub stalled_seconds: f64,
    /// Which part of the passes' time that is.
    pub stalled_share: f64,
    /// The part of the time with reads under way in which the engine did not wait; `None` without
    /// reads.
    pub overlap: Option<f64>,
}

/// Memory for one purpose, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Use {
    /// As planned.
    pub planned: u64,
    /// The most that was in use.
    pub peak: u64,
}

impl TraceSummary {
    pub(super) fn new(
        plan: &MemoryPlan,
        budget_bytes: Option<u64>,
        prompt_tokens: usize,
        generated: &Generated,
        totals: Totals,
    ) -> Self {
        let peak_resident_bytes = peak_bytes();
        let most = budget_bytes.unwrap_or(plan.total) + PROCESS_BYTES;
        // Mapped weights are the system's: what of them is in memory is not seen here.
        let pinned = if plan.residency == Residency::Mapped { 0 } else { plan.bytes.weights };
        // The first token comes from the prompt's last pass.
        let decoded = generated.ids.len().saturating_sub(1) as u64;
        let read_bytes = totals.read_bytes;
        let read = totals.reading_seconds > 0.0;
        Self {
            seconds: totals.seconds,
            passes: totals.passes,
            pass_seconds: totals.pass_seconds,
            prompt_tokens,
            generated_tokens: generated.ids.len(),
            budget_bytes,
            planned_bytes: plan.total,
            peak_resident_bytes,
            budget_kept: peak_resident_bytes.map(|peak| peak <= most),
            pinned: Use { planned: pinned, peak: totals.peak_pinned },
            ring: Use { planned: plan.bytes.ring + plan.bytes.experts, peak: totals.peak_ring },
            kv_cache: Use { planned: plan.bytes.kv_cache, peak: totals.peak_kv },
            reads: totals.reads,
            read_bytes,
            streamed_bytes_per_token: (read_bytes
                - generated.read_for_prompt.unwrap_or(read_bytes))
            .checked_div(decoded)
            .unwrap_or(0),
            stalled_seconds: totals.stalled_seconds,
            stalled_share: totals.stalled_seconds / totals.pass_seconds,
            overlap: read.then(|| 1.0 - totals.stalled_seconds / totals.reading_seconds),
        }
    }
}

//! What a plan costs on a machine, before it is run.
//!
//! A pass takes as long as the slower of two things that go on at once: reading from storage what
//! streams and what is spilled, and computing. Computing is what each operation costs by itself, its
//! numbers, its products, which are measured with weights in memory and so include reading these, and
//! its attention, for which the KV cache is read as well. Where one thread is faster than all that may
//! be used, or the pass is so short that others are woken late, one computes, as when it is run.

use crate::experts;
use crate::plan::MemoryPlan;
use crate::pool::{BEGINS_ALONE, SHORT_PASS};
use crate::profile::{CACHED_BYTES, Profile};
use crate::reads::{weight_bytes_per_token, without_adapters};
use crate::work::{self, Attention, Pass, Work, share};
use omex_core::ops::Op;
use omex_core::program::{Program, Tensor};
use omex_core::state::State;
use serde::Serialize;
use std::fmt;

/// Tokens of the prompt that is forecast, and before the token that is decoded; fewer where the KV
/// cache holds fewer.
pub const PROMPT_TOKENS: u32 = 512;

/// What makes a pass take as long as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Reading weights from storage.
    Storage,
    /// Reading weights and the KV cache from memory.
    Memory,
    /// Arithmetic.
    Compute,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Storage => "storage",
            Self::Memory => "memory",
            Self::Compute => "compute",
        })
    }
}

/// What a plan costs on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// Bytes of weights that a token needs.
    pub weight_bytes_per_token: u64,
    /// Bytes of the KV cache that a token needs for each position before it.
    pub kv_bytes_per_position: u64,
    /// Bytes of weights that such a pass reads from storage: of experts, those that are to be expected
    /// where tokens choose evenly. Those pinned in what the KV cache does not use yet are not among them.
    pub streamed_bytes: u64,
    /// Bytes of KV caches that a pass reads from storage for each position before it.
    pub spilled_bytes_per_position: u64,
    /// Bytes of weights that a pass finds in memory.
    pub resident_bytes: u64,
    /// Tokens of the prompt, and before the token that is decoded.
    pub prompt_tokens: u32,
    /// Bytes a second that storage is read with, if a pass reads from it.
    pub storage_bandwidth: Option<f64>,
    /// Seconds that a pass of one token takes: as long as reading or computing, whichever is longer.
    pub pass_seconds: f64,
    /// Seconds of it in which the cores compute.
    pub compute_seconds: f64,
    /// Seconds that such a pass takes where the KV cache is full.
    pub full_cache_pass_seconds: f64,
    /// Tokens a second of passes of one token.
    pub decode_tok_s: f64,
    /// What limits them.
    pub decode_limit: Limit,
    /// Tokens a second of the prompt, in passes as long as the plan's.
    pub prompt_tok_s: f64,
    /// What limits its first pass.
    pub prompt_limit: Limit,
    /// How much longer decode may take, as a part of what is forecast.
    pub decode_error: f64,
    /// The same of the prompt.
    pub prompt_error: f64,
}

/// The furthest that forecasts were above what was measured, by `benches/forecasts.py`, rounded up.
/// Models that the last cache holds are up to 1.7 times as fast: it is not measured.
const DECODE_ERROR: f64 = 0.25;
const PROMPT_ERROR: f64 = 0.35;

/// How long a pass, or a part of one, takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Seconds of reading weights from storage.
    pub read_seconds: f64,
    /// Seconds of computing, in which what is in memory is read as well.
    pub compute_seconds: f64,
    /// What makes it take as long as it does.
    pub limit: Limit,
}

impl Cost {
    /// Seconds of both, which go on at once.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.read_seconds.max(self.compute_seconds)
    }
}

/// A plan on a machine.
#[derive(Clone, Copy)]
pub(crate) struct Forecaster<'f> {
    profile: &'f Profile,
    program: &'f Program<'f>,
    plan: &'f MemoryPlan,
    threads: usize,
    /// Bytes a second that storage is read with; does not matter without streamed weights.
    storage_bandwidth: f64,
}

/// What some operations of a pass demand of a machine.
pub(crate) struct Demand<I> {
    /// Operations, each with its layer.
    pub(crate) steps: I,
    /// Bytes of weights that are read from storage.
    pub(crate) streamed_bytes: u64,
    /// KV caches that are used.
    pub(crate) kv_caches: u64,
    /// Threads that the pass is computed on.
    pub(crate) threads: usize,
}

/// Seconds of computing.
#[derive(Default)]
struct Computing {
    seconds: f64,
    /// Of them those that are left where all weights and caches lie in the cores' caches.
    arithmetic: f64,
    /// Bytes that are read.
    bytes: u64,
}

/// What a plan costs on the profile's machine with this many threads; `None` if a pass reads from a
/// storage whose bandwidth the profile doesn't know.
#[must_use]
pub fn forecast(
    profile: &Profile,
    program: &Program<'_>,
    plan: &MemoryPlan,
    threads: usize,
) -> Option<Forecast> {
    let on = Forecaster::new(profile, program, plan, threads)?;
    let prompt_tokens = PROMPT_TOKENS.min(plan.context);
    let chunk = plan.prefill_chunk.clamp(1, prompt_tokens.max(1));
    let starts = (0..prompt_tokens).step_by(chunk as usize);
    let prompt = starts.map(|at| on.pass(chunk.min(prompt_tokens - at), at).seconds());
    let prompt_seconds: f64 = prompt.sum();
    let decode = on.pass(1, prompt_tokens);
    let pass_seconds = decode.seconds();
    let weight_bytes = weight_bytes_per_token(program, plan.precision.parts());
    let streamed_bytes =
        plan.streamed_bytes_at(program, prompt_tokens + 1) + expert_bytes(program, plan, 1);
    Some(Forecast {
        weight_bytes_per_token: weight_bytes,
        kv_bytes_per_position: kv_bytes_per_position(program, plan),
        streamed_bytes,
        spilled_bytes_per_position: spilled_bytes_per_position(plan),
        resident_bytes: weight_bytes.saturating_sub(streamed_bytes),
        prompt_tokens,
        storage_bandwidth: profile.storage_bandwidth.filter(|_| plan.reads_storage()),
        pass_seconds,
        compute_seconds: decode.compute_seconds,
        full_cache_pass_seconds: on.pass(1, plan.context).seconds(),
        decode_tok_s: 1.0 / pass_seconds,
        decode_limit: decode.limit,
        prompt_tok_s: f64::from(prompt_tokens) / prompt_seconds,
        prompt_limit: on.pass(chunk, 0).limit,
        decode_error: DECODE_ERROR + profile.spread,
        prompt_error: PROMPT_ERROR + profile.spread,
    })
}

impl<'f> Forecaster<'f> {
    /// `None` if a pass reads from a storage whose bandwidth the profile doesn't know.
    pub(crate) fn new(
        profile: &'f Profile,
        program: &'f Program<'f>,
        plan: &'f MemoryPlan,
        threads: usize,
    ) -> Option<Self> {
        let known = profile.storage_bandwidth.or((!plan.reads_storage()).then_some(f64::INFINITY));
        Some(Self { profile, program, plan, threads, storage_bandwidth: known? })
    }

    /// What a pass over `columns` tokens behind `position` others takes.
    fn pass(&self, columns: u32, position: u32) -> Cost {
        let parts = without_adapters(self.plan.precision.parts());
        let whole = Demand {
            steps: self.program.steps(&parts),
            streamed_bytes: self
                .plan
                .streamed_bytes_at(self.program, position.saturating_add(columns))
                + expert_bytes(self.program, self.plan, columns),
            kv_caches: kv_caches(self.program),
            threads: self.threads(columns, position),
        };
        self.cost(whole, columns, position)
    }

    /// What these operations of such a pass take.
    pub(crate) fn cost(
        &self,
        demand: Demand<impl Iterator<Item = (Op, u32)>>,
        columns: u32,
        position: u32,
    ) -> Cost {
        let threads = demand.threads;
        let Computing { seconds: compute_seconds, arithmetic, bytes } =
            self.computing(demand.steps, columns, position, threads);
        let positions = u64::from(position.saturating_add(columns).min(self.plan.context));
        let all = kv_caches(self.program).max(1);
        // Spilled caches are evenly spread.
        let spilled = spilled_bytes_per_position(self.plan) * demand.kv_caches * positions;
        let spilled = spilled as f64 / all as f64;
        let read_seconds = (demand.streamed_bytes as f64 + spilled) / self.storage_bandwidth;
        let limit = match () {
            () if read_seconds > compute_seconds => Limit::Storage,
            () if bytes as f64 / self.profile.read_bandwidth(threads) >= arithmetic => {
                Limit::Memory
            }
            () => Limit::Compute,
        };
        Cost { read_seconds, compute_seconds, limit }
    }

    /// Threads that such a pass is computed on: all, or one if that is faster.
    pub(crate) fn threads(&self, columns: u32, position: u32) -> usize {
        let parts = without_adapters(self.plan.precision.parts());
        let on = |threads| {
            self.computing(self.program.steps(&parts), columns, position, threads).seconds
        };
        let alone = on(1);
        // A prompt has too few passes to find out what is faster.
        let short = if columns == 1 { SHORT_PASS } else { BEGINS_ALONE };
        let is_short = alone < short.as_secs_f64();
        if is_short || alone <= on(self.threads) { 1 } else { self.threads }
    }

    fn computing(
        &self,
        steps: impl Iterator<Item = (Op, u32)>,
        columns: u32,
        position: u32,
        threads: usize,
    ) -> Computing {
        let (program, plan) = (self.program, &self.plan.plan);
        let pass = Pass { program, plan, columns, position };
        let mut all = Computing::default();
        for (op, layer) in steps {
            let Work { matrices, elements, attention } = pass.of(&op, layer);
            let times = &self.profile.passes;
            all.add([times.operation + times.element * elements as f64; 2], 0);
            matrices.iter().for_each(|(tensor, columns)| {
                self.product(tensor, *columns, threads, &mut all);
            });
            attention.iter().for_each(|attention| self.attention(attention, threads, &mut all));
        }
        all
    }

    fn product(&self, tensor: &Tensor, columns: u32, threads: usize, all: &mut Computing) {
        let is_shared = threads > 1 && work::is_shared(tensor, columns);
        let (threads, job) = if is_shared { (threads, self.profile.passes.job) } else { (1, 0.0) };
        let of = |bytes| self.profile.compute_seconds(tensor.format, bytes, columns, threads);
        let (bytes, cached) = (tensor.bytes(), tensor.bytes().min(CACHED_BYTES as u64));
        let arithmetic = of(cached) * bytes as f64 / cached.max(1) as f64;
        all.add([job + of(bytes), job + arithmetic], bytes);
    }

    fn attention(&self, attention: &Attention, threads: usize, all: &mut Computing) {
        let Attention { shape, group, places, bytes, is_shared } = *attention;
        let (threads, job) =
            if is_shared && threads > 1 { (threads, self.profile.passes.job) } else { (1, 0.0) };
        let place = self.profile.passes.attention(shape.format, shape.width, group);
        // Each core has heads of its own.
        let arithmetic = place * places as f64 / threads.min(self.profile.cores).max(1) as f64;
        let reading = bytes as f64 / self.profile.read_bandwidth(threads);
        all.add([job + arithmetic + reading, job + arithmetic], bytes);
    }
}

impl Computing {
    fn add(&mut self, [seconds, arithmetic]: [f64; 2], bytes: u64) {
        self.seconds += seconds;
        self.arithmetic += arithmetic;
        self.bytes += bytes;
    }
}

/// Bytes of experts that a pass over `columns` tokens reads from storage, if they choose evenly.
pub(crate) fn expert_bytes(program: &Program<'_>, plan: &MemoryPlan, columns: u32) -> u64 {
    let parts = without_adapters(plan.precision.parts());
    let steps = program.steps(&parts);
    let of_op = |(op, layer): (Op, u32)| {
        let mut bytes = 0;
        op.weights(&mut |weight| {
            if let Some(tensor) = program.tensor(weight.at(layer)) {
                bytes += experts::read_of(plan.experts, &op, &share(&op, tensor, columns).0);
            }
        });
        bytes
    };
    steps.map(of_op).sum()
}

/// How many KV caches a program has.
pub(crate) fn kv_caches(program: &Program<'_>) -> u64 {
    program.states().filter(|state| matches!(state, State::Kv { .. })).count() as u64
}

/// Bytes of the KV cache that a token needs for each position before it.
#[must_use]
pub fn kv_bytes_per_position(program: &Program<'_>, plan: &MemoryPlan) -> u64 {
    let (context, plan) = (u64::from(plan.context.max(1)), plan.plan);
    let caches = program.states().filter_map(|state| plan.cache_shape(&state));
    caches.map(|shape| shape.bytes()).sum::<u64>() / context
}

fn spilled_bytes_per_position(plan: &MemoryPlan) -> u64 {
    plan.kv_spill.map_or(0, |spill| spill.bytes / u64::from(plan.context.max(1)))
}

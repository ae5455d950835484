//! The memory planner: what fits into a budget, and where every byte goes.

use crate::experts::{ExpertMemory, Experts, Pieces};
use crate::pager::{PageSource, Space, Tiles};
use crate::states::TextStates;
use crate::{Error, Result, spill};
use omex_core::arena::{Layout, Plan};
use omex_core::error::LoadError;
use omex_core::program::{ALL, BASE, NONE, Parts, Program, Tensor};
use omex_core::quant::Format;
use omex_core::state::kv::{KvFormat, KvShape};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// Bytes that a process takes at most besides its plan: its code, its stacks, and what the allocator
/// keeps.
pub const PROCESS_BYTES: u64 = 16_000_000;

/// How weights reach the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Residency {
    /// All weights are mapped and stay in memory.
    Mapped,
    /// Some weights are pinned; the others are read for every pass, a tile at a time.
    Streamed {
        /// Pages of a tile: what is read at once.
        tile_pages: u32,
        /// Tiles in the ring: one in use, the others being read.
        ring_tiles: u32,
    },
}

/// What a plan is asked to achieve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Bytes that may be used; all if `None`.
    pub memory: Option<u64>,
    /// Positions of the KV cache; as many as make sense if `None`.
    pub context: Option<u32>,
    /// How keys and values are stored; the planner chooses if `None`.
    pub kv: Option<Kv>,
    /// Tokens whose logits are wanted in one pass; 0 counts as 1.
    pub logit_columns: u32,
    /// Texts that are under way at once; 0 counts as 1.
    pub sequences: u32,
    /// Positions that texts take on average, where several share what is set aside for states: enough
    /// for one as long as the context in any case. As many as the context if `None`.
    pub text_positions: Option<u32>,
    /// How weights reach the engine; the planner chooses if `None`.
    pub pages: Option<PageSource>,
    /// The planes to read of weights that have two.
    pub precision: RunPrecision,
    /// Everything but the residency is decided, as in a flash image.
    pub fixed: Option<Plan>,
}

/// How keys and values are stored, by the names that users know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kv {
    /// 16-bit floats.
    #[default]
    F16,
    /// 32-bit floats.
    F32,
    /// Signed bytes with a scale for each head of a position.
    Int8,
}

/// Which planes are read of weights that have a residual plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunPrecision {
    /// The base planes only: fewer bytes, coarser weights.
    Base,
    /// All planes.
    #[default]
    Full,
    /// All planes, or the base planes where only these fit the memory; fewer in some layers while
    /// memory is short.
    Auto,
}

impl RunPrecision {
    /// The parts that a plan's precision plays.
    #[must_use]
    pub fn parts(self) -> &'static dyn Parts {
        if self == Self::Base { BASE } else { ALL }
    }
}

impl fmt::Display for RunPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Full => "full",
            Self::Auto => "auto",
        })
    }
}

impl Kv {
    pub(crate) fn format(self) -> KvFormat {
        match self {
            Self::F16 => KvFormat::Half,
            Self::F32 => KvFormat::Single,
            Self::Int8 => KvFormat::Int8,
        }
    }
}

impl From<KvFormat> for Kv {
    fn from(format: KvFormat) -> Self {
        match format {
            KvFormat::Half => Self::F16,
            KvFormat::Single => Self::F32,
            KvFormat::Int8 => Self::Int8,
        }
    }
}

impl fmt::Display for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

/// What the planner needs to know of a model.
#[derive(Clone, Copy, Debug)]
pub struct ModelSize<'p> {
    /// The program.
    pub program: &'p Program<'p>,
    /// Where its weights are.
    pub space: &'p Space,
    /// Bytes of the program, the tensor table, the checksums, and the tokenizer's tables and scratch.
    pub tables: u64,
}

/// A plan, and where every byte goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// How weights reach the engine.
    pub residency: Residency,
    /// Tokens in one pass of the prompt.
    pub prefill_chunk: u32,
    /// Positions that the KV cache holds.
    pub context: u32,
    /// How keys and values are stored.
    pub kv_format: Kv,
    /// Bytes of weights that are read for every pass once the KV cache is full.
    pub streamed_bytes: u64,
    /// Experts, of which a pass reads those that its tokens choose and memory does not hold; none if
    /// weights are mapped, or the model has none.
    pub experts: Option<ExpertMemory>,
    /// Bytes of the KV cache that weights are pinned in while the text is short.
    pub lent_bytes: u64,
    /// KV caches that lie on storage; none if all fit into memory.
    pub kv_spill: Option<KvSpill>,
    /// The planes that are read: `base` or `full`; `full` if the weights have no residual planes.
    pub precision: RunPrecision,
    /// Bytes by purpose.
    pub bytes: Bytes,
    /// The sum of all bytes.
    pub total: u64,
    /// Bytes that there is room for to pin weights in; a file's last tile may not fill its share.
    #[serde(skip)]
    pub(crate) room_to_pin: u64,
    /// What is kept of what is read out of order.
    #[serde(skip)]
    pub(crate) pieces: Pieces,
    #[serde(skip)]
    pub(crate) plan: Plan,
}

impl MemoryPlan {
    /// True if every pass reads weights or KV caches from storage.
    #[must_use]
    pub fn reads_storage(&self) -> bool {
        let experts = self.experts.is_some_and(|experts| experts.kept < experts.all);
        self.streamed_bytes > 0 || experts || self.kv_spill.is_some()
    }

    /// Bytes of weights that are read for a pass that ends a text of so many positions: at most
    /// `streamed_bytes`, and less by what KV caches lend.
    #[must_use]
    pub fn streamed_bytes_at(&self, program: &Program<'_>, positions: u32) -> u64 {
        match self.lent_bytes {
            0 => self.streamed_bytes,
            _ => {
                let lent = TextStates::new(program, &self.plan).lent(positions);
                self.streamed_bytes.saturating_sub(lent)
            }
        }
    }

    /// True if weights, context, format of the cache and planes are those of `other`.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        let spills = |p: &Self| p.kv_spill.is_some();
        let parts = |p: &Self| (p.residency, p.context, p.kv_format, spills(p), p.precision);
        parts(self) == parts(other)
    }
}

/// KV caches that lie on storage, and are read for every pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KvSpill {
    /// Number of caches.
    pub caches: u32,
    /// Bytes of them once the text is as long as the context.
    pub bytes: u64,
}

/// Bytes by purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Weights that stay in memory, mapped or pinned.
    pub weights: u64,
    /// Buffers through which weights stream.
    pub ring: u64,
    /// Experts that are kept or being read, where weights stream.
    pub experts: u64,
    /// Keys and values; of caches on storage, the buffers that they pass through, their newest
    /// blocks, and checksums.
    pub kv_cache: u64,
    /// Activations, logits included.
    pub activations: u64,
    /// Program, tensor table, checksums, tokenizer, where pinned weights lie.
    pub tables: u64,
}

/// Positions that are always kept, so that a text can grow past the cache.
const SINKS: u32 = 4;
/// The most positions that are planned for without being asked.
const DEFAULT_CONTEXT: u32 = 8192;
/// The fewest positions that are planned for without being asked.
const LEAST_CONTEXT: u32 = 128;
/// Bytes that are read at once, at least a page, and how many times that the ring holds: best first.
/// Disks are at their fastest with some megabytes under way, and a long ring keeps these under way
/// while what came in a burst is computed with.
const RINGS: [(u32, u32); 8] = [
    (8 << 20, 14),
    (4 << 20, 14),
    (4 << 20, 8),
    (1 << 20, 8),
    (256 << 10, 8),
    (64 << 10, 4),
    (64 << 10, 2),
    (0, 2),
];
/// Tokens in one pass of the prompt, best first.
const CHUNKS: [u32; 7] = [512, 256, 128, 64, 16, 4, 1];
/// The most tokens in one pass if weights stay in memory: more of them gain nothing.
const RESIDENT_CHUNK: u32 = 64;
/// The ring, and the activations, may each take this part of a budget; what is left pins weights.
const PART: u64 = 8;

/// Makes the best plan that fits: full context before resident weights, resident weights before all
/// planes, if the precision is automatic, these before exact keys and values, these before long
/// reads, long reads before long passes. What a plan that streams leaves of the budget pins weights.
/// Where memory holds the context that is asked for in no way, KV caches are spilled to storage.
///
/// # Errors
/// [`Error::Budget`] with what the smallest plan needs.
pub fn plan(size: &ModelSize<'_>, constraints: &Constraints, model: &Path) -> Result<MemoryPlan> {
    let mut needed = u64::MAX;
    for spills in [false, true] {
        if spills && !may_spill(size, constraints) {
            break;
        }
        let candidates = candidates(size, constraints, spills);
        let found = choose(size, constraints, &candidates, &mut needed);
        if let Some(plan) = found.map_err(|error| Error::load(model, error))? {
            return Ok(use_what_is_left(size, plan, constraints.memory));
        }
    }
    Err(Error::Budget { needed, given: constraints.memory.unwrap_or(0) })
}

/// The first candidate that fits. `needed` becomes what the smallest one needs, if that is less.
fn choose(
    size: &ModelSize<'_>,
    constraints: &Constraints,
    candidates: &[Candidate],
    needed: &mut u64,
) -> Result<Option<MemoryPlan>, LoadError> {
    // Long reads and long passes only where they leave most of the budget to weights.
    for modest in [true, false] {
        for candidate in candidates {
            let plan = lay_out(size, constraints, candidate)?;
            let part = constraints.memory.unwrap_or(u64::MAX) / PART;
            let greedy =
                plan.bytes.ring + plan.bytes.experts > part || plan.bytes.activations > part;
            if modest && plan.residency != Residency::Mapped && greedy {
                continue;
            }
            if constraints.memory.is_none_or(|memory| plan.total <= memory) {
                return Ok(Some(plan));
            }
            *needed = plan.total.min(*needed);
        }
    }
    Ok(None)
}

/// Caches are spilled for one text, where the context is as asked for, and more of them than pass
/// through buffers.
fn may_spill(size: &ModelSize<'_>, constraints: &Constraints) -> bool {
    constraints.context.is_some()
        && constraints.fixed.is_none()
        && constraints.sequences <= 1
        && size.program.uniform_cache().is_some()
        && caches(size) > spill::BUFFERS
}

/// Gives what is left of the budget to weights, what these leave to experts, and then to states.
fn use_what_is_left(size: &ModelSize<'_>, mut plan: MemoryPlan, memory: Option<u64>) -> MemoryPlan {
    match plan.residency {
        Residency::Streamed { tile_pages, .. } => pin(size, &mut plan, tile_pages, memory),
        Residency::Mapped => {
            let left = memory.map_or(u64::MAX, |memory| memory - plan.total);
            let states = TextStates::new(size.program, &plan.plan).bytes();
            let all = states.saturating_mul(plan.plan.sequences.into());
            if plan.kv_spill.is_none() {
                let more = all.saturating_sub(plan.bytes.kv_cache).min(left);
                plan.bytes.kv_cache += more;
                plan.total += more;
            }
        }
    }
    if let Some(KvSpill { caches, .. }) = plan.kv_spill {
        keep_caches(size, &mut plan, caches, memory);
    }
    plan
}

fn pin(size: &ModelSize<'_>, plan: &mut MemoryPlan, tile_pages: u32, memory: Option<u64>) {
    let left = |plan: &MemoryPlan| memory.map_or(0, |memory| memory - plan.total);
    plan.room_to_pin = left(plan);
    let tiles = tiles(size.program, size.space, plan.precision, tile_pages, plan.room_to_pin);
    let (pinned, streamed) = tiles.bytes();
    plan.bytes.weights = pinned;
    plan.bytes.tables += tiles.pinned_bytes() - pinned;
    plan.streamed_bytes = streamed;
    plan.total += tiles.pinned_bytes();
    if let Some(experts) = Experts::of(size.program) {
        plan.pieces = plan.pieces.grown(&experts, left(plan));
        plan.experts = Some(plan.pieces.memory(&experts));
        plan.total += plan.pieces.bytes() - plan.bytes.experts;
        plan.bytes.experts = plan.pieces.bytes();
    }
    // What one text does not use yet lends its memory to weights.
    if plan.kv_spill.is_none() && plan.plan.sequences == 1 {
        let lent = TextStates::new(size.program, &plan.plan).lent(0);
        plan.lent_bytes = lent.min(plan.streamed_bytes);
    }
}

/// Keeps as many of the spilled caches in memory as there is room for.
fn keep_caches(size: &ModelSize<'_>, plan: &mut MemoryPlan, caches: u32, memory: Option<u64>) {
    let left = memory.map_or(0, |memory| memory - plan.total);
    let shape = cache_shape(size, &plan.plan);
    let bytes = |spilled| spill::memory_bytes(&shape, caches, spilled);
    let more = |spilled| bytes(spilled) - bytes(caches);
    let spilled = (spill::BUFFERS + 1..=caches).find(|spilled| more(*spilled) <= left);
    let spilled = spilled.unwrap_or(caches);
    plan.bytes.kv_cache += more(spilled);
    plan.total += more(spilled);
    let bytes = u64::from(spilled) * shape.bytes();
    plan.kv_spill = Some(KvSpill { caches: spilled, bytes });
}

/// The shape of every KV cache of a program whose caches are all alike.
fn cache_shape(size: &ModelSize<'_>, plan: &Plan) -> KvShape {
    let none = KvShape { format: plan.kv_format, heads: 0, width: 0, capacity: plan.kv_capacity };
    size.program.uniform_cache().and_then(|state| plan.cache_shape(&state)).unwrap_or(none)
}

fn caches(size: &ModelSize<'_>) -> u32 {
    u32::from(size.program.header().states)
}

/// The tiles of a model's weights, with as many pinned as fit into `pinned_bytes`.
pub(crate) fn tiles(
    program: &Program<'_>,
    space: &Space,
    precision: RunPrecision,
    tile_pages: u32,
    pinned_bytes: u64,
) -> Tiles {
    let mut tiles = Tiles::new(space, tile_pages, program.ranges_in_order(precision.parts()));
    tiles.pin(pinned_bytes);
    tiles
}

/// What to try.
#[derive(Clone, Copy)]
struct Candidate {
    residency: Residency,
    precision: RunPrecision,
    plan: Plan,
    /// All KV caches lie on storage.
    spills: bool,
}

/// Precisions to try, best first. Weights that have to be streamed keep the best.
fn precisions(size: &ModelSize<'_>, constraints: &Constraints) -> Vec<RunPrecision> {
    match constraints.precision {
        _ if !size.program.has_corrections() => vec![RunPrecision::Full],
        RunPrecision::Auto => vec![RunPrecision::Full, RunPrecision::Base],
        precision => vec![precision],
    }
}

/// What to try, best first. While weights can stay in memory the context is full; a shorter one is
/// for when even streaming leaves too little. What is spilled is in the smallest format.
fn candidates(size: &ModelSize<'_>, constraints: &Constraints, spills: bool) -> Vec<Candidate> {
    let streamed = RINGS.map(|(bytes, ring_tiles)| {
        let tile_pages = (bytes / size.space.page_size).max(1);
        Residency::Streamed { tile_pages, ring_tiles }
    });
    let trained = size.program.header().context_length;
    let full = constraints.context.unwrap_or(trained.clamp(1, DEFAULT_CONTEXT));
    let least = if constraints.context.is_some() { full } else { full.min(LEAST_CONTEXT) };
    let shorter = [full, (full / 2).max(least), (full / 4).max(least), least];
    let precisions = precisions(size, constraints);
    let mut ways: Vec<(&[Residency], &[u32], RunPrecision, u32)> = vec![];
    if constraints.pages.is_none_or(|pages| pages == PageSource::Mmap) {
        let mapped =
            |p: &RunPrecision| (&[Residency::Mapped][..], &shorter[..1], *p, RESIDENT_CHUNK);
        ways.extend(precisions.iter().map(mapped));
    }
    if constraints.pages != Some(PageSource::Mmap) {
        let longest = if constraints.memory.is_some() { u32::MAX } else { RESIDENT_CHUNK };
        ways.push((&streamed, &shorter, precisions[0], longest));
    }
    let mut formats = formats(size, constraints);
    if spills {
        formats.drain(..formats.len() - 1);
    }
    let mut candidates = vec![];
    for (residencies, contexts, precision, longest_chunk) in ways {
        let candidate = |residency, plan| Candidate { residency, precision, plan, spills };
        if let Some(plan) = constraints.fixed {
            candidates.extend(residencies.iter().map(|residency| candidate(*residency, plan)));
            continue;
        }
        for context in contexts {
            for format in &formats {
                for residency in residencies {
                    let plan = |chunk| shape(size, constraints, *context, *format, chunk);
                    let chunks = CHUNKS.into_iter().filter(|chunk| *chunk <= longest_chunk);
                    candidates.extend(chunks.map(|chunk| candidate(*residency, plan(chunk))));
                }
            }
        }
    }
    candidates
}

/// Formats of keys and values to try, best first.
fn formats(size: &ModelSize<'_>, constraints: &Constraints) -> Vec<KvFormat> {
    match (constraints.kv, kv_format(size.program)) {
        (Some(kv), _) => vec![kv.format()],
        (None, KvFormat::Half) => vec![KvFormat::Half, KvFormat::Int8],
        (None, exact) => vec![exact],
    }
}

fn shape(
    size: &ModelSize<'_>,
    constraints: &Constraints,
    context: u32,
    kv_format: KvFormat,
    chunk: u32,
) -> Plan {
    let logit_columns = constraints.logit_columns.max(1);
    // Where texts are run whole, a pass has room for the longest.
    let chunk = if size.program.runs_texts_whole() { context } else { chunk };
    Plan {
        columns: chunk.max(logit_columns),
        logit_columns,
        kv_capacity: context,
        kv_sinks: SINKS.min(context.saturating_sub(1)),
        kv_format,
        sequences: constraints.sequences.max(1),
    }
}

/// A model that is kept in 32-bit floats throughout is there to be exact; others lose nothing to
/// 16-bit keys and values. What may be left out has no say: without it, a text stays as it is.
pub(crate) fn kv_format(program: &Program<'_>) -> KvFormat {
    let exact = |tensor: Tensor| matches!(tensor.format, Format::Vector | Format::F32);
    let mut all_exact = true;
    for (op, layer) in program.steps(NONE) {
        op.weights(&mut |weight| all_exact &= program.tensor(weight.at(layer)).is_none_or(exact));
    }
    if all_exact { KvFormat::Single } else { KvFormat::Half }
}

/// The least bytes to set aside for the states of all texts, of which each takes `whole` at its longest.
fn state_bytes(
    size: &ModelSize<'_>,
    constraints: &Constraints,
    candidate: &Candidate,
    whole: u64,
) -> u64 {
    let Candidate { residency, plan, .. } = candidate;
    let all = whole.saturating_mul(plan.sequences.into());
    match (constraints.text_positions, residency) {
        (None, _) => all,
        (Some(_), Residency::Mapped) => whole,
        (Some(positions), Residency::Streamed { .. }) => {
            let of_text = TextStates::new(size.program, plan).bytes_of(positions);
            of_text.saturating_mul(plan.sequences.into()).clamp(whole, all)
        }
    }
}

fn lay_out(
    size: &ModelSize<'_>,
    constraints: &Constraints,
    candidate: &Candidate,
) -> Result<MemoryPlan, LoadError> {
    let Candidate { residency, precision, plan, spills } = *candidate;
    let (all, page_size) = (size.space.length(), size.space.page_size);
    let pages = u32::try_from(all.div_ceil(u64::from(page_size))).unwrap_or(u32::MAX);
    // A bit for every page that may stay in memory.
    let layout = Layout::new(size.program, &plan, pages)?;
    let mut pieces = Pieces::new(None, page_size, 0, 0);
    let (weights, ring, experts) = match residency {
        Residency::Mapped => (mapped_bytes(size, precision), 0, 0),
        Residency::Streamed { tile_pages, ring_tiles } => {
            let ring = u64::from(ring_tiles) * u64::from(tile_pages) * u64::from(page_size);
            let found = Experts::of(size.program);
            pieces = Pieces::new(found.as_ref(), page_size, tile_pages, ring_tiles);
            match found {
                Some(_) => (0, ring, pieces.bytes()),
                None => (0, ring + pieces.bytes(), 0),
            }
        }
    };
    let caches = caches(size);
    let kv_spill = spills.then_some(KvSpill { caches, bytes: layout.states });
    let kv_cache = if spills {
        spill::memory_bytes(&cache_shape(size, &plan), caches, caches)
    } else {
        state_bytes(size, constraints, candidate, layout.states / u64::from(plan.sequences))
    };
    let activations = layout.total() - layout.states;
    let bytes = Bytes { weights, ring, experts, kv_cache, activations, tables: size.tables };
    Ok(MemoryPlan {
        residency,
        prefill_chunk: plan.columns,
        context: plan.kv_capacity,
        kv_format: plan.kv_format.into(),
        streamed_bytes: 0,
        experts: None,
        kv_spill,
        precision,
        bytes,
        total: weights + ring + experts + kv_cache + activations + size.tables,
        lent_bytes: 0,
        room_to_pin: 0,
        pieces,
        plan,
    })
}

/// What the operating system maps around a byte that is read, unless it maps large pages.
const FAULT_AROUND: u64 = 64 << 10;

/// Bytes of mapped weights that become resident.
fn mapped_bytes(size: &ModelSize<'_>, precision: RunPrecision) -> u64 {
    let all = size.space.length();
    if precision == RunPrecision::Full {
        return all;
    }
    let (program, parts) = (size.program, precision.parts());
    let chosen = crate::reads::chosen(program, parts);
    let chosen = chosen.map(|(t, _)| t.address..t.address + t.bytes());
    let mut ranges: Vec<_> = program.ranges_in_order(parts).chain(chosen).collect();
    ranges.sort_by_key(|range| range.start);
    let (mut bytes, mut end) = (0, 0);
    for range in ranges {
        let start = range.start.saturating_sub(FAULT_AROUND).max(end);
        end = end.max((range.end + FAULT_AROUND).min(all));
        bytes += end.saturating_sub(start);
    }
    bytes
}

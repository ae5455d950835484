//! The memory planner: what fits into a budget, and where every byte goes.

use crate::{Error, Result};
use omex_core::arena::{Layout, Plan};
use omex_core::error::LoadError;
use omex_core::kv::KvFormat;
use omex_core::program::Program;
use omex_core::quant::Format;
use serde::Serialize;
use std::fmt;
use std::path::Path;

/// How weights reach the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Residency {
    /// All weights are mapped and stay in memory.
    Mapped,
    /// Weights are read for every pass, some pages at a time.
    Streamed {
        /// Pages read at once.
        tile_pages: u32,
    },
}

/// What a plan is asked to achieve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
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
    /// How weights reach the engine; the planner chooses if `None`.
    pub pages: Option<PageSource>,
    /// Everything but the residency is decided, as in a flash image.
    pub fixed: Option<Plan>,
}

/// Where pages come from, if the user says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PageSource {
    /// Mapped files.
    Mmap,
    /// Reads into buffers.
    Read,
}

/// How keys and values are stored, by the names that users know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
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
    /// Bytes of all weights, padding included.
    pub weights: u64,
    /// Bytes a page.
    pub page_size: u32,
    /// Bytes of the program, the tensor table, the checksums and the tokenizer's tables.
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
    /// Bytes by purpose.
    pub bytes: Bytes,
    /// The sum of all bytes.
    pub total: u64,
    #[serde(skip)]
    pub(crate) plan: Plan,
}

/// Bytes by purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Weights that stay in memory.
    pub weights: u64,
    /// Buffers through which weights stream.
    pub ring: u64,
    /// Keys and values.
    pub kv_cache: u64,
    /// Activations, logits included.
    pub activations: u64,
    /// Program, tensor table, checksums, tokenizer.
    pub tables: u64,
}

/// Positions that are always kept, so that a text can grow past the cache.
const SINKS: u32 = 4;
/// The most positions that are planned for without being asked.
const DEFAULT_CONTEXT: u32 = 8192;
/// The fewest positions that are planned for without being asked.
const LEAST_CONTEXT: u32 = 128;
/// Bytes that are read at once, best first; at least a page.
const TILES: [u32; 4] = [1 << 20, 256 << 10, 64 << 10, 0];
/// Tokens in one pass of the prompt, best first.
const CHUNKS: [u32; 4] = [64, 16, 4, 1];

/// Makes the best plan that fits: full context before resident weights, resident weights before
/// exact keys and values, these before long reads, long reads before long passes.
///
/// # Errors
/// [`Error::Budget`] with what the smallest plan needs.
pub fn plan(size: &ModelSize<'_>, request: &Request, model: &Path) -> Result<MemoryPlan> {
    let mut smallest: Option<MemoryPlan> = None;
    for (residency, candidate) in candidates(size, request) {
        let plan =
            lay_out(size, residency, candidate).map_err(|error| Error::load(model, error))?;
        if request.memory.is_none_or(|memory| plan.total <= memory) {
            return Ok(plan);
        }
        if smallest.as_ref().is_none_or(|s| plan.total < s.total) {
            smallest = Some(plan);
        }
    }
    let needed = smallest.map_or(0, |s| s.total);
    Err(Error::Budget { needed, given: request.memory.unwrap_or(0) })
}

/// What to try, best first. While weights can stay in memory the context is full; a shorter one is
/// for when even streaming leaves too little.
fn candidates(size: &ModelSize<'_>, request: &Request) -> Vec<(Residency, Plan)> {
    let streamed =
        TILES.map(|bytes| Residency::Streamed { tile_pages: (bytes / size.page_size).max(1) });
    let trained = size.program.header().context_length;
    let full = request.context.unwrap_or(trained.clamp(1, DEFAULT_CONTEXT));
    let least = if request.context.is_some() { full } else { full.min(LEAST_CONTEXT) };
    let shorter = [full, (full / 2).max(least), (full / 4).max(least), least];
    let mut ways: Vec<(&[Residency], &[u32])> = vec![];
    if request.pages != Some(PageSource::Read) {
        ways.push((&[Residency::Mapped], &shorter[..1]));
    }
    if request.pages != Some(PageSource::Mmap) {
        ways.push((&streamed, &shorter));
    }
    let mut candidates = vec![];
    for (residencies, contexts) in ways {
        if let Some(plan) = request.fixed {
            candidates.extend(residencies.iter().map(|residency| (*residency, plan)));
            continue;
        }
        for context in contexts {
            for format in formats(size, request) {
                for residency in residencies {
                    let plan = |chunk| shape(request, *context, format, chunk);
                    candidates.extend(CHUNKS.map(|chunk| (*residency, plan(chunk))));
                }
            }
        }
    }
    candidates
}

/// Formats of keys and values to try, best first.
fn formats(size: &ModelSize<'_>, request: &Request) -> Vec<KvFormat> {
    match (request.kv, kv_format(size.program)) {
        (Some(kv), _) => vec![kv.format()],
        (None, KvFormat::Half) => vec![KvFormat::Half, KvFormat::Int8],
        (None, exact) => vec![exact],
    }
}

fn shape(request: &Request, context: u32, kv_format: KvFormat, chunk: u32) -> Plan {
    let logit_columns = request.logit_columns.max(1);
    Plan {
        columns: chunk.max(logit_columns),
        logit_columns,
        kv_capacity: context,
        kv_sinks: SINKS.min(context.saturating_sub(1)),
        kv_format,
        sequences: request.sequences.max(1),
    }
}

/// A model that is kept in 32-bit floats throughout is there to be exact; others lose nothing to
/// 16-bit keys and values.
pub(crate) fn kv_format(program: &Program<'_>) -> KvFormat {
    let tensors = (0..).map_while(|i| program.tensor(i));
    let mut matrices = tensors.filter(|t| t.format != Format::Vector);
    if matrices.all(|t| t.format == Format::F32) { KvFormat::Single } else { KvFormat::Half }
}

fn lay_out(
    size: &ModelSize<'_>,
    residency: Residency,
    plan: Plan,
) -> Result<MemoryPlan, LoadError> {
    let pages = u32::try_from(size.weights.div_ceil(u64::from(size.page_size))).unwrap_or(u32::MAX);
    let stable_pages = if residency == Residency::Mapped { pages } else { 0 };
    let layout = Layout::new(size.program, &plan, stable_pages)?;
    let (weights, ring) = match residency {
        Residency::Mapped => (size.weights, 0),
        Residency::Streamed { tile_pages } => {
            let tile = u64::from(tile_pages) * u64::from(size.page_size);
            (0, crate::pager::ReadPager::BUFFERS * tile)
        }
    };
    let bytes = Bytes {
        weights,
        ring,
        kv_cache: layout.kv,
        activations: layout.total() - layout.kv,
        tables: size.tables,
    };
    let total = weights + ring + layout.total() + size.tables;
    let (prefill_chunk, context) = (plan.columns, plan.kv_capacity);
    let kv_format = plan.kv_format.into();
    Ok(MemoryPlan { residency, prefill_chunk, context, kv_format, bytes, total, plan })
}

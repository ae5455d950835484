//! What each layer of a model needs as planned, and what it costs on a machine.

use crate::experts;
use crate::forecast::{Cost, Demand, Forecaster, PROMPT_TOKENS, expert_bytes};
use crate::pager::Tiles;
use crate::plan::MemoryPlan;
use crate::profile::Profile;
use crate::reads::without_adapters;
use crate::session::Tables;
use crate::{Error, Result};
use omex_core::ops::{Op, Operand, Reads};
use omex_core::program::{Parts, Program, Record, Records, Tensor};
use serde::Serialize;
use std::collections::HashSet;

/// What a layer needs for a pass of one token behind [`PROMPT_TOKENS`] others, or fewer where the KV
/// cache holds fewer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Layer {
    /// `embedding` for what comes before the layers, `layer 0` and so on, `head` for what comes
    /// behind them, `padding` for what comes along with them: the ends of pages, parts that are not
    /// played, an image's tables.
    pub name: String,
    /// Multiplications, each with an addition, of products with weights and of attention.
    pub multiply_adds: u64,
    /// Bytes of weights: base planes, vectors, and of an embedding the panel that holds a token's
    /// row.
    pub base_bytes: u64,
    /// Bytes of residual planes, as far as they are played.
    pub residual_bytes: u64,
    /// Bytes of weights that stay in memory, mapped or pinned. An embedding that is the head's matrix
    /// as well counts there.
    pub resident_bytes: u64,
    /// Bytes of weights that every pass reads. A row of an embedding that is not resident is read
    /// besides.
    pub streamed_bytes: u64,
    /// Bytes of the KV cache.
    pub kv_cache_bytes: u64,
    /// `None` if weights stream from a storage whose bandwidth is unknown.
    #[serde(flatten)]
    pub cost: Option<Cost>,
}

/// A part of a model whose operations are played one after another.
#[derive(Clone, Debug)]
pub struct Block {
    /// What all of it needs.
    pub needs: Layer,
    /// The same for blocks of the same operations.
    pub kind: usize,
    /// Those that are played.
    pub operations: Vec<Operation>,
}

/// An operation in a layer.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The operation.
    pub op: Op,
    /// How often its block was repeated before.
    pub layer: u32,
    /// What it needs, by its name.
    pub needs: Layer,
}

/// The layers of a model in the order in which a pass plays them. Their bytes and seconds add up to
/// the plan's and the forecast's.
///
/// # Errors
/// Those of [`Tables::program`] and [`Profile::read_bandwidth`].
pub fn layers(
    tables: &Tables,
    profile: &Profile,
    plan: &MemoryPlan,
    threads: usize,
) -> Result<Vec<Layer>> {
    inspect(tables, Some(profile), (plan, threads), |inspector, sections| {
        sections.iter().map(|section| inspector.layer(section)).collect()
    })
}

/// The same with their operations. Without a profile, nothing says how long they take.
///
/// # Errors
/// Those of [`layers`]; more than [`MOST_OPERATIONS`] operations.
pub fn blocks(
    tables: &Tables,
    profile: Option<&Profile>,
    plan: &MemoryPlan,
    threads: usize,
) -> Result<Vec<Block>> {
    let all: usize = sections(&tables.program()?).iter().map(|section| section.count).sum();
    if all > MOST_OPERATIONS {
        let most = MOST_OPERATIONS;
        return Err(Error::Usage(format!("{all} operations: {most} are shown at most")));
    }
    inspect(tables, profile, (plan, threads), |inspector, sections| {
        sections.iter().map(|section| inspector.block(section)).collect()
    })
}

/// The most operations that are shown one by one.
pub const MOST_OPERATIONS: usize = 100_000;

/// What can be told of each section, and of what a plan has besides them.
fn inspect<T: From<Layer> + AsRef<Layer>>(
    tables: &Tables,
    profile: Option<&Profile>,
    (plan, threads): (&MemoryPlan, usize),
    tell: impl FnOnce(&Inspector<'_>, &[Section<'_>]) -> Vec<T>,
) -> Result<Vec<T>> {
    let (program, tiles) = (tables.program()?, tables.tiles(plan)?);
    let parts = &without_adapters(plan.precision.parts());
    let whole = program.ranges_in_order(parts).map(|range| range.start).collect();
    let forecaster = profile.and_then(|profile| Forecaster::new(profile, &program, plan, threads));
    let threads = forecaster.map_or(1, |on| on.threads(1, PROMPT_TOKENS.min(plan.context)));
    let inspector = Inspector { program: &program, plan, parts, tiles, whole, forecaster, threads };
    let mut told = tell(&inspector, &sections(&program));
    let layers: Vec<_> = told.iter().map(|told| told.as_ref().clone()).collect();
    told.extend(inspector.padding(&layers).map(T::from));
    Ok(told)
}

impl From<Layer> for Block {
    fn from(needs: Layer) -> Self {
        Self { needs, kind: usize::MAX, operations: vec![] }
    }
}

impl AsRef<Layer> for Block {
    fn as_ref(&self) -> &Layer {
        &self.needs
    }
}

impl AsRef<Layer> for Layer {
    fn as_ref(&self) -> &Layer {
        self
    }
}

/// Operations that are played one after another.
struct Section<'p> {
    name: String,
    records: Records<'p>,
    count: usize,
    layer: u32,
    /// The same for repetitions of the same operations.
    kind: usize,
}

/// Cuts a program where its layers begin and end.
fn sections<'p>(program: &Program<'p>) -> Vec<Section<'p>> {
    let (mut sections, mut records, mut layers) = (vec![], program.records(), 0);
    let mut left = usize::from(program.header().records);
    while left > 0 {
        let single = |record: &Record| matches!(record, Record::Op(_));
        let outside = records.take(left).take_while(single).count();
        if outside > 0 {
            let name = if layers == 0 { "embedding" } else { "head" }.to_owned();
            sections.push(Section { name, records, count: outside, layer: 0, kind: left });
        }
        records.by_ref().take(outside).for_each(drop);
        left -= outside;
        let next = records.next().filter(|_| left > 0);
        let Some(Record::Repeat { records: count, layers: times }) = next else { break };
        let count = usize::from(count);
        sections.extend((0..times).map(|layer| {
            let name = format!("layer {}", layers + layer);
            Section { name, records, count, layer, kind: left }
        }));
        records.by_ref().take(count).for_each(drop);
        layers += times;
        left = left.saturating_sub(1 + count);
    }
    sections
}

/// True if an operation goes through a KV cache.
fn attends(op: &Op) -> bool {
    matches!(op, Op::Attend(_))
}

struct Inspector<'i> {
    program: &'i Program<'i>,
    plan: &'i MemoryPlan,
    parts: &'i dyn Parts,
    tiles: Option<Tiles>,
    /// Where tensors begin that every pass reads from first to last.
    whole: HashSet<u64>,
    forecaster: Option<Forecaster<'i>>,
    /// Threads that a pass is computed on.
    threads: usize,
}

impl Inspector<'_> {
    fn layer(&self, section: &Section<'_>) -> Layer {
        let mut layer = Layer { name: section.name.clone(), ..Layer::default() };
        for op in self.played(section) {
            self.count(&op, section.layer, &mut layer);
        }
        let steps = self.played(section).map(|op| (op, section.layer));
        let kv_caches = self.played(section).filter(attends).count() as u64;
        layer.cost = self.cost(steps, layer.streamed_bytes, kv_caches);
        layer
    }

    fn block(&self, section: &Section<'_>) -> Block {
        let operations = self.played(section).map(|op| {
            let mut needs = Layer { name: op.name().to_owned(), ..Layer::default() };
            self.count(&op, section.layer, &mut needs);
            let step = std::iter::once((op, section.layer));
            needs.cost = self.cost(step, needs.streamed_bytes, attends(&op).into());
            Operation { op, layer: section.layer, needs }
        });
        let operations = operations.collect();
        Block { needs: self.layer(section), kind: section.kind, operations }
    }

    /// What a plan has besides its layers, if anything.
    fn padding(&self, layers: &[Layer]) -> Option<Layer> {
        let sum = |bytes: fn(&Layer) -> u64| layers.iter().map(bytes).sum();
        let streamed = self.plan.streamed_bytes + expert_bytes(self.program, self.plan, 1);
        let mut padding = Layer {
            name: "padding".to_owned(),
            resident_bytes: self.plan.bytes.weights.saturating_sub(sum(|l| l.resident_bytes)),
            streamed_bytes: streamed.saturating_sub(sum(|l| l.streamed_bytes)),
            ..Layer::default()
        };
        padding.cost = self.cost(std::iter::empty(), padding.streamed_bytes, 0);
        Some(padding).filter(|padding| padding.resident_bytes + padding.streamed_bytes > 0)
    }

    fn cost(
        &self,
        steps: impl Iterator<Item = (Op, u32)>,
        streamed_bytes: u64,
        kv_caches: u64,
    ) -> Option<Cost> {
        let demand = Demand { steps, streamed_bytes, kv_caches, threads: self.threads };
        let behind = PROMPT_TOKENS.min(self.plan.context);
        self.forecaster.map(|forecaster| forecaster.cost(demand, 1, behind))
    }

    /// The operations of a section, without those of parts that are not played.
    fn played(&self, section: &Section<'_>) -> impl Iterator<Item = Op> {
        let layer = section.layer;
        let ops = section.records.take(section.count).filter_map(|record| match record {
            Record::Op(op) => Some(op),
            Record::Repeat { .. } => None,
        });
        ops.filter(move |op| self.program.plays(self.parts, op, layer))
    }

    /// Adds what an operation needs.
    fn count(&self, op: &Op, number: u32, layer: &mut Layer) {
        let (a_column, a_position) = op.multiply_adds(self.program, number);
        let positions = PROMPT_TOKENS.saturating_add(1).min(self.plan.context);
        layer.multiply_adds += a_column + a_position * u64::from(positions);
        op.operands(&mut |operand| match operand {
            Operand::Weight(weight) => {
                let Some(tensor) = self.program.tensor(weight.at(number)) else { return };
                match (op.reads(), op) {
                    (Reads::Whole, Op::Correction(_)) => {
                        layer.residual_bytes += self.place(Some(tensor), layer);
                    }
                    (Reads::Whole, _) => layer.base_bytes += self.place(Some(tensor), layer),
                    (Reads::Rows, _) => {
                        let part = op.part_per_token(&tensor);
                        layer.base_bytes += part.bytes();
                        layer.streamed_bytes += experts::read_of(self.plan.experts, op, &part);
                        if self.tiles.is_none() && !self.whole.contains(&tensor.address) {
                            layer.resident_bytes += tensor.bytes();
                        }
                    }
                }
            }
            Operand::State(_) if matches!(op, Op::Attend(_)) => {
                let caches = crate::forecast::kv_caches(self.program).max(1);
                layer.kv_cache_bytes += self.plan.bytes.kv_cache / caches;
            }
            _ => {}
        });
    }

    /// Adds a tensor to what is resident and streamed, and returns its bytes.
    fn place(&self, tensor: Option<Tensor>, layer: &mut Layer) -> u64 {
        let Some(tensor) = tensor else { return 0 };
        let range = tensor.address..tensor.address.saturating_add(tensor.bytes());
        let (resident, streamed) = match &self.tiles {
            Some(tiles) => tiles.bytes_in(&range),
            None => (tensor.bytes(), 0),
        };
        layer.resident_bytes += resident;
        layer.streamed_bytes += streamed;
        tensor.bytes()
    }
}

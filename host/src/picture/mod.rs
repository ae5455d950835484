//! A model's graph as a picture: what each operation reads, computes and costs, and what flows where.

mod dot;
mod flow;
mod html;
mod layout;
mod svg;
mod units;

use crate::Result;
use crate::layers::{self, Layer, Operation};
use crate::plan::MemoryPlan;
use crate::profile::Profile;
use crate::session::Tables;
use omex_core::ops::{Op, Operand};
use omex_core::program::Program;
use omex_core::quant::Format;
use serde::Serialize;
use std::collections::BTreeMap;

/// A graph, with what a pass of one token costs.
#[derive(Debug, Serialize)]
pub struct Picture {
    /// The model's name.
    pub title: String,
    /// Its parts in the order in which a pass plays them.
    pub blocks: Vec<Block>,
    /// What flows from which operation to which.
    pub flows: Vec<Flow>,
    /// Each kind of operation, that with the most time, or else bytes, first.
    pub kinds: Vec<Kind>,
    /// What all of them need.
    pub total: Costs,
}

/// Operations that are played one after another.
#[derive(Debug, Serialize)]
pub struct Block {
    /// `embedding`, `layer 0` and so on, `head`; `padding` has no operations.
    pub name: String,
    /// The first block of these operations: those after it differ in weights only.
    #[serde(skip)]
    first: bool,
    /// What it needs.
    #[serde(flatten)]
    pub costs: Costs,
    /// Bytes of weights by format.
    pub formats: BTreeMap<String, u64>,
    /// Its operations.
    pub nodes: Vec<Node>,
}

/// An operation, or what a model takes in or gives out.
#[derive(Debug, Serialize)]
pub struct Node {
    /// The operation's name, `Input` or `Output`.
    pub op: &'static str,
    /// What an input or output is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its weights in the order of use.
    pub weights: Vec<Weight>,
    /// Numbers that it writes for a token, or as many as there are of what is there once; 0 where it keeps them in a state.
    pub width: u32,
    /// What it needs.
    #[serde(flatten)]
    pub costs: Costs,
}

/// A tensor that an operation reads.
#[derive(Debug, Serialize)]
pub struct Weight {
    /// Its name; empty where it is not known, as in a flash image.
    pub name: String,
    /// `int8`, `vector` and so on.
    pub format: String,
    /// Outputs of a matrix, 1 for a vector.
    pub rows: u32,
    /// Inputs of a matrix, the length of a vector.
    pub columns: u32,
    /// Bytes.
    pub bytes: u64,
}

/// What something needs in a pass of one token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Costs {
    /// Bytes of weights that are read.
    pub weight_bytes: u64,
    /// Those of them that are read from storage.
    pub streamed_bytes: u64,
    /// Bytes of the KV cache.
    pub kv_cache_bytes: u64,
    /// Multiplications, each with an addition.
    pub multiply_adds: u64,
    /// Seconds of reading or computing, whichever takes longer, if a profile tells.
    pub seconds: Option<f64>,
}

/// What flows from an operation to a later one: numbers of blocks, and of their nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Flow {
    /// What writes a value or a state.
    pub from: (usize, usize),
    /// What reads it.
    pub to: (usize, usize),
}

/// All operations of a name.
#[derive(Debug, Serialize)]
pub struct Kind {
    /// The name.
    pub op: &'static str,
    /// How many there are.
    pub count: usize,
    /// What they need.
    #[serde(flatten)]
    pub costs: Costs,
}

impl Picture {
    /// The picture of a model as planned, with times where there is a profile.
    ///
    /// # Errors
    /// Those of [`layers::blocks`].
    pub fn new(
        title: &str,
        tables: &Tables,
        profile: Option<&Profile>,
        plan: &MemoryPlan,
        threads: usize,
    ) -> Result<Self> {
        let program = tables.program()?;
        let mut found = layers::blocks(tables, profile, plan, threads)?;
        // Padding that nothing reads is nothing to look at.
        found.retain(|block| !block.operations.is_empty() || block.needs.streamed_bytes > 0);
        let mut blocks: Vec<_> = found.iter().map(|of| block(tables, &program, of)).collect();
        if let [only] = &mut blocks[..] {
            only.name = "graph".to_owned();
        }
        for (number, of) in found.iter().enumerate() {
            blocks[number].first = found[..number].iter().all(|before| before.kind != of.kind);
        }
        let flows = flow::flows(&program, &found, &mut blocks);
        let kinds = kinds(&blocks);
        let total = kinds.iter().fold(Costs::default(), |sum, kind| sum.and(&kind.costs));
        Ok(Self { title: title.to_owned(), blocks, flows, kinds, total })
    }

    /// The graph as a picture: the first of equal blocks in full, the others in a line.
    #[must_use]
    pub fn svg(&self) -> String {
        svg::svg(self)
    }

    /// The graph as a page, in which blocks fold, with a search.
    #[must_use]
    pub fn html(&self) -> String {
        html::html(self)
    }

    /// The graph in Graphviz's language, all blocks in full.
    #[must_use]
    pub fn dot(&self) -> String {
        dot::dot(self)
    }

    /// What bars show: the part of the time that something takes, or of the bytes without times.
    fn share(&self, costs: &Costs) -> f64 {
        let (part, whole) = match (costs.seconds, self.total.seconds) {
            (Some(part), Some(whole)) => (part, whole),
            _ => (costs.weight_bytes as f64, self.total.weight_bytes as f64),
        };
        let share = if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 };
        // What would be shown as 0.0 % is nothing.
        if share < 0.0005 { 0.0 } else { share }
    }
}

fn block(tables: &Tables, program: &Program<'_>, of: &layers::Block) -> Block {
    let nodes: Vec<_> = of.operations.iter().map(|of| node(tables, program, of)).collect();
    let mut formats = BTreeMap::new();
    for weight in nodes.iter().flat_map(|node| &node.weights) {
        *formats.entry(weight.format.clone()).or_default() += weight.bytes;
    }
    let costs = nodes.iter().fold(Costs::default(), |sum, node| sum.and(&node.costs));
    let costs = if nodes.is_empty() { Costs::of(&of.needs) } else { costs };
    Block { name: of.needs.name.clone(), first: false, costs, formats, nodes }
}

fn node(tables: &Tables, program: &Program<'_>, of: &Operation) -> Node {
    let mut weights = vec![];
    of.op.weights(&mut |weight| {
        let number = weight.at(of.layer);
        weights.extend(program.tensor(number).map(|tensor| Weight {
            name: tables.tensor_name(number).map_or(String::new(), |(name, plane)| match plane {
                0 => name.to_owned(),
                _ => format!("{name} (residual)"),
            }),
            format: format_name(tensor.format).to_owned(),
            rows: tensor.rows,
            columns: tensor.columns,
            bytes: tensor.bytes(),
        }));
    });
    let width = width(&of.op);
    Node { op: of.op.name(), name: None, weights, width, costs: Costs::of(&of.needs) }
}

/// The width of what an operation writes last: before that come its notes.
fn width(op: &Op) -> u32 {
    let mut width = 0;
    op.operands(&mut |operand| match operand {
        Operand::Write(value) | Operand::Update(value) => width = value.width,
        _ => {}
    });
    width
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Vector => "vector",
        Format::Channels => "channels",
        Format::F32 => "f32",
        Format::F16 => "f16",
        Format::Int8 => "int8",
        Format::Int4 => "int4",
    }
}

/// The kinds of operations in the order of what they cost.
fn kinds(blocks: &[Block]) -> Vec<Kind> {
    let mut kinds: BTreeMap<&'static str, (usize, Costs)> = BTreeMap::new();
    for node in blocks.iter().flat_map(|block| &block.nodes).filter(|node| node.name.is_none()) {
        let (count, costs) = kinds.entry(node.op).or_default();
        (*count, *costs) = (*count + 1, costs.and(&node.costs));
    }
    let kinds = kinds.into_iter().map(|(op, (count, costs))| Kind { op, count, costs });
    let mut kinds: Vec<_> = kinds.collect();
    let order = |costs: &Costs| (costs.seconds.unwrap_or(0.0), costs.weight_bytes as f64);
    kinds.sort_by(|a, b| {
        let ((time, bytes), (of_time, of_bytes)) = (order(&a.costs), order(&b.costs));
        of_time.total_cmp(&time).then(of_bytes.total_cmp(&bytes))
    });
    kinds
}

impl Costs {
    fn of(needs: &Layer) -> Self {
        Self {
            weight_bytes: needs.base_bytes + needs.residual_bytes,
            streamed_bytes: needs.streamed_bytes,
            kv_cache_bytes: needs.kv_cache_bytes,
            multiply_adds: needs.multiply_adds,
            seconds: needs.cost.map(|cost| cost.seconds()),
        }
    }

    fn and(&self, other: &Self) -> Self {
        let seconds = match (self.seconds, other.seconds) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        Self {
            weight_bytes: self.weight_bytes + other.weight_bytes,
            streamed_bytes: self.streamed_bytes + other.streamed_bytes,
            kv_cache_bytes: self.kv_cache_bytes + other.kv_cache_bytes,
            multiply_adds: self.multiply_adds + other.multiply_adds,
            seconds,
        }
    }
}

impl Node {
    /// What it is called beside its operation: its first weight, without the number of the layer,
    /// which its block has; without weights, what it writes.
    fn label(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let Some(first) = self.weights.first() else { return self.written().unwrap_or_default() };
        let name = match first.name.strip_prefix("layers.").and_then(|name| name.split_once('.')) {
            Some((_, part)) => part,
            None => first.name.as_str(),
        };
        match self.weights.len() {
            1 => name.to_owned(),
            count => format!("{name} and {} more", count - 1),
        }
    }

    /// What it reads and computes, in a line.
    fn figures(&self) -> String {
        let shape = |weight: &Weight| match weight.format.as_str() {
            "vector" => format!("{} numbers", weight.columns),
            format => format!("{format} {}\u{d7}{}", weight.rows, weight.columns),
        };
        let weight = self.weights.first().map(shape);
        weight.into_iter().chain(self.costs.figures()).collect::<Vec<_>>().join(" \u{b7} ")
    }

    fn written(&self) -> Option<String> {
        (self.width > 0).then(|| format!("writes {} numbers", self.width))
    }

    /// All that is known of it, a line for each thing.
    fn details(&self) -> Vec<String> {
        let weight = |weight: &Weight| {
            let Weight { name, format, rows, columns, bytes } = weight;
            format!("{name}: {format} {rows}\u{d7}{columns}, {}", units::bytes(*bytes))
        };
        let name = self.name.iter().cloned();
        let weights = self.weights.iter().map(weight);
        name.chain(weights).chain(self.written()).chain(self.costs.details()).collect()
    }
}

impl Costs {
    /// What is not 0, short.
    fn figures(&self) -> Vec<String> {
        let mut figures = vec![];
        if self.weight_bytes > 0 {
            figures.push(units::bytes(self.weight_bytes));
        }
        if self.multiply_adds > 0 {
            figures.push(format!("{} MACs", units::count(self.multiply_adds)));
        }
        if self.kv_cache_bytes > 0 {
            figures.push(format!("KV {}", units::bytes(self.kv_cache_bytes)));
        }
        figures
    }

    fn details(&self) -> Vec<String> {
        let mut details = vec![];
        let mut add = |there: bool, detail: String| details.extend(there.then_some(detail));
        let of = units::bytes;
        add(self.weight_bytes > 0, format!("{} of weights a pass", of(self.weight_bytes)));
        add(self.streamed_bytes > 0, format!("{} of them from storage", of(self.streamed_bytes)));
        add(self.kv_cache_bytes > 0, format!("{} of the KV cache", of(self.kv_cache_bytes)));
        let counted = units::count(self.multiply_adds);
        add(self.multiply_adds > 0, format!("{counted} multiply-adds (MACs) a pass"));
        details.extend(self.seconds.map(|seconds| format!("{} a pass", units::time(seconds))));
        details
    }
}

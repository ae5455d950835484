//! A graph and an index of tensors, compiled into the program that the engine plays.

use crate::graph::{Activation, Graph, Node, ValueRef, weight_name};
use heapless::Vec as FixedVec;
use omex_core::program::{self, Header, Heads, MAX_SLOTS, Op, PerLayer, Slot, Tensor, Value};
use std::collections::BTreeMap;

/// The most entries of a tensor table.
const MAX_TENSORS: usize = 1 << 18;

/// A program and its tensor table, as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The program: header and operations.
    pub program: Vec<u8>,
    /// The tensor table.
    pub tensors: Vec<u8>,
    /// Names and planes of the tensors, in the table's order.
    pub names: Vec<(String, u32)>,
}

/// Compiles a graph. `tensor` finds a tensor by name and plane: 0 the base, 1 the residual. A matrix
/// product whose weight has a residual becomes two operations.
///
/// # Errors
/// A sentence that names what is missing or does not fit.
pub fn compile(
    graph: &Graph,
    stop_tokens: &[u32],
    tensor: impl Fn(&str, u32) -> Option<Tensor>,
) -> Result<Compiled, String> {
    check_length(graph)?;
    let slots = place_values(graph)?;
    let mut compiler = Compiler { graph, slots, ops: vec![], tensors: vec![] };
    for node in &graph.nodes {
        compiler.node(node, &tensor)?;
    }
    compiler.finish(stop_tokens)
}

/// Refuses a graph that is too long before any work that its length multiplies.
fn check_length(graph: &Graph) -> Result<(), String> {
    let length = |node: &Node| match node {
        Node::Repeat { subgraph, .. } => 1 + graph.subgraphs.get(subgraph).map_or(0, Vec::len),
        _ => 1,
    };
    let mut operations = 0;
    for node in &graph.nodes {
        operations += length(node);
        if operations > usize::from(program::MAX_OPS) {
            return Err(format!("more than {} operations, subgraphs included", program::MAX_OPS));
        }
    }
    Ok(())
}

struct Compiler<'g> {
    graph: &'g Graph,
    /// Number and place of each value's slot.
    slots: BTreeMap<&'g str, (u16, Slot)>,
    ops: Vec<Op>,
    tensors: Vec<(String, u32, Tensor)>,
}

impl Compiler<'_> {
    fn node(
        &mut self,
        node: &Node,
        tensor: &impl Fn(&str, u32) -> Option<Tensor>,
    ) -> Result<(), String> {
        let Node::Repeat { subgraph, layers } = node else {
            let first = self.tensors.len() as u32;
            let planes = self.add(node, node.weight().unwrap_or_default(), tensor)?;
            return self.ops_of(node, planes, PerLayer { first, stride: 0 }, 0);
        };
        let body = self.graph.subgraphs.get(subgraph);
        let body = body.ok_or_else(|| format!("subgraph \"{subgraph}\" does not exist"))?;
        if *layers > program::MAX_LAYERS {
            let most = program::MAX_LAYERS;
            return Err(format!(
                "subgraph \"{subgraph}\" is repeated {layers} times, {most} at most"
            ));
        }
        let (repeat, first) = (self.ops.len(), self.tensors.len() as u32);
        let mut planes = vec![];
        for layer in 0..*layers {
            for (number, node) in body.iter().enumerate() {
                let name = weight_name(node.weight().unwrap_or_default(), layer);
                let found = self.add(node, &name, tensor)?;
                if layer == 0 {
                    planes.push(found);
                } else if planes[number] != found {
                    return Err(format!(
                        "tensor \"{name}\" has {found} planes, but {} in layer 0",
                        planes[number]
                    ));
                }
            }
        }
        let stride = planes.iter().sum();
        self.ops.push(Op::Repeat { ops: 0, layers: *layers });
        let mut weight = PerLayer { first, stride };
        for (node, planes) in body.iter().zip(planes) {
            self.ops_of(node, planes, weight, 1)?;
            weight.first += planes;
        }
        let ops = u16::try_from(self.ops.len() - repeat - 1)
            .map_err(|_| format!("subgraph \"{subgraph}\" is too long"))?;
        self.ops[repeat] = Op::Repeat { ops, layers: *layers };
        Ok(())
    }

    /// Adds the planes of a node's weight to the table, and says how many they are.
    fn add(
        &mut self,
        node: &Node,
        name: &str,
        tensor: &impl Fn(&str, u32) -> Option<Tensor>,
    ) -> Result<u32, String> {
        if node.weight().is_none() {
            return Ok(0);
        }
        let base =
            tensor(name, 0).ok_or_else(|| format!("tensor \"{name}\" is not in the index"))?;
        let residual = tensor(name, 1);
        if residual.is_some() && !matches!(node, Node::MatMul { .. }) {
            return Err(format!("tensor \"{name}\" has a residual plane, which only matmul adds"));
        }
        for (plane, found) in (0..).zip([Some(base), residual].into_iter().flatten()) {
            if self.tensors.len() >= MAX_TENSORS {
                return Err(format!(
                    "more than {MAX_TENSORS} tensors, a tensor counted once for each use"
                ));
            }
            self.tensors.push((name.to_owned(), plane, found));
        }
        Ok(1 + u32::from(residual.is_some()))
    }

    fn value(&self, value: &ValueRef) -> Result<Value, String> {
        let (slot, place) = self.slots.get(value.name.as_str()).ok_or_else(|| unknown(value))?;
        let (first, end) = value.rows.unwrap_or((0, place.width));
        Ok(Value { slot: *slot, first, width: end.saturating_sub(first) })
    }

    /// Adds a node's operation, and that of its weight's residual plane behind it, if it has two.
    fn ops_of(
        &mut self,
        node: &Node,
        planes: u32,
        weight: PerLayer,
        cache_stride: u32,
    ) -> Result<(), String> {
        self.op(node, weight, cache_stride)?;
        if let (2, Node::MatMul { input, output, .. }) = (planes, node) {
            let (input, output) = (self.value(input)?, self.value(output)?);
            let weight = PerLayer { first: weight.first + 1, ..weight };
            self.ops.push(Op::Residual { weight, input, output });
        }
        Ok(())
    }

    fn op(&mut self, node: &Node, weight: PerLayer, cache_stride: u32) -> Result<(), String> {
        let op = match node {
            Node::Repeat { subgraph, .. } => {
                return Err(format!("subgraph \"{subgraph}\" is repeated inside of another"));
            }
            Node::Embed { output, .. } => Op::Embed { weight, output: self.value(output)? },
            Node::RmsNorm { epsilon, input, output, .. } => {
                let (input, output) = (self.value(input)?, self.value(output)?);
                Op::RmsNorm { weight, epsilon: *epsilon, input, output }
            }
            Node::MatMul { input, output, accumulate, .. } => {
                let (input, output) = (self.value(input)?, self.value(output)?);
                Op::MatMul { weight, input, output, accumulate: *accumulate }
            }
            Node::RotaryAngles { output, .. } => {
                Op::RotaryAngles { frequencies: weight, output: self.value(output)? }
            }
            Node::Rotary { angles, value, head_width } => {
                let (angles, value) = (self.value(angles)?, self.value(value)?);
                Op::Rotary { angles, value, head_width: *head_width }
            }
            Node::Attention {
                cache,
                query_heads,
                kv_heads,
                head_width,
                scale,
                query,
                key,
                value,
                angles,
                output,
            } => Op::Attention {
                cache: PerLayer { first: *cache, stride: cache_stride },
                heads: Heads { query: *query_heads, kv: *kv_heads, width: *head_width },
                scale: *scale,
                query: self.value(query)?,
                key: self.value(key)?,
                value: self.value(value)?,
                angles: self.value(angles)?,
                output: self.value(output)?,
            },
            Node::Gated { activation: Activation::Silu, gate, up, output } => Op::Gated {
                activation: program::Activation::Silu,
                gate: self.value(gate)?,
                up: self.value(up)?,
                output: self.value(output)?,
            },
            Node::Select { input, output } => {
                Op::Select { input: self.value(input)?, output: self.value(output)? }
            }
        };
        self.ops.push(op);
        Ok(())
    }

    fn finish(self, stop_tokens: &[u32]) -> Result<Compiled, String> {
        let graph = self.graph;
        let logits = self.slots.get(graph.logits.as_str());
        let (logits, _) = logits.ok_or_else(|| unknown(&ValueRef::all(&graph.logits)))?;
        let mut slots: Vec<_> = self.slots.values().collect();
        slots.sort_by_key(|(number, _)| *number);
        let header = Header {
            vocab_size: graph.vocab_size,
            context_length: graph.context_length,
            kv_caches: graph.kv.caches,
            kv_width: graph.kv.width,
            stop_tokens: FixedVec::from_slice(stop_tokens)
                .map_err(|_| format!("{} tokens end a text, 8 at most", stop_tokens.len()))?,
            slots: slots.into_iter().map(|(_, slot)| *slot).collect(),
            logits: *logits,
            ops: u16::try_from(self.ops.len())
                .ok()
                .filter(|ops| *ops <= program::MAX_OPS)
                .ok_or_else(|| {
                    format!("more than {} operations, planes included", program::MAX_OPS)
                })?,
        };
        let mut program = encode(&header)?;
        for op in &self.ops {
            program.extend(encode(op)?);
        }
        let tensors = self.tensors.iter().flat_map(|(.., t)| t.to_record()).collect();
        let names = self.tensors.into_iter().map(|(name, plane, _)| (name, plane)).collect();
        Ok(Compiled { program, tensors, names })
    }
}

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, String> {
    let mut buffer = [0; 4096];
    let bytes = postcard::to_slice(value, &mut buffer).map_err(|e| e.to_string())?;
    Ok(bytes.to_vec())
}

fn unknown(value: &ValueRef) -> String {
    format!("value \"{value}\" is not among the graph's values")
}

/// Chooses a place for each value: values that are never alive at once share one.
fn place_values(graph: &Graph) -> Result<BTreeMap<&str, (u16, Slot)>, String> {
    let lifetimes = lifetimes(graph)?;
    let mut by_size: Vec<_> = lifetimes.iter().collect();
    by_size.sort_by_key(|(name, _)| (std::cmp::Reverse(graph.values[**name].width), **name));
    if by_size.len() > MAX_SLOTS {
        return Err(format!("{} values, {MAX_SLOTS} at most", by_size.len()));
    }
    let mut placed: Vec<(&str, Slot, (usize, usize))> = vec![];
    for (name, life) in by_size {
        let shape = graph.values[*name];
        let mut offset = 0;
        loop {
            let clash = placed.iter().find(|(_, other, theirs)| {
                other.selected == shape.selected
                    && life.0 <= theirs.1
                    && theirs.0 <= life.1
                    && offset < other.offset + other.width
                    && other.offset < offset + shape.width
            });
            let Some((_, other, _)) = clash else { break };
            offset = other.offset + other.width;
        }
        let slot = Slot { offset, width: shape.width, selected: shape.selected };
        placed.push((name, slot, *life));
    }
    Ok(placed
        .into_iter()
        .enumerate()
        .map(|(i, (name, slot, _))| (name, (i as u16, slot)))
        .collect())
}

/// The first and last operation that uses each value, subgraphs counted once. A value that lives
/// both inside and outside of a repetition lives through all of it.
fn lifetimes(graph: &Graph) -> Result<BTreeMap<&str, (usize, usize)>, String> {
    let mut lives: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut bodies = vec![];
    let mut clock = 0;
    for node in &graph.nodes {
        let single = std::slice::from_ref(node);
        let body = match node {
            Node::Repeat { subgraph, .. } => {
                graph.subgraphs.get(subgraph).map_or(single, Vec::as_slice)
            }
            _ => single,
        };
        let start = clock;
        for node in body {
            let (inputs, output) = node.values();
            for value in inputs.into_iter().chain(output) {
                let shape = graph.values.get_key_value(value.name.as_str());
                let (name, shape) = shape.ok_or_else(|| unknown(value))?;
                if shape.width == 0 || shape.width > program::MAX_WIDTH {
                    return Err(format!("value \"{name}\" has width {}", shape.width));
                }
                let life = lives.entry(name).or_insert((clock, clock));
                life.1 = clock;
            }
            clock += 1;
        }
        if matches!(node, Node::Repeat { .. }) {
            bodies.push((start, clock.saturating_sub(1)));
        }
    }
    for life in lives.values_mut() {
        for (start, end) in &bodies {
            let touches = life.0 <= *end && *start <= life.1;
            let inside = *start <= life.0 && life.1 <= *end;
            if touches && !inside {
                *life = (life.0.min(*start), life.1.max(*end));
            }
        }
    }
    Ok(lives)
}

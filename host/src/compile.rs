//! A graph and an index of tensors, compiled into the program that the engine plays.

use crate::graph::{
    FORMAT, Graph, Names, Node, PartShape, RESIDUAL, StateShape, ValueRef, ValueShape,
    name_in_layer,
};
use omex_core::ops::{Correction, Numbers, Op, Resolve};
use omex_core::program::{self, Header, Part, PartKind, PerLayer, Record, Slot, Tensor, Value};
use omex_core::state::State;
use std::collections::BTreeMap;

/// The most entries of a tensor table.
const MAX_TENSORS: usize = 1 << 18;

/// A program and its tensor table, as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The program: header, tables and operations.
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
    if graph.format != FORMAT {
        return Err(format!("format is {}, this version reads {FORMAT}", graph.format));
    }
    check_length(graph)?;
    let (slots, states) = (place_values(graph)?, number_states(graph)?);
    let (parts, records, tensors) = (graph.parts.clone(), vec![], vec![]);
    let mut compiler = Compiler { graph, slots, states, parts, records, tensors };
    if compiler.has_residuals(&tensor) {
        compiler.add_residual_part()?;
    }
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
    let mut records = 0;
    for node in &graph.nodes {
        records += length(node);
        if records > usize::from(program::MAX_RECORDS) {
            let most = program::MAX_RECORDS;
            return Err(format!("more than {most} operations, subgraphs included"));
        }
    }
    Ok(())
}

/// The number of the first state of each name.
fn number_states(graph: &Graph) -> Result<BTreeMap<&str, u32>, String> {
    let mut next = 0u32;
    let mut numbers = BTreeMap::new();
    for (name, shape) in &graph.states {
        numbers.insert(name.as_str(), next);
        next = next.saturating_add(shape.count());
        if next > program::MAX_LAYERS {
            return Err(format!("more than {} states", program::MAX_LAYERS));
        }
    }
    Ok(numbers)
}

struct Compiler<'g> {
    graph: &'g Graph,
    /// Number and place of each value's slot.
    slots: BTreeMap<&'g str, (u16, Slot)>,
    /// Number of the first state of each name.
    states: BTreeMap<&'g str, u32>,
    /// The graph's, and that of residual planes if there are some. In a program they are numbered in
    /// this order, from 1 on.
    parts: BTreeMap<String, PartShape>,
    records: Vec<Record>,
    tensors: Vec<(String, u32, Tensor)>,
}

impl Compiler<'_> {
    /// True if some weight has a residual plane, in the first of its layers.
    fn has_residuals(&self, tensor: &impl Fn(&str, u32) -> Option<Tensor>) -> bool {
        let nodes = self.graph.nodes.iter().chain(self.graph.subgraphs.values().flatten());
        let mut weights = nodes.flat_map(Node::weights);
        weights.any(|name| name_in_layer(&name, 0).is_ok_and(|name| tensor(&name, 1).is_some()))
    }

    fn add_residual_part(&mut self) -> Result<(), String> {
        let correction = PartShape { kind: PartKind::Correction };
        let part = self.parts.entry(RESIDUAL.to_owned()).or_insert(correction);
        if *part == correction {
            return Ok(());
        }
        Err(format!("part \"{RESIDUAL}\" is an adapter, but it is the part of residual planes"))
    }

    /// The number of a part; 0 for none.
    fn part(&self, name: Option<&str>) -> Result<u16, String> {
        let Some(name) = name else { return Ok(0) };
        let place = self.parts.keys().position(|part| part == name);
        let place =
            place.ok_or_else(|| format!("part \"{name}\" is not among the graph's parts"))?;
        count("parts", place + 1)
    }

    fn node(
        &mut self,
        node: &Node,
        tensor: &impl Fn(&str, u32) -> Option<Tensor>,
    ) -> Result<(), String> {
        let Node::Repeat { subgraph, layers } = node else {
            let first = self.tensors.len() as u32;
            self.add(node, 0, tensor)?;
            return self.records_of(node, PerLayer { first, stride: 0 }, 1).map(|_| ());
        };
        let body = self.graph.subgraphs.get(subgraph);
        let body = body.ok_or_else(|| format!("subgraph \"{subgraph}\" does not exist"))?;
        if *layers > program::MAX_LAYERS {
            let most = program::MAX_LAYERS;
            return Err(format!(
                "subgraph \"{subgraph}\" is repeated {layers} times, {most} at most"
            ));
        }
        let (repeat, first) = (self.records.len(), self.tensors.len() as u32);
        let mut counts = vec![];
        for layer in 0..*layers {
            for (number, node) in body.iter().enumerate() {
                let found = self.add(node, layer, tensor)?;
                if layer == 0 {
                    counts.push(found);
                } else if counts[number] != found {
                    let names = node.weights().join(", ");
                    return Err(format!(
                        "{names}: {found} tensors and planes in layer {layer}, {} in layer 0",
                        counts[number]
                    ));
                }
            }
        }
        self.records.push(Record::Repeat { records: 0, layers: *layers });
        let mut weight = PerLayer { first, stride: counts.iter().sum() };
        for node in body {
            weight.first = self.records_of(node, weight, *layers)?;
        }
        let records = u16::try_from(self.records.len() - repeat - 1)
            .map_err(|_| format!("subgraph \"{subgraph}\" is too long"))?;
        self.records[repeat] = Record::Repeat { records, layers: *layers };
        Ok(())
    }

    /// Adds a node's tensors as they are in a layer to the table, and says how many they are.
    fn add(
        &mut self,
        node: &Node,
        layer: u32,
        tensor: &impl Fn(&str, u32) -> Option<Tensor>,
    ) -> Result<u32, String> {
        let mut found = vec![];
        for name in node.weights() {
            let name = name_in_layer(&name, layer)?;
            let base = tensor(&name, 0);
            let base = base.ok_or_else(|| format!("tensor \"{name}\" is not in the index"))?;
            found.push((name, 0, base));
        }
        // The correction comes behind all that the node itself reads.
        for at in 0..found.len() {
            let name = &found[at].0;
            let Some(residual) = tensor(name, 1) else { continue };
            if !matches!(node, Node::Linear(op) if name_in_layer(&op.weight, layer).as_ref() == Ok(name))
            {
                return Err(format!(
                    "tensor \"{name}\" has a residual plane, which only linear adds"
                ));
            }
            found.push((name.clone(), 1, residual));
        }
        if self.tensors.len() + found.len() > MAX_TENSORS {
            return Err(format!(
                "more than {MAX_TENSORS} tensors, a tensor counted once for each use"
            ));
        }
        let count = found.len() as u32;
        self.tensors.extend(found);
        Ok(count)
    }

    /// Adds a node's operation, whose first weight is `weight`, and that of its weight's residual plane
    /// behind it, if it has two. Returns the number of the next weight.
    fn records_of(&mut self, node: &Node, weight: PerLayer, layers: u32) -> Result<u32, String> {
        let Some(op) = node.op() else {
            return Err("a repetition inside of another".to_owned());
        };
        let mut numbering = Numbering { compiler: self, weight, layers };
        let op: Op = op.resolve(&mut numbering)?;
        let mut weight = numbering.weight;
        self.records.push(Record::Op(op));
        let corrected = self.tensors.get(weight.first as usize).is_some_and(|t| t.1 == 1);
        if let (Op::Linear(op), true) = (op, corrected) {
            let (input, output) = (op.input, op.output);
            let part = self.part(Some(RESIDUAL))?;
            self.records.push(Record::Op(Correction { weight, input, output, part }.into()));
            weight.first += 1;
        }
        Ok(weight.first)
    }

    fn value(&self, value: &ValueRef) -> Result<Value, String> {
        let (slot, place) = self.slots.get(value.name.as_str()).ok_or_else(|| unknown(value))?;
        let (first, end) = value.rows.unwrap_or((0, place.width));
        Ok(Value { slot: *slot, first, width: end.saturating_sub(first) })
    }

    /// The number of a state: `name` or `name[number]`.
    fn state(&self, reference: &str) -> Result<u32, String> {
        let (name, number) = match reference.split_once('[') {
            None => (reference, Some(0)),
            Some((name, rest)) => (name, rest.strip_suffix(']').and_then(|n| n.parse().ok())),
        };
        let shape = self.graph.states.get(name).zip(self.states.get(name));
        let found = shape.zip(number).filter(|((shape, _), number)| *number < shape.count());
        match found {
            Some(((_, first), number)) => Ok(first + number),
            None => Err(format!("state \"{reference}\" is not among the graph's states")),
        }
    }

    fn finish(self, stop_tokens: &[u32]) -> Result<Compiled, String> {
        let graph = self.graph;
        let mut slots: Vec<_> = self.slots.values().collect();
        slots.sort_by_key(|(number, _)| *number);
        let mut names = vec![];
        let inputs = self.ports(&graph.inputs, &mut names)?;
        let outputs = self.ports(&graph.outputs, &mut names)?;
        let parts = self.part_records(&mut names)?;
        let records = self.encode_records()?;
        if stop_tokens.len() > program::MAX_STOP_TOKENS {
            let most = program::MAX_STOP_TOKENS;
            return Err(format!("{} tokens end a text, {most} at most", stop_tokens.len()));
        }
        let states: Vec<_> = graph.states.values().flat_map(states_of).collect();
        let header = Header {
            vocab_size: graph.vocab_size,
            context_length: graph.context_length,
            record_bytes: records.len() as u32,
            name_bytes: names.len() as u32,
            records: count("operations", self.records.len())?,
            slots: count("values", slots.len())?,
            states: count("states", states.len())?,
            inputs: count("inputs", graph.inputs.len())?,
            outputs: count("outputs", graph.outputs.len())?,
            stop_tokens: count("stop tokens", stop_tokens.len())?,
            parts: count("parts", self.parts.len())?,
        };
        let mut program = header.to_bytes().to_vec();
        program.extend(slots.iter().flat_map(|(_, slot)| slot.to_record()));
        program.extend(states.iter().flat_map(State::to_record));
        program.extend(inputs);
        program.extend(outputs);
        program.extend(stop_tokens.iter().flat_map(|token| token.to_le_bytes()));
        program.extend(parts);
        program.extend(names);
        program.extend(records);
        let tensors = self.tensors.iter().flat_map(|(.., t)| t.to_record()).collect();
        let names = self.tensors.into_iter().map(|(name, plane, _)| (name, plane)).collect();
        Ok(Compiled { program, tensors, names })
    }

    /// The records of ports, whose names are added to `names`.
    fn ports(&self, ports: &[crate::graph::Port], names: &mut Vec<u8>) -> Result<Vec<u8>, String> {
        let mut records = vec![];
        for port in ports {
            let value = self.value(&port.value)?;
            let (scale, zero_point) = (port.scale, port.zero_point);
            let record = program::Port { name: &port.name, value, scale, zero_point };
            records.extend(record.to_record(names.len() as u32));
            names.extend(port.name.bytes());
        }
        Ok(records)
    }

    /// The records of parts, whose names are added to `names`.
    fn part_records(&self, names: &mut Vec<u8>) -> Result<Vec<u8>, String> {
        let mut records = vec![];
        for (name, shape) in &self.parts {
            if name.len() > usize::from(u16::MAX) {
                return Err(format!("a part's name has {} bytes, 65535 at most", name.len()));
            }
            let part = Part { name, kind: shape.kind };
            records.extend(part.to_record(names.len() as u32));
            names.extend(name.bytes());
        }
        Ok(records)
    }

    fn encode_records(&self) -> Result<Vec<u8>, String> {
        let mut bytes = vec![];
        let mut buffer = [0; 512];
        for record in &self.records {
            let length = record.write(&mut buffer).ok_or("an operation is too long")?;
            bytes.extend_from_slice(&buffer[..length]);
        }
        Ok(bytes)
    }
}

fn count(what: &str, count: usize) -> Result<u16, String> {
    u16::try_from(count).map_err(|_| format!("{count} {what}, 65535 at most"))
}

/// The states of one name.
fn states_of(shape: &StateShape) -> impl Iterator<Item = State> + use<> {
    let state = match *shape {
        StateShape::Kv { heads, width, window, .. } => State::Kv { heads, width, window },
        StateShape::Bytes { bytes, .. } => State::Bytes(bytes),
    };
    std::iter::repeat_n(state, shape.count() as usize)
}

/// Turns the names of one node into numbers.
struct Numbering<'c, 'g> {
    compiler: &'c Compiler<'g>,
    /// The next weight.
    weight: PerLayer,
    layers: u32,
}

impl Resolve<Names> for Numbering<'_, '_> {
    type To = Numbers;
    type Error = String;

    fn weight(&mut self, _: &String) -> Result<PerLayer, String> {
        let weight = self.weight;
        self.weight.first += 1;
        Ok(weight)
    }

    fn state(&mut self, name: &String) -> Result<PerLayer, String> {
        let in_layer = |layer| self.compiler.state(&name_in_layer(name, layer)?);
        let first = in_layer(0)?;
        let stride = if self.layers > 1 { in_layer(1)?.checked_sub(first) } else { Some(0) };
        let state = stride.map(|stride| PerLayer { first, stride });
        let state = state.ok_or_else(|| format!("state \"{name}\" goes backwards"))?;
        in_layer(self.layers.saturating_sub(1))?;
        Ok(state)
    }

    fn value(&mut self, value: &ValueRef) -> Result<Value, String> {
        self.compiler.value(value)
    }

    fn part(&mut self, part: &Option<String>) -> Result<u16, String> {
        self.compiler.part(part.as_deref())
    }
}

fn unknown(value: &ValueRef) -> String {
    format!("value \"{value}\" is not among the graph's values")
}

/// Chooses a place for each value: values that are never alive at once share one.
fn place_values(graph: &Graph) -> Result<BTreeMap<&str, (u16, Slot)>, String> {
    let lifetimes = lifetimes(graph)?;
    let mut by_size: Vec<_> = lifetimes.iter().collect();
    let bytes = |name: &str| {
        let shape = graph.values[name];
        u64::from(shape.width) * u64::from(shape.dtype.bytes())
    };
    by_size.sort_by_key(|(name, _)| (std::cmp::Reverse(bytes(name)), **name));
    if by_size.len() > usize::from(u16::MAX) {
        return Err(format!("{} values, {} at most", by_size.len(), u16::MAX));
    }
    let mut placed: Vec<(&str, Slot, (usize, usize))> = vec![];
    for (name, life) in by_size {
        let ValueShape { width, per, dtype, dims } = graph.values[*name];
        let mut slot = Slot { offset: 0, width, dims, per, dtype };
        loop {
            let clash = placed.iter().find(|(_, other, theirs)| {
                life.0 <= theirs.1 && theirs.0 <= life.1 && slot.overlaps(other)
            });
            let Some((_, other, _)) = clash else { break };
            let end = u32::try_from(other.end().next_multiple_of(4));
            slot.offset = end.map_err(|_| format!("value \"{name}\" has no place"))?;
        }
        placed.push((name, slot, *life));
    }
    Ok(placed
        .into_iter()
        .enumerate()
        .map(|(i, (name, slot, _))| (name, (i as u16, slot)))
        .collect())
}

/// The operation during which values take the most bytes, subgraphs counted once.
pub(crate) fn largest_operation(graph: &Graph) -> Result<usize, String> {
    let lives = lifetimes(graph)?;
    let bytes = |at: usize| -> u64 {
        let alive = lives.iter().filter(|(_, (first, last))| (*first..=*last).contains(&at));
        let shapes = alive.map(|(name, _)| graph.values[*name]);
        shapes.map(|shape| u64::from(shape.width) * u64::from(shape.dtype.bytes())).sum()
    };
    Ok((0..graph.nodes.len()).max_by_key(|at| bytes(*at)).unwrap_or(0))
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
            // Where a cache is full, keys and values wait until the attention behind has seen the oldest.
            let last = clock + usize::from(matches!(node, Node::Store(_)));
            for value in node.values() {
                let name = named(graph, &value)?;
                let life = lives.entry(name).or_insert((clock, last));
                life.1 = last;
            }
            clock += 1;
        }
        if matches!(node, Node::Repeat { .. }) {
            bodies.push((start, clock.saturating_sub(1)));
        }
    }
    for (ports, given) in [(&graph.inputs, true), (&graph.outputs, false)] {
        for port in ports {
            let life = lives.entry(named(graph, &port.value)?).or_insert((0, clock));
            *life = if given { (0, life.1) } else { (life.0, clock) };
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

/// The name of a value that the graph has.
fn named<'g>(graph: &'g Graph, value: &ValueRef) -> Result<&'g str, String> {
    let found = graph.values.get_key_value(value.name.as_str());
    let (name, shape) = found.ok_or_else(|| unknown(value))?;
    if shape.width == 0 || shape.width > program::MAX_WIDTH {
        return Err(format!("value \"{name}\" has width {}", shape.width));
    }
    Ok(name)
}

//! Graphs node by node. Each operation that names a tensor plans it, too: its role follows from the
//! operation, its shape from the values.

use super::blueprint::{Blueprint, Data, Order, Role, Sizes, Source, TensorPlan};
use crate::graph::{FORMAT, Graph, LOGITS, Names, Node, Port, StateShape, ValueRef, ValueShape};
use omex_core::ops::{
    Activation, Angles, Attend, Embed, Gated, Index, Linear, Mask, Norm, NormKind, Pairing, Rotary,
    Select, Store,
};
use omex_core::program::Per;
use std::mem;

/// The heads of keys and values.
#[derive(Clone, Copy)]
pub(super) struct KvHeads {
    pub(super) count: u32,
    pub(super) width: u32,
}

/// A graph that is being drawn, with the plans of its tensors.
///
/// Names of weights and of stored tensors may contain `{layer}` in a repeated block; there, the
/// layers' weights are called `layers.{layer}.` and a name, without saying so.
pub(super) struct Builder {
    graph: Graph,
    /// The nodes of the block that is being drawn, or of the graph.
    nodes: Vec<Node>,
    /// The number of layers while their block is being drawn.
    layers: Option<u32>,
    /// What stored tensors of the block begin with.
    prefix: &'static str,
    head: Vec<TensorPlan>,
    blocks: Vec<Vec<TensorPlan>>,
    tail: Vec<TensorPlan>,
}

/// Some values of the graph, by name.
pub(super) fn all(name: &str) -> ValueRef {
    ValueRef::all(name)
}

impl Builder {
    /// A graph for a vocabulary and a context.
    pub(super) fn new(vocab_size: u32, context_length: u32) -> Self {
        let graph = Graph {
            format: FORMAT,
            vocab_size,
            context_length,
            outputs: vec![Port::of(LOGITS)],
            ..Graph::default()
        };
        let (nodes, head, blocks, tail) = (vec![], vec![], vec![], vec![]);
        Self { graph, nodes, layers: None, prefix: "", head, blocks, tail }
    }

    /// Declares values: names, and floats a token.
    pub(super) fn values<const N: usize>(&mut self, values: [(&str, u32); N]) {
        let shape = |width| ValueShape { width, ..ValueShape::default() };
        self.graph.values.extend(values.map(|(name, width)| (name.to_owned(), shape(width))));
    }

    /// Declares values of the tokens whose logits are wanted.
    pub(super) fn selected_values<const N: usize>(&mut self, values: [(&str, u32); N]) {
        let shape = |width| ValueShape { width, per: Per::Output, ..ValueShape::default() };
        self.graph.values.extend(values.map(|(name, width)| (name.to_owned(), shape(width))));
    }

    /// Draws a block that is repeated for each layer; what stored tensors begin with.
    pub(super) fn repeat(
        &mut self,
        layers: u32,
        prefix: &'static str,
        block: impl FnOnce(&mut Self),
    ) {
        let outside = mem::take(&mut self.nodes);
        (self.layers, self.prefix) = (Some(layers), prefix);
        self.blocks.resize_with(layers as usize, Vec::new);
        block(self);
        (self.layers, self.prefix) = (None, "");
        let block = mem::replace(&mut self.nodes, outside);
        self.graph.subgraphs.insert("block".into(), block);
        self.nodes.push(Node::Repeat { subgraph: "block".into(), layers });
    }

    /// RoPE's angles.
    pub(super) fn angles(&mut self, frequencies: Vec<f32>, output: &str) {
        self.head.push(TensorPlan {
            name: FREQUENCIES.into(),
            role: Role::Vector,
            rows: 1,
            columns: frequencies.len() as u32,
            data: Data::Computed(frequencies),
        });
        let (frequencies, output) = (FREQUENCIES.into(), all(output));
        self.push(Angles::<Names> { frequencies, output, scale: 0.0 });
    }

    /// Rows of the embedding, which [`Self::logits`] plans.
    pub(super) fn embed(&mut self, output: &str) {
        self.push(Embed::<Names> {
            weight: EMBEDDING.into(),
            output: all(output),
            index: Index::Token,
            offset: 0,
            accumulate: false,
        });
    }

    /// RMSNorm.
    pub(super) fn norm(&mut self, name: &str, stored: &str, io: [&str; 2], epsilon: f32) {
        let columns = self.width(&all(io[0]));
        let weight = self.plan(name, Role::Vector, stored, [1, columns], Order::Plain);
        let [input, output] = io.map(all);
        let (kind, group) = (NormKind::Rms, 0);
        self.push(Norm::<Names> { weight, bias: None, input, output, epsilon, kind, group });
    }

    /// A matrix times activations.
    pub(super) fn linear(&mut self, name: &str, stored: &str, input: &str, output: &ValueRef) {
        self.product(name, stored, Order::Plain, input, output, false);
    }

    /// The same for queries or keys, whose rows are stored in an order of their own.
    pub(super) fn ordered_linear(
        &mut self,
        name: &str,
        stored: &str,
        order: Order,
        input: &str,
        output: &ValueRef,
    ) {
        self.product(name, stored, order, input, output, false);
    }

    /// The same, added to what the output holds.
    pub(super) fn linear_onto(&mut self, name: &str, stored: &str, input: &str, output: &str) {
        self.product(name, stored, Order::Plain, input, &all(output), true);
    }

    fn product(
        &mut self,
        name: &str,
        stored: &str,
        order: Order,
        input: &str,
        output: &ValueRef,
        accumulate: bool,
    ) {
        let input = all(input);
        let shape = [self.width(output), self.width(&input)];
        let weight = self.plan(name, Role::Matrix, stored, shape, order);
        self.push(Linear::<Names> {
            bias: None,
            weight,
            input,
            output: output.clone(),
            accumulate,
        });
    }

    /// RoPE on heads, in place.
    pub(super) fn rotary(&mut self, angles: &str, value: &ValueRef, head_width: u32) {
        let (angles, value) = (all(angles), value.clone());
        self.push(Rotary::<Names> { angles, value, head_width, pairing: Pairing::Halves });
    }

    /// Stores keys and values in the layer's cache, and attends to it.
    pub(super) fn attention(
        &mut self,
        heads: KvHeads,
        scale: f32,
        [query, key, value]: [&ValueRef; 3],
        angles: &str,
        output: &str,
    ) {
        let count = self.layers.unwrap_or(1);
        let cache = StateShape::Kv { count, heads: heads.count, width: heads.width, window: 0 };
        self.graph.states.insert("kv".into(), cache);
        let state = "kv[{layer}]".to_owned();
        self.push(Store::<Names> { state: state.clone(), key: key.clone(), value: value.clone() });
        self.push(Attend::<Names> {
            state,
            query: query.clone(),
            angles: Some(all(angles)),
            output: all(output),
            scale,
            pairing: Pairing::Halves,
            mask: Mask::Causal,
        });
    }

    /// The activation of `gate`, times `up`.
    pub(super) fn gated(
        &mut self,
        activation: Activation,
        [gate, up]: [&ValueRef; 2],
        output: &str,
    ) {
        let (gate, up, output) = (gate.clone(), up.clone(), all(output));
        self.push(Gated::<Names> { activation, gate, up, output });
    }

    /// Keeps the tokens whose logits are wanted.
    pub(super) fn select(&mut self, input: &str, output: &str) {
        self.push(Select::<Names> { input: all(input), output: all(output) });
    }

    /// Logits, from the embedding again, or from a matrix of its own. Both lie at the end of the
    /// weights.
    pub(super) fn logits(&mut self, embedding: &str, output: Option<&str>, input: &str) {
        let shape = [self.graph.vocab_size, self.width(&all(input))];
        let mut weight = self.plan(EMBEDDING, Role::Vocabulary, embedding, shape, Order::Plain);
        if let Some(output) = output {
            weight = self.plan("output", Role::Vocabulary, output, shape, Order::Plain);
        }
        let (input, output) = (all(input), all(LOGITS));
        self.push(Linear::<Names> { bias: None, weight, input, output, accumulate: false });
    }

    /// The blueprint of what was drawn. Stored tensors whose names end as `derived` says are left
    /// aside.
    pub(super) fn finish(
        self,
        family: &'static str,
        sizes: Sizes,
        (bos, eos): (Option<u32>, Vec<u32>),
        derived: Vec<&'static str>,
    ) -> Blueprint {
        let graph = Graph { nodes: self.nodes, ..self.graph };
        let mut files = self.blocks;
        files.push(self.tail);
        if let Some(first) = files.first_mut() {
            first.splice(..0, self.head);
        }
        Blueprint { family, sizes, graph, files, bos, eos, derived }
    }

    fn push<Op>(&mut self, op: Op)
    where
        Node: From<Op>,
    {
        self.nodes.push(op.into());
    }

    /// Floats a token of a value.
    fn width(&self, value: &ValueRef) -> u32 {
        match value.rows {
            Some((first, end)) => end - first,
            None => self.graph.values.get(&value.name).map_or(0, |shape| shape.width),
        }
    }

    /// Plans a tensor in the files of all layers, or in the last, and says what the graph calls it.
    fn plan(
        &mut self,
        name: &str,
        role: Role,
        stored: &str,
        [rows, columns]: [u32; 2],
        order: Order,
    ) -> String {
        let plan = |name: String, tensor: String| {
            let data = Data::Stored(vec![Source { tensor, rows, order }]);
            TensorPlan { name, role, rows, columns, data }
        };
        if self.layers.is_none() {
            self.tail.push(plan(name.to_owned(), stored.to_owned()));
            return name.to_owned();
        }
        let (name, stored) =
            (format!("layers.{{layer}}.{name}"), format!("{}{stored}", self.prefix));
        for (layer, file) in (0u32..).zip(&mut self.blocks) {
            let in_layer = |text: &str| text.replace("{layer}", &layer.to_string());
            file.push(plan(in_layer(&name), in_layer(&stored)));
        }
        name
    }
}

/// What the graph calls the inverse frequencies of RoPE.
pub(crate) const FREQUENCIES: &str = "rotary.frequencies";
const EMBEDDING: &str = "embedding";

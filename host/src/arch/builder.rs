//! Graphs node by node. Each operation that names a tensor plans it, too: its role follows from the
//! operation, its shape from the values.

use super::blueprint::{Blueprint, Data, Longer, Order, Role, Sizes, Slice, Source, TensorPlan};
use crate::graph::{CLASSES, FORMAT, Graph, LOGITS, Node, Port, StateShape, ValueRef, ValueShape};
use crate::import::Fields;
use omex_core::ops::{
    Activate, Activation, Add, Angles, Attend, Constant, Decay, Embed, Experts, Gated, Index,
    Linear, LinearAttention, Mask, Norm, NormKind, Pairing, Rotary, Route, Scale, Select,
    ShortConv, SoftCap, Store, Weights,
};
use omex_core::program::Per;
use std::collections::BTreeMap;
use std::mem;
use std::ops::RangeInclusive;

/// What the graph calls the inverse frequencies of RoPE.
pub(crate) const FREQUENCIES: &str = "rotary.frequencies";
pub(crate) const EMBEDDING: &str = "embedding";
/// How many taps a short convolution may have.
pub(super) const TAPS: RangeInclusive<u32> = 2..=64;

/// A graph that is being drawn, with the plans of its tensors.
pub(super) struct Builder {
    graph: Graph,
    /// The nodes of the block that is being drawn, or of the graph.
    nodes: Vec<Node>,
    place: Place,
    /// What stored tensors of layers begin with, before a dot and the layer's number.
    prefix: &'static str,
    /// What is read before the layers.
    head: Vec<TensorPlan>,
    layers: Vec<Vec<TensorPlan>>,
    /// What is read behind the layers.
    tail: Vec<TensorPlan>,
    /// The first layer of the kind that has states of a name.
    owners: BTreeMap<String, usize>,
    /// No layers are taken as one that comes again.
    pub(super) unrolled: bool,
    /// What is different where texts are longer.
    longer: Option<Longer>,
}

/// Where in a model nodes are being drawn.
#[derive(Clone, Copy)]
enum Place {
    /// Outside of the layers.
    Outside,
    /// In layers: their numbers, their numbers among those of their kind, and the first of that kind.
    Layers { number: Series, of_kind: Series, first: usize },
}

/// `count` numbers, `stride` apart.
#[derive(Clone, Copy)]
struct Series {
    first: usize,
    stride: usize,
    count: usize,
}

impl Series {
    /// The number that `{layer}` repetitions lead to, as the graph writes it.
    fn expression(self) -> String {
        match (self.stride, self.first) {
            _ if self.count == 1 => self.first.to_string(),
            (1, 0) => "{layer}".to_owned(),
            (1, first) => format!("{{layer+{first}}}"),
            (stride, 0) => format!("{{{stride}*layer}}"),
            (stride, first) => format!("{{{stride}*layer+{first}}}"),
        }
    }

    /// How many there are up to the last.
    fn end(self) -> u32 {
        (self.first + self.stride * self.count.saturating_sub(1) + 1) as u32
    }

    fn numbers(self) -> impl Iterator<Item = usize> {
        (0..self.count).map(move |i| self.first + i * self.stride)
    }
}

/// A stored tensor by the name that its `.weight` and `.bias` begin with.
#[derive(Clone, Copy)]
pub(super) struct Stored<'n> {
    pub(super) name: &'n str,
    /// Which rows; none for all.
    pub(super) slice: Option<Slice>,
    pub(super) order: Order,
    /// As [`Source::columns`].
    pub(super) columns: Order,
    /// Rows are stored as columns.
    pub(super) transposed: bool,
    pub(super) bias: bool,
    /// What is added to weights; not to biases.
    pub(super) plus: f32,
    /// As [`Source::depth`].
    pub(super) depth: u32,
    /// As [`TensorPlan::skipped`].
    pub(super) skipped: u32,
}

/// A stored weight without a bias.
pub(super) fn stored(name: &str) -> Stored<'_> {
    let (slice, order, columns) = (None, Order::Plain, Order::Plain);
    let (transposed, bias, plus, depth, skipped) = (false, false, 0.0, 0, 0);
    Stored { name, slice, order, columns, transposed, bias, plus, depth, skipped }
}

/// A stored weight with a bias.
pub(super) fn biased(name: &str) -> Stored<'_> {
    Stored { bias: true, ..stored(name) }
}

/// What a norm does besides.
#[derive(Clone, Copy)]
pub(super) struct NormOf {
    pub(super) kind: NormKind,
    pub(super) epsilon: f32,
    /// Width of the pieces that are normalized for themselves; 0 for the whole value.
    pub(super) group: u32,
}

/// What an attention looks at, and how.
#[derive(Clone, Copy, Default)]
pub(super) struct Attending<'n> {
    /// RoPE's.
    pub(super) angles: Option<&'n str>,
    /// What scores are multiplied with.
    pub(super) scale: f32,
    pub(super) mask: Mask,
    /// With a full mask, positions that are seen on either side; 0 for all.
    pub(super) reach: u32,
    /// Scores that were learned, or slopes.
    pub(super) head_scores: Option<&'n str>,
    /// What scores stay below; 0 for no bound.
    pub(super) cap: f32,
}

/// Experts, with what they are stored as: sources whose names are those in their layer.
#[derive(Clone, Default)]
pub(super) struct ExpertsOf {
    pub(super) experts: u32,
    /// Width of one.
    pub(super) wide: u32,
    pub(super) activation: Activation,
    /// Of each expert the gate's rows, then those of what it multiplies.
    pub(super) gate_up: Vec<Source>,
    pub(super) down: Vec<Source>,
    /// None of both for no biases.
    pub(super) gate_up_bias: Vec<Source>,
    pub(super) down_bias: Vec<Source>,
    /// What gates, and what they multiply, stay within; 0 for no limit.
    pub(super) limit: f32,
    /// What is added to what gates multiply.
    pub(super) up_plus: f32,
}

/// How tokens are sent to experts.
#[derive(Clone, Copy, Default)]
pub(super) struct Routing {
    pub(super) weights: Weights,
    /// What weights are multiplied with; 0 stands for 1.
    pub(super) factor: f32,
    /// What is added to scores for the choice, a value of a pass.
    pub(super) bias: Option<&'static str>,
    /// In how many groups experts lie, and of how many a token's are chosen; 0 for no groups.
    pub(super) groups: [u32; 2],
    /// Groups are chosen by their best expert, not by their best two.
    pub(super) by_best: bool,
    /// What weights are multiplied with besides, a value of a pass.
    pub(super) factors: Option<&'static str>,
}

/// Some values of the graph, by name.
pub(super) fn all(name: &str) -> ValueRef {
    ValueRef::all(name)
}

impl Builder {
    /// A graph for a vocabulary and a context.
    pub(super) fn new(vocab_size: u32, context_length: u32) -> Self {
        let graph = Graph { format: FORMAT, vocab_size, context_length, ..Graph::default() };
        let (nodes, place, prefix) = (vec![], Place::Outside, "");
        let (head, layers, tail) = (vec![], vec![], vec![]);
        let (owners, unrolled, longer) = (BTreeMap::new(), false, None);
        Self { graph, nodes, place, prefix, head, layers, tail, owners, unrolled, longer }
    }

    /// Lets texts be no longer than this, but where these frequencies of the tensor stand in for others.
    pub(super) fn limit_context(&mut self, positions: u32, tensor: &str, frequencies: Vec<f32>) {
        let context_length = &mut self.graph.context_length;
        let longest = self.longer.as_ref().map_or(*context_length, |longer| longer.context_length);
        if positions < longest {
            let longer = Longer { context_length: longest, frequencies: BTreeMap::new() };
            let longer = self.longer.get_or_insert(longer);
            longer.frequencies.insert(tensor.to_owned(), frequencies);
            *context_length = positions.min(*context_length);
        }
    }

    /// Declares values: names, and floats a token.
    pub(super) fn values<const N: usize>(&mut self, values: [(&str, u32); N]) {
        self.declare(values, Per::Token);
    }

    /// Declares values of the tokens whose logits are wanted.
    pub(super) fn selected_values<const N: usize>(&mut self, values: [(&str, u32); N]) {
        self.declare(values, Per::Output);
    }

    fn declare<const N: usize>(&mut self, values: [(&str, u32); N], per: Per) {
        let shape = |width| ValueShape { width, per, ..ValueShape::default() };
        self.graph.values.extend(values.map(|(name, width)| (name.to_owned(), shape(width))));
    }

    /// Draws the layers, which are of these kinds. As many layers as come again and again are one
    /// block. Stored tensors of a layer begin with `prefix`, a dot, the layer's number and a dot.
    pub(super) fn layers<K: PartialEq>(
        &mut self,
        kinds: &[K],
        prefix: &'static str,
        mut layer: impl FnMut(&mut Self, &K),
    ) {
        self.prefix = prefix;
        self.layers.resize_with(kinds.len(), Vec::new);
        let (first, period) = if self.unrolled { (0, kinds.len()) } else { repetition(kinds) };
        let times = (kinds.len() - first) / period.max(1);
        self.block(kinds, 0..first, 1, &mut layer);
        let outside = mem::take(&mut self.nodes);
        self.block(kinds, first..first + period, times, &mut layer);
        let block = mem::replace(&mut self.nodes, outside);
        self.graph.subgraphs.insert("block".into(), block);
        self.nodes.push(Node::Repeat { subgraph: "block".into(), layers: times as u32 });
        self.block(kinds, first + times * period..kinds.len(), 1, &mut layer);
    }

    /// The number of the layer that is drawn, or of the first of those that are drawn at once.
    pub(super) fn layer(&self) -> u32 {
        match self.place {
            Place::Outside => 0,
            Place::Layers { number, .. } => number.first as u32,
        }
    }

    /// Draws these layers, which come again so many times.
    fn block<K: PartialEq>(
        &mut self,
        kinds: &[K],
        layers: std::ops::Range<usize>,
        count: usize,
        layer: &mut impl FnMut(&mut Self, &K),
    ) {
        let stride = layers.len();
        for number in layers.clone() {
            let kind = &kinds[number];
            let of_kind = |layers: &[K]| layers.iter().filter(|other| *other == kind).count();
            let first = of_kind(&kinds[..number]);
            let among = Series { first, stride: of_kind(&kinds[layers.clone()]), count };
            let number = Series { first: number, stride, count };
            let first = kinds.iter().position(|other| other == kind).unwrap_or(number.first);
            self.place = Place::Layers { number, of_kind: among, first };
            layer(self, kind);
        }
        self.place = Place::Outside;
    }

    /// RoPE's angles, from frequencies that get this name.
    pub(super) fn angles(&mut self, name: &str, frequencies: Vec<f32>, scale: f32, output: &str) {
        let output = self.declared(output, 4 * frequencies.len() as u32);
        self.head.push(TensorPlan {
            name: name.into(),
            role: Role::Vector,
            rows: 1,
            columns: frequencies.len() as u32,
            data: Data::Computed(frequencies),
            skipped: 0,
        });
        self.push(Angles { frequencies: name.into(), output, scale });
    }

    /// Declares a value of a token, and is all of it.
    fn declared(&mut self, name: &str, width: u32) -> ValueRef {
        self.values([(name, width)]);
        all(name)
    }

    /// Rows of the embedding, which [`Self::logits`] plans.
    pub(super) fn embed(&mut self, output: &str) {
        let output = all(output);
        let (weight, index, offset) = (EMBEDDING.to_owned(), Index::Token, 0);
        self.push(Embed { weight, output, index, offset, accumulate: false });
    }

    /// Rows of a matrix that other things than tokens choose, added to `output`.
    pub(super) fn embed_onto(
        &mut self,
        name: &str,
        from: Stored<'_>,
        rows: u32,
        (index, offset): (Index, u32),
        output: &str,
    ) {
        let output = all(output);
        let shape = [rows, self.width(&output)];
        let weight = self.plan(name, Role::Outer, from, shape);
        self.push(Embed { weight, output, index, offset, accumulate: true });
    }

    /// A small matrix as a value that a pass has one of, row after row.
    pub(super) fn constant(&mut self, name: &str, from: Stored<'_>, shape: [u32; 2], output: &str) {
        self.declare([(output, shape[0] * shape[1])], Per::Pass);
        let weight = self.plan(name, Role::Vector, from, shape);
        self.push(Constant { weight, output: all(output) });
    }

    /// The same, of numbers of several tensors.
    pub(super) fn constants(&mut self, name: &str, from: &[Source], output: &str) -> ValueRef {
        let width = from.iter().map(|source| source.shape[0] * source.shape[1]).sum();
        self.declare([(output, width)], Per::Pass);
        let (weight, output) = (self.stack(name, Role::Vector, from), all(output));
        self.push(Constant { weight, output: output.clone() });
        output
    }

    /// Numbers that follow from the hyperparameters as a value that a pass has one of.
    pub(super) fn computed(&mut self, name: &str, numbers: Vec<f32>, output: &str) {
        self.declare([(output, numbers.len() as u32)], Per::Pass);
        let (weight, output) = (self.plan_computed(name, numbers), all(output));
        self.push(Constant { weight, output });
    }

    /// A norm of `input` into `output`, which may be the same.
    pub(super) fn norm(&mut self, name: &str, from: Stored<'_>, of: NormOf, io: [&ValueRef; 2]) {
        let [input, output] = io.map(Clone::clone);
        let columns = if of.group == 0 { self.width(&input) } else { of.group };
        let weight = self.plan(name, Role::Vector, from, [1, columns]);
        let bias = self.bias(name, from, columns);
        let NormOf { kind, epsilon, group } = of;
        self.push(Norm { weight, bias, input, output, epsilon, kind, group });
    }

    /// The same of pieces, with weights for each of their own: rows of a stored tensor.
    pub(super) fn piecewise_norm(
        &mut self,
        name: &str,
        from: Source,
        of: NormOf,
        io: [&ValueRef; 2],
    ) {
        let [input, output] = io.map(Clone::clone);
        let weight = self.stack(name, Role::Vector, &[from]);
        let NormOf { kind, epsilon, group } = of;
        self.push(Norm { weight, bias: None, input, output, epsilon, kind, group });
    }

    /// The same, with weights of this very name.
    pub(super) fn named_norm(&mut self, name: &str, from: &str, of: NormOf, io: [&ValueRef; 2]) {
        let [input, output] = io.map(Clone::clone);
        let weight = self.plan_whole(name, Role::Vector, stored(from), [1, self.width(&input)]);
        let NormOf { kind, epsilon, group } = of;
        self.push(Norm { weight, bias: None, input, output, epsilon, kind, group });
    }

    /// The same, without weights.
    pub(super) fn plain_norm(&mut self, name: &str, of: NormOf, io: [&ValueRef; 2]) {
        let [input, output] = io.map(Clone::clone);
        let columns = if of.group == 0 { self.width(&input) } else { of.group };
        let weight = self.plan_computed(name, vec![1.0; columns as usize]);
        let NormOf { kind, epsilon, group } = of;
        self.push(Norm { weight, bias: None, input, output, epsilon, kind, group });
    }

    /// A matrix times activations.
    pub(super) fn linear(&mut self, name: &str, from: Stored<'_>, input: &str, output: &ValueRef) {
        self.product(name, from, &all(input), output, false);
    }

    /// The same, added to what the output holds.
    pub(super) fn linear_onto(&mut self, name: &str, from: Stored<'_>, input: &str, output: &str) {
        self.product(name, from, &all(input), &all(output), true);
    }

    /// The same, of some numbers of a value.
    pub(super) fn linear_of(
        &mut self,
        name: &str,
        from: Stored<'_>,
        input: &ValueRef,
        output: &ValueRef,
    ) {
        self.product(name, from, input, output, false);
    }

    fn product(
        &mut self,
        name: &str,
        from: Stored<'_>,
        input: &ValueRef,
        output: &ValueRef,
        accumulate: bool,
    ) {
        let (input, output) = (input.clone(), output.clone());
        let shape = [self.width(&output), self.width(&input)];
        let bias = self.bias(name, from, shape[0]);
        let weight = self.plan(name, Role::Matrix, from, shape);
        self.push(Linear { bias, weight, input, output, accumulate });
    }

    /// RoPE on heads, in place.
    pub(super) fn rotary(&mut self, angles: &str, value: &ValueRef, head_width: u32) {
        let (angles, value, pairing) = (all(angles), value.clone(), Pairing::Halves);
        self.push(Rotary { angles, value, head_width, pairing });
    }

    /// A KV cache for each layer of this kind: what the graph calls the layer's.
    pub(super) fn cache(&mut self, name: &str, heads: u32, width: u32, window: u32) -> String {
        self.state(name, |count| StateShape::Kv { count, heads, width, window })
    }

    /// Floats that each layer of this kind keeps: what the graph calls the layer's.
    fn floats(&mut self, name: &str, floats: u32) -> String {
        self.state(name, |count| StateShape::Bytes { count, bytes: 4 * floats })
    }

    /// A state for each layer of this kind: what the graph calls the layer's. Where another kind has
    /// states of this name, theirs get a number.
    fn state(&mut self, name: &str, shape: impl Fn(u32) -> StateShape) -> String {
        let Place::Layers { of_kind, first, .. } = self.place else {
            self.graph.states.insert(name.to_owned(), shape(1));
            return format!("{name}[0]");
        };
        let mut own = name.to_owned();
        if *self.owners.entry(own.clone()).or_insert(first) != first {
            own = format!("{name}_{first}");
        }
        self.graph.states.insert(own.clone(), shape(of_kind.end()));
        format!("{own}[{}]", of_kind.expression())
    }

    /// A causal convolution of each number with its past.
    pub(super) fn short_conv(
        &mut self,
        name: &str,
        from: Stored<'_>,
        taps: u32,
        [input, output]: [&ValueRef; 2],
    ) {
        let (input, output) = (input.clone(), output.clone());
        let width = self.width(&input);
        let state = self.floats("conv", (taps - 1) * width);
        let bias = self.bias(name, from, width);
        let from = Stored { transposed: true, depth: width, ..from };
        let weight = self.plan(name, Role::Vector, from, [taps, width]);
        self.push(ShortConv { state, weight, bias, input, output, taps });
    }

    /// Vectors [heads] by which so long time steps become what is left of states.
    pub(super) fn decay(
        &mut self,
        [a_log, dt_bias]: [Stored<'_>; 2],
        dt: &ValueRef,
        [least, most]: [f32; 2],
        decay: &str,
    ) {
        let heads = self.width(dt);
        let mut vector =
            |name: &str, from: Stored<'_>| self.plan_whole(name, Role::Vector, from, [1, heads]);
        let a_log = vector("memory.a_log", a_log);
        let dt_bias = vector("memory.dt_bias", dt_bias);
        self.push(Decay { a_log, dt_bias, dt: dt.clone(), decay: all(decay), least, most });
    }

    /// Attention to what the matrices of heads hold. `skip` is the name of a vector [heads].
    pub(super) fn linear_attention(
        &mut self,
        groups: u32,
        delta: bool,
        skip: Option<&str>,
        [query, key, value, decay, rate]: [&ValueRef; 5],
        output: &str,
    ) {
        let heads = self.width(decay);
        let shape = [heads, self.width(key) / groups, self.width(value) / heads];
        let state = self.floats("memory", LinearAttention::state_floats(shape) as u32);
        let skip =
            skip.map(|from| self.plan_whole("memory.skip", Role::Vector, stored(from), [1, heads]));
        let [query, key, value, decay, rate] =
            [query, key, value, decay, rate].map(ValueRef::clone);
        let output = all(output);
        self.push(LinearAttention {
            state,
            skip,
            query,
            key,
            value,
            decay,
            rate,
            output,
            groups,
            delta,
        });
    }

    /// Pieces of a value, of this width, at this length each; `epsilon` is added to the sum of their squares.
    pub(super) fn unit_norm(
        &mut self,
        name: &str,
        value: &ValueRef,
        group: u32,
        [length, epsilon]: [f32; 2],
    ) {
        let factors = vec![length / (group as f32).sqrt(); group as usize];
        let weight = self.plan_computed(name, factors);
        let (input, output) = (value.clone(), value.clone());
        let epsilon = epsilon / group as f32;
        self.push(Norm { weight, bias: None, input, output, epsilon, kind: NormKind::Rms, group });
    }

    /// Stores keys and values, and attends to them.
    pub(super) fn attention(
        &mut self,
        state: &str,
        [query, key, value]: [&ValueRef; 3],
        angles: Option<&str>,
        scale: f32,
        output: &str,
    ) {
        let of = Attending { angles, scale, ..Attending::default() };
        self.attention_of(state, [query, key, value], of, output);
    }

    /// The same, of some kind.
    pub(super) fn attention_of(
        &mut self,
        state: &str,
        [query, key, value]: [&ValueRef; 3],
        of: Attending<'_>,
        output: &str,
    ) {
        let (key, value) = (key.clone(), value.clone());
        self.push(Store { state: state.to_owned(), key, value });
        self.attend(state, query, of, output);
    }

    /// Attends to what a cache holds already.
    pub(super) fn attend(
        &mut self,
        state: &str,
        query: &ValueRef,
        of: Attending<'_>,
        output: &str,
    ) {
        let Attending { angles, scale, mask, reach, head_scores, cap } = of;
        self.push(Attend {
            state: state.to_owned(),
            query: query.clone(),
            angles: angles.map(all),
            output: all(output),
            scale,
            pairing: Pairing::Halves,
            mask,
            reach,
            head_scores: head_scores.map(all),
            cap,
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
        self.push(Gated { activation, gate, up, output });
    }

    /// Sends tokens to those of the experts that score highest.
    pub(super) fn route(&mut self, scores: &str, of: Routing, output: &str) {
        let Routing { weights, factor, bias, groups: [groups, kept_groups], factors, by_best } = of;
        let (input, output) = (all(scores), all(output));
        let [bias, factors] = [bias, factors].map(|value| value.map(all));
        self.push(Route {
            input,
            output,
            weights,
            factor,
            bias,
            groups,
            kept_groups,
            factors,
            by_best,
        });
    }

    /// What the experts that `route` names make of `input`, added to `output`. Tensors and values get
    /// names that begin with `name`.
    pub(super) fn experts(
        &mut self,
        name: &str,
        of: &ExpertsOf,
        [input, route, output]: [&str; 3],
    ) {
        let [input, route, output] = [input, route, output].map(all);
        let ExpertsOf { experts, wide, activation, limit, up_plus, .. } = *of;
        let hidden = self.width(&input);
        let widths = [("gathered", hidden), ("gate_up", 2 * wide), ("gated", wide)];
        let [gathered, gate_up, gated] =
            widths.map(|(value, width)| self.declared(&format!("{name}_{value}"), width));
        let [gate_up_bias, down_bias] =
            [("gate_up_bias", &of.gate_up_bias), ("down_bias", &of.down_bias)].map(
                |(part, from)| {
                    let output = format!("{name}_{part}");
                    let stored = (!from.is_empty()).then_some(from);
                    stored.map(|from| self.constants(&format!("{name}.{part}"), from, &output))
                },
            );
        let op = Experts {
            gate_up: self.stack(&format!("{name}.gate_up"), Role::Experts, &of.gate_up),
            down: self.stack(&format!("{name}.down"), Role::Experts, &of.down),
            experts,
            activation,
            input,
            route,
            gathered,
            wide: gate_up,
            gated,
            output,
            gate_up_bias,
            down_bias,
            limit,
            up_plus,
        };
        self.push(op);
    }

    /// The activation of a value, in place.
    pub(super) fn activate(&mut self, activation: Activation, value: &ValueRef) {
        self.push(Activate { activation, value: value.clone() });
    }

    /// `output` += `input`.
    pub(super) fn add(&mut self, input: &str, output: &str) {
        self.push(Add { input: all(input), output: all(output) });
    }

    /// `value` *= `factor`.
    pub(super) fn scale(&mut self, value: &str, factor: f32) {
        self.push(Scale { value: all(value), factor, by: None });
    }

    /// `value` *= `by`, a value of a pass.
    pub(super) fn scale_by(&mut self, value: &str, by: &str) {
        self.push(Scale { value: all(value), factor: 1.0, by: Some(all(by)) });
    }

    /// `value` = `cap` · tanh(`value` / `cap`).
    pub(super) fn soft_cap(&mut self, value: &str, cap: f32) {
        self.push(SoftCap { value: all(value), cap });
    }

    /// Keeps the tokens whose logits are wanted.
    pub(super) fn select(&mut self, input: &str, output: &str) {
        self.push(Select { input: all(input), output: all(output) });
    }

    /// Gives out a value under a name.
    pub(super) fn output(&mut self, name: &str, value: &str) {
        self.graph.outputs.push(Port { name: name.into(), ..Port::of(value) });
    }

    /// Plans the embedding at the end of the weights.
    pub(super) fn embedding(&mut self, from: &str) -> String {
        let embedded = self.nodes.iter().find_map(|node| match node {
            Node::Embed(op) if op.weight == EMBEDDING => Some(op.output.clone()),
            _ => None,
        });
        let width = embedded.map_or(0, |output| self.width(&output));
        let shape = [self.graph.vocab_size, width];
        self.plan(EMBEDDING, Role::Outer, stored(from), shape)
    }

    /// Logits, from the embedding again, or from a matrix of its own behind it.
    pub(super) fn logits(
        &mut self,
        embedding: &str,
        output: Option<&str>,
        bias: Option<&str>,
        input: &str,
    ) {
        let shape = [self.graph.vocab_size, self.width(&all(input))];
        let bias = bias.and_then(|from| self.bias("output", biased(from), shape[0]));
        let mut weight = self.embedding(embedding);
        if let Some(output) = output {
            weight = self.plan("output", Role::Outer, stored(output), shape);
        }
        let (input, output) = (all(input), all(LOGITS));
        self.push(Linear { bias, weight, input, output, accumulate: false });
        self.output(LOGITS, LOGITS);
    }

    /// Scores of classes, which are given out.
    pub(super) fn classes(&mut self, from: Stored<'_>, count: u32, input: &str) {
        self.selected_values([(CLASSES, count)]);
        let bias = self.bias("classifier", from, count);
        let shape = [count, self.width(&all(input))];
        let weight = self.plan("classifier", Role::Outer, from, shape);
        let (input, output) = (all(input), all(CLASSES));
        self.push(Linear { bias, weight, input, output, accumulate: false });
        self.output(CLASSES, CLASSES);
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
        let mut files = self.layers;
        files.push(self.tail);
        if let Some(first) = files.first_mut() {
            first.splice(..0, self.head);
        }
        let (aside, hyperparameters) = (vec![], Fields::new());
        let longer = self.longer;
        Blueprint { family, sizes, graph, files, bos, eos, derived, aside, hyperparameters, longer }
    }

    /// Floats a token of a value.
    pub(super) fn width(&self, value: &ValueRef) -> u32 {
        match value.rows {
            Some((first, end)) => end - first,
            None => self.graph.values.get(&value.name).map_or(0, |shape| shape.width),
        }
    }

    pub(super) fn push(&mut self, node: impl Into<Node>) {
        self.nodes.push(node.into());
    }

    fn bias(&mut self, name: &str, from: Stored<'_>, columns: u32) -> Option<String> {
        // A bias has an order of rows, but no columns to be transposed with.
        let plain =
            Stored { plus: 0.0, depth: 0, transposed: false, columns: Order::Plain, ..from };
        let plan = from.bias.then_some(plain);
        let name = format!("{name}_bias");
        plan.map(|from| self.plan_part(&name, Role::Vector, "bias", from, [1, columns]))
    }

    /// Plans numbers that follow from the hyperparameters.
    fn plan_computed(&mut self, name: &str, numbers: Vec<f32>) -> String {
        let plan = |name: String, _| {
            let columns = numbers.len() as u32;
            let data = Data::Computed(numbers.clone());
            TensorPlan { name, role: Role::Vector, rows: 1, columns, data, skipped: 0 }
        };
        self.place_plan(name, Role::Vector, plan)
    }

    /// Plans stored tensors, which are called so in their layer, as one: matrices one below the other.
    fn stack(&mut self, name: &str, role: Role, from: &[Source]) -> String {
        let plan = |name: String, place: String| {
            let source = |source: &Source| {
                let tensor = format!("{place}{}", source.tensor);
                Source { tensor, ..source.clone() }
            };
            let rows = from.iter().map(|source| source.shape[0]).sum::<u32>();
            let columns = from.first().map_or(0, |source| source.shape[1]);
            let [rows, columns] =
                if role == Role::Vector { [1, rows * columns] } else { [rows, columns] };
            let data = Data::Stored(from.iter().map(source).collect());
            TensorPlan { name, role, rows, columns, data, skipped: 0 }
        };
        self.place_plan(name, role, plan)
    }

    fn plan(&mut self, name: &str, role: Role, from: Stored<'_>, shape: [u32; 2]) -> String {
        self.plan_part(name, role, "weight", from, shape)
    }

    /// Plans the tensor whose stored name ends with `part`.
    fn plan_part(
        &mut self,
        name: &str,
        role: Role,
        part: &str,
        from: Stored<'_>,
        shape: [u32; 2],
    ) -> String {
        let whole = format!("{}.{part}", from.name);
        self.plan_whole(name, role, Stored { name: &whole, ..from }, shape)
    }

    /// Plans the tensor of this very name.
    fn plan_whole(&mut self, name: &str, role: Role, from: Stored<'_>, shape: [u32; 2]) -> String {
        let Stored { slice, order, columns: inner, transposed, plus, depth, skipped, .. } = from;
        let plan = |name: String, place: String| {
            let tensor = format!("{place}{}", from.name);
            let negated_exponential = false;
            let source = Source {
                tensor,
                shape,
                slice,
                order,
                columns: inner,
                transposed,
                plus,
                negated_exponential,
                depth,
            };
            let data = Data::Stored(vec![source]);
            let [rows, columns] =
                if role == Role::Vector { [1, shape[0] * shape[1]] } else { shape };
            TensorPlan { name, role, rows, columns, data, skipped }
        };
        self.place_plan(name, role, plan)
    }

    /// Plans a tensor in the files of the layers that are drawn, or in the last, and says what the
    /// graph calls it. `plan` is told its name, and what names of stored tensors begin with.
    fn place_plan(
        &mut self,
        name: &str,
        role: Role,
        plan: impl Fn(String, String) -> TensorPlan,
    ) -> String {
        let Place::Layers { number, .. } = self.place else {
            // What is read before the layers lies before them, but for matrices of which some rows
            // are read.
            let before = self.layers.is_empty() && role != Role::Outer;
            let file = if before { &mut self.head } else { &mut self.tail };
            file.push(plan(name.to_owned(), String::new()));
            return name.to_owned();
        };
        for layer in number.numbers() {
            if let Some(file) = self.layers.get_mut(layer) {
                let place = format!("{}.{layer}.", self.prefix);
                file.push(plan(format!("layers.{layer}.{name}"), place));
            }
        }
        format!("layers.{}.{name}", number.expression())
    }
}

/// The most layers before those that come again.
const MOST_BEFORE: usize = 8;

/// The first layer, and how many of them from there on, that come again until the end: so that the
/// fewest are drawn.
fn repetition<K: PartialEq>(kinds: &[K]) -> (usize, usize) {
    let drawn =
        |(first, period): &(usize, usize)| first + period + (kinds.len() - first) % period.max(&1);
    let all = 0..kinds.len().clamp(1, MOST_BEFORE + 1);
    all.map(|first| (first, period(&kinds[first..]))).min_by_key(drawn).unwrap_or_default()
}

/// After how many layers the kinds come again, all of them at least twice; or else all layers.
fn period<K: PartialEq>(kinds: &[K]) -> usize {
    let repeats = |period: &usize| {
        let whole = kinds.len() / period * period;
        (0..whole).all(|i| kinds[i] == kinds[i % period])
    };
    (1..=kinds.len() / 2).find(repeats).unwrap_or(kinds.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_come_again_are_found() {
        assert_eq!(period(&[1; 5]), 1);
        assert_eq!(period(&[1]), 1);
        assert_eq!(period(&[1, 1, 2, 1, 1, 2, 1]), 3);
        assert_eq!(period(&[1, 1, 2, 1]), 4);
        assert_eq!(period::<u32>(&[]), 0);
        assert_eq!(repetition(&[1, 1, 2, 2, 2]), (2, 1));
        assert_eq!(repetition(&[1, 1, 2, 1, 1, 2, 1]), (0, 3));
        assert_eq!(repetition::<u32>(&[]), (0, 0));
    }

    #[test]
    fn names_in_a_block_say_which_layer_and_which_of_its_kind() {
        let mut graph = Builder::new(8, 8);
        graph.values([("x", 4)]);
        let of = NormOf { kind: NormKind::Rms, epsilon: 0.0, group: 0 };
        let kinds = ["local", "local", "global", "local", "local", "global", "local"];
        let mut caches = vec![];
        graph.layers(&kinds, "model.layers", |graph, kind| {
            caches.push(graph.cache(kind, 1, 4, 0));
            graph.norm("norm", stored("n"), of, [&all("x"), &all("x")]);
        });
        let expected = ["local[{2*layer}]", "local[{2*layer+1}]", "global[{layer}]", "local[4]"];
        assert_eq!(caches, expected);
        let blueprint = graph.finish("test", Sizes::default(), (None, vec![]), vec![]);
        let weights = |nodes: &[Node]| nodes.iter().flat_map(Node::weights).collect::<Vec<_>>();
        let block = &blueprint.graph.subgraphs["block"];
        let expected = ["{3*layer}", "{3*layer+1}", "{3*layer+2}"];
        assert_eq!(weights(block), expected.map(|layer| format!("layers.{layer}.norm")));
        assert_eq!(weights(&blueprint.graph.nodes), ["layers.6.norm"]);
        let count = |name: &str| blueprint.graph.states[name].count();
        assert_eq!((count("local"), count("global")), (5, 2));
        let stored: Vec<_> = blueprint.tensors().map(|t| t.sources()[0].tensor.clone()).collect();
        assert_eq!(stored[5], "model.layers.5.n.weight");
        assert_eq!(blueprint.files.len(), 8);
    }
}

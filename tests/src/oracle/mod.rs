//! Programs that nobody thought of, and whether the engine computes what a naive player computes.

use crate::{Naive, Random};
use omex::compile::compile;
use omex::graph::{
    FORMAT, Graph, LOGITS, Names, Node, PartShape, Port, StateShape, ValueRef, ValueShape,
};
use omex::pool::Pool;
use omex::quantize::{quantize, write_panel};
use omex_core::arena::Plan;
use omex_core::engine::{Engine, Model};
use omex_core::ops::{
    Activate, Activation, Add, Angles, Attend, Delta, Embed, Gated, Index, Linear, Mask, Norm,
    NormKind, Pairing, Rotary, Scale, Select, ShortConv, SoftCap, Store,
};
use omex_core::pass::Input;
use omex_core::program::{PartKind, Per, Program, Tensor};
use omex_core::quant::{Format, GROUP, PANEL};
use omex_core::simd::{Kernels, PORTABLE};
use omex_core::state::kv::KvFormat;
use omex_hal::{Parallel, Serial};
use omex_hal_adapters::SlicePager;
use std::collections::BTreeMap;
use zerocopy::IntoBytes;

/// Random numbers, each of which takes some of the choices, as long as there are any.
struct Choices<'c> {
    random: Random,
    choices: &'c [u8],
}

impl<'c> Choices<'c> {
    fn new(choices: &'c [u8]) -> Self {
        let mut new = Self { random: Random(0), choices };
        new.random.0 = new.choice();
        new
    }

    /// The next eight bytes, with zeros behind the last.
    fn choice(&mut self) -> u64 {
        let (taken, rest) = self.choices.split_at(self.choices.len().min(8));
        self.choices = rest;
        let mut bytes = [0; 8];
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    fn next(&mut self) -> u64 {
        let choice = self.choice();
        self.random.draw_with(choice)
    }

    fn below(&mut self, limit: u32) -> u32 {
        (self.next() % u64::from(limit)) as u32
    }

    fn between(&mut self, least: u32, most: u32) -> u32 {
        least + self.below(most - least + 1)
    }

    fn chance(&mut self, of: u32) -> bool {
        self.below(of) == 0
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u32) as usize]
    }

    /// From -1 to 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

const ACTIVATIONS: [Activation; 7] = [
    Activation::Identity,
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Tanh,
    Activation::Sigmoid,
];

/// A program that is being made up.
struct Maker<'c> {
    random: Choices<'c>,
    graph: Graph,
    nodes: Vec<Node>,
    /// Formats that its matrices may have.
    formats: &'static [Format],
    /// The layers of the block at hand.
    layers: u32,
    weights: Vec<u8>,
    tensors: BTreeMap<(String, u32), Tensor>,
    mask: Mask,
    number: u32,
}

impl Maker<'_> {
    fn name(&mut self, what: &str) -> String {
        self.number += 1;
        format!("{what}{}", self.number)
    }

    fn value(&mut self, width: u32) -> ValueRef {
        let name = self.name("v");
        self.graph.values.insert(name.clone(), ValueShape { width, ..ValueShape::default() });
        ValueRef::all(&name)
    }

    fn push(&mut self, node: impl Into<Node>) {
        self.nodes.push(node.into());
    }

    /// A tensor for each layer; what the graph calls it.
    fn tensor(
        &mut self,
        format: Format,
        rows: u32,
        columns: u32,
        around: f32,
        plane: u32,
    ) -> String {
        let name = self.name("w");
        let layered = self.layers > 1;
        for layer in 0..self.layers {
            let name = if layered { format!("{name}.{layer}") } else { name.clone() };
            for plane in 0..=plane {
                let size = if plane == 0 { 1.0 } else { 0.05 };
                self.store_tensor((name.clone(), plane), format, [rows, columns], around, size);
            }
        }
        if layered { format!("{name}.{{layer}}") } else { name }
    }

    fn store_tensor(
        &mut self,
        key: (String, u32),
        format: Format,
        [rows, columns]: [u32; 2],
        around: f32,
        size: f32,
    ) {
        while !self.weights.len().is_multiple_of(4) || self.random.chance(3) {
            self.weights.push(0);
        }
        let address = self.weights.len() as u64;
        let scale =
            if format == Format::Vector { 0.3 } else { size * (3.0 / columns as f32).sqrt() };
        let mut numbers = || around + scale * self.random.unit();
        if format == Format::Vector {
            let bytes: Vec<u8> = (0..columns).flat_map(|_| numbers().to_le_bytes()).collect();
            self.weights.extend(bytes);
        } else {
            let row: Vec<Vec<f32>> =
                (0..rows).map(|_| (0..columns).map(|_| numbers()).collect()).collect();
            for panel in row.chunks(PANEL) {
                let groups = |row: &Vec<f32>| {
                    let group = |chunk: &[f32]| {
                        let mut group = [0.0; GROUP];
                        group[..chunk.len()].copy_from_slice(chunk);
                        quantize(format, &group)
                    };
                    row.chunks(GROUP).map(group).collect::<Vec<_>>()
                };
                let panel: Vec<_> = panel.iter().map(groups).collect();
                write_panel(format, &panel, &mut self.weights);
            }
        }
        self.tensors.insert(key, Tensor { format, rows, columns, address });
    }

    fn vector(&mut self, length: u32, around: f32) -> String {
        self.tensor(Format::Vector, 1, length, around, 0)
    }

    fn linear(
        &mut self,
        input: &ValueRef,
        [from, to]: [u32; 2],
        output: &ValueRef,
        accumulate: bool,
    ) {
        let bias = if self.random.chance(3) { Some(self.vector(to, 0.0)) } else { None };
        let format = self.random.pick(self.formats);
        let plane = u32::from(self.random.chance(5) && format == Format::Int4);
        let weight = self.tensor(format, to, from, 0.0, plane);
        let (input, output) = (input.clone(), output.clone());
        let (of, to_change) = (input.clone(), output.clone());
        self.push(Linear::<Names> { bias, weight, input, output, accumulate });
        while !self.graph.parts.is_empty() && self.random.chance(3) {
            self.delta(&of, [from, to], &to_change);
        }
    }

    /// A low-rank change of a product: of an adapter, of a part that is always played, or of none.
    fn delta(&mut self, input: &ValueRef, [from, to]: [u32; 2], output: &ValueRef) {
        let rank = self.random.between(1, 5);
        let part = self.random.pick(&[Some(ADAPTERS[0]), Some(ADAPTERS[1]), Some("lasting"), None]);
        let format = self.random.pick(self.formats);
        let (down, up) =
            (self.tensor(format, rank, from, 0.0, 0), self.tensor(format, to, rank, 0.0, 0));
        let per = self.graph.values[&output.name].per;
        let mut room = |width| {
            let value = self.value(width);
            self.graph.values.get_mut(&value.name).unwrap().per = per;
            value
        };
        let (gathered, low, result) = (room(from), room(rank), room(to));
        let (input, output, part) = (input.clone(), output.clone(), part.map(str::to_owned));
        let scale = 0.4;
        self.push(Delta::<Names> { down, up, scale, input, gathered, low, result, output, part });
    }

    fn norm(&mut self, input: &ValueRef, output: &ValueRef, piece: u32, group: u32) {
        let kind = self.random.pick(&[NormKind::Rms, NormKind::Layer]);
        let weight = self.vector(piece, 1.0);
        let bias = if self.random.chance(2) { Some(self.vector(piece, 0.0)) } else { None };
        let (input, output) = (input.clone(), output.clone());
        self.push(Norm::<Names> { weight, bias, input, output, epsilon: EPSILON, kind, group });
    }

    fn attention(&mut self, residual: &ValueRef, width: u32) {
        let head = 2 * self.random.between(1, 9);
        let (kv, group) = (self.random.between(1, 3), self.random.between(1, 3));
        let rotated = 2 * self.random.between(1, head / 2);
        let window = if self.mask == Mask::Causal && self.random.chance(2) {
            self.random.between(1, 9)
        } else {
            0
        };
        let pairing = self.random.pick(&[Pairing::Halves, Pairing::Neighbours]);
        let (normed, attended) = (self.value(width), self.value(kv * group * head));
        let (query, key, value) =
            (self.value(kv * group * head), self.value(kv * head), self.value(kv * head));
        self.norm(residual, &normed, width, 0);
        self.linear(&normed, [width, kv * group * head], &query, false);
        self.linear(&normed, [width, kv * head], &key, false);
        self.linear(&normed, [width, kv * head], &value, false);
        if self.random.chance(3) {
            self.norm(&query.clone(), &query, head, head);
        }
        let angles = if self.random.chance(4) { None } else { Some(self.value(2 * rotated)) };
        if let Some(angles) = &angles {
            let frequencies = self.vector(rotated / 2, 0.5);
            let scale = self.random.pick(&[0.0, 1.2]);
            self.push(Angles::<Names> { frequencies, output: angles.clone(), scale });
            for value in [&query, &key] {
                let (angles, value) = (angles.clone(), value.clone());
                self.push(Rotary::<Names> { angles, value, head_width: head, pairing });
            }
        }
        let name = self.name("kv");
        let cache = StateShape::Kv { count: self.layers, heads: kv, width: head, window };
        self.graph.states.insert(name.clone(), cache);
        let state = if self.layers > 1 { format!("{name}[{{layer}}]") } else { name };
        self.push(Store::<Names> { state: state.clone(), key, value });
        let (scale, mask, output) = (1.0 / (head as f32).sqrt(), self.mask, attended.clone());
        self.push(Attend::<Names> { state, query, angles, output, scale, pairing, mask });
        self.add_to(residual, &attended, [kv * group * head, width]);
    }

    fn feed_forward(&mut self, residual: &ValueRef, width: u32) {
        let wide = self.random.between(3, 40);
        let (normed, up) = (self.value(width), self.value(wide));
        self.norm(residual, &normed, width, 0);
        self.linear(&normed, [width, wide], &up, false);
        let activation = self.random.pick(&ACTIVATIONS);
        let mut hidden = up.clone();
        if self.random.chance(2) {
            let gate = self.value(wide);
            hidden = self.value(wide);
            self.linear(&normed, [width, wide], &gate, false);
            self.push(Gated::<Names> { activation, gate, up, output: hidden.clone() });
        } else {
            self.push(Activate::<Names> { activation, value: up });
        }
        self.add_to(residual, &hidden, [wide, width]);
    }

    fn convolution(&mut self, residual: &ValueRef, width: u32) {
        let taps = self.random.between(2, 5);
        let (normed, convolved) = (self.value(width), self.value(width));
        self.norm(residual, &normed, width, 0);
        let name = self.name("conv");
        let bytes = 4 * (taps - 1) * width;
        self.graph.states.insert(name.clone(), StateShape::Bytes { count: self.layers, bytes });
        let state = if self.layers > 1 { format!("{name}[{{layer}}]") } else { name };
        let weight = self.vector(taps * width, 0.1);
        let output = convolved.clone();
        self.push(ShortConv::<Names> { state, weight, input: normed, output, taps });
        self.add_to(residual, &convolved, [width, width]);
    }

    /// A product added to the residual stream, at once or by way of some operations.
    fn add_to(&mut self, residual: &ValueRef, input: &ValueRef, shape: [u32; 2]) {
        if self.random.chance(2) {
            return self.linear(input, shape, residual, true);
        }
        let more = self.value(shape[1]);
        self.linear(input, shape, &more, false);
        if self.random.chance(2) {
            self.push(Scale::<Names> { value: more.clone(), factor: 0.7 });
        }
        if self.random.chance(2) {
            self.push(SoftCap::<Names> { value: more.clone(), cap: 3.0 });
        }
        self.push(Add::<Names> { input: more, output: residual.clone() });
    }

    fn block(&mut self, residual: &ValueRef, width: u32) {
        for _ in 0..self.random.between(1, 3) {
            match self.random.below(4) {
                0 | 1 => self.attention(residual, width),
                2 => self.feed_forward(residual, width),
                _ if self.mask == Mask::Full => self.feed_forward(residual, width),
                _ => self.convolution(residual, width),
            }
        }
    }
}

/// A compiled program with its weights.
struct Made {
    program: Vec<u8>,
    tensors: Vec<u8>,
    weights: Vec<u8>,
    /// Its matrices are not quantized.
    exact: bool,
    mask: Mask,
}

const CONTEXT: u32 = 64;
const ADAPTERS: [&str; 2] = ["poet", "lawyer"];
/// Large enough that a norm of few, nearly equal numbers does not blow up what rounding left of them.
const EPSILON: f32 = 0.02;

fn make(choices: &[u8]) -> Made {
    let mut random = Choices::new(choices);
    let formats: &[Format] = match random.below(3) {
        0 => &[Format::F32],
        1 => &[Format::F32, Format::F16],
        _ => &[Format::F32, Format::F16, Format::Int8, Format::Int4],
    };
    let mask = if random.chance(5) { Mask::Full } else { Mask::Causal };
    let (width, vocab_size) = (random.between(2, 70), random.between(2, 40));
    let mut parts = BTreeMap::new();
    if random.chance(2) {
        parts.extend(ADAPTERS.map(|name| (name.to_owned(), PartShape { kind: PartKind::Adapter })));
        parts.insert("lasting".to_owned(), PartShape { kind: PartKind::Correction });
    }
    let graph = Graph {
        format: FORMAT,
        parts,
        vocab_size,
        context_length: CONTEXT,
        outputs: vec![Port::of(LOGITS)],
        ..Graph::default()
    };
    let (nodes, weights, tensors) = (vec![], vec![], BTreeMap::new());
    let mut maker =
        Maker { random, graph, nodes, formats, layers: 1, weights, tensors, mask, number: 0 };
    let residual = maker.value(width);
    let embed = |maker: &mut Maker<'_>, index, rows, accumulate| {
        let weight = maker.tensor(maker.formats[0], rows, width, 0.0, 0);
        let output = residual.clone();
        maker.push(Embed::<Names> { weight, output, index, offset: 0, accumulate });
    };
    embed(&mut maker, Index::Token, vocab_size, false);
    if maker.random.chance(2) {
        embed(&mut maker, Index::Position, CONTEXT, true);
    }
    if maker.random.chance(4) {
        embed(&mut maker, Index::First, 1, true);
    }
    for _ in 0..maker.random.between(1, 2) {
        maker.layers = maker.random.between(1, 3);
        let outside = std::mem::take(&mut maker.nodes);
        maker.block(&residual, width);
        let body = std::mem::replace(&mut maker.nodes, outside);
        if maker.layers == 1 {
            maker.nodes.extend(body);
        } else {
            let (subgraph, layers) = (maker.name("block"), maker.layers);
            maker.graph.subgraphs.insert(subgraph.clone(), body);
            maker.push(Node::Repeat { subgraph, layers });
        }
    }
    maker.layers = 1;
    let (selected, last) = (maker.value(width), maker.value(width));
    maker.push(Select::<Names> { input: residual.clone(), output: selected.clone() });
    maker.norm(&selected, &last, width, 0);
    let logits = ValueShape { width: vocab_size, ..ValueShape::default() };
    maker.graph.values.insert(LOGITS.into(), logits);
    for value in [&selected.name, &last.name, LOGITS] {
        maker.graph.values.get_mut(value).unwrap().per = Per::Output;
    }
    maker.linear(&last, [width, vocab_size], &ValueRef::all(LOGITS), false);
    let Maker { mut graph, nodes, tensors, weights, .. } = maker;
    graph.nodes = nodes;
    let find = |name: &str, plane: u32| tensors.get(&(name.to_owned(), plane)).copied();
    let compiled =
        compile(&graph, &[], find).unwrap_or_else(|error| panic!("{choices:?}: {error}"));
    let exact = formats.len() < 4;
    Made { program: compiled.program, tensors: compiled.tensors, weights, exact, mask }
}

/// How a program is played; the bits are the same.
struct Way<'w> {
    kernels: &'w Kernels,
    parallel: &'w dyn Parallel,
    page_size: u32,
    /// Tokens a pass.
    chunks: &'w [usize],
    /// The text's adapter.
    adapter: u16,
    /// Another text is run between these, with another adapter.
    other: Option<u16>,
}

fn play(made: &Made, tokens: &[u32], way: &Way<'_>) -> Vec<Vec<f32>> {
    let end = made.weights.len() as u64;
    let program = Program::parse(&made.program, &made.tensors, 0..end).unwrap();
    let page = way.page_size as usize;
    let checksums: Vec<_> =
        made.weights.chunks(page).map(|page| crc32c::crc32c(page).to_le_bytes()).collect();
    let plan = Plan {
        columns: 24,
        logit_columns: 24,
        kv_capacity: CONTEXT,
        kv_sinks: 4,
        kv_format: KvFormat::Single,
        sequences: 2,
    };
    let model = Model { program, plan, end, checksums: &checksums, first_checked: 0 };
    let mut pager = SlicePager::new(&made.weights, way.page_size).unwrap();
    let mut memory = vec![0u128; model.layout(&pager).unwrap().total().div_ceil(16) as usize];
    let memory = memory.as_mut_bytes();
    let mut engine = Engine::new(model, memory, &mut pager, way.kernels, way.parallel).unwrap();
    let (mut logits, mut position) = (vec![], 0);
    let mut chunks = way.chunks.iter().cycle();
    while position < tokens.len() {
        let count = (*chunks.next().unwrap()).min(tokens.len() - position);
        let text = u32::from(way.other.is_some());
        let input = |sequence: u32, position: usize, token: u32| Input {
            token,
            sequence,
            position: position as u32,
            logits: sequence == text,
            adapter: if sequence == text { way.adapter } else { way.other.unwrap_or(0) },
        };
        let mut inputs = vec![];
        if way.other.is_some() {
            // A text that begins anew in every pass.
            inputs
                .extend((0..2).map(|at| input(0, at, (tokens[at] + 1) % tokens.len() as u32 % 2)));
        }
        let more = tokens[position..position + count].iter().enumerate();
        inputs.extend(more.map(|(at, token)| input(text, position + at, *token)));
        engine.pass(inputs).unwrap();
        logits.extend((0..count).map(|column| engine.logits(column).to_vec()));
        position += count;
    }
    logits
}

fn bits(rows: &[Vec<f32>]) -> Vec<u32> {
    rows.iter().flatten().map(|x| x.to_bits()).collect()
}

/// Makes a program of these choices, the first eight of which begin all that is random, and has it
/// played naively and by the engine; and in passes of any length, with any kernels, threads and pages,
/// which give the same bits.
///
/// # Panics
/// The numbers, or the bits, are others.
pub fn check_program(choices: &[u8], pool: &Pool) {
    let made = make(choices);
    let end = made.weights.len() as u64;
    let program = Program::parse(&made.program, &made.tensors, 0..end).unwrap();
    let mut random = Choices::new(choices);
    random.random.0 = !random.random.0;
    let length = random.between(2, 22) as usize;
    let vocabulary = program.header().vocab_size;
    let tokens: Vec<u32> = (0..length).map(|_| random.below(vocabulary)).collect();
    let whole = [length];
    let mut adapters = vec![0];
    adapters.extend(ADAPTERS.iter().filter_map(|name| program.adapter(name)));
    let [adapter, other] = [random.pick(&adapters), random.pick(&adapters)];
    let plain = Way {
        kernels: &PORTABLE,
        parallel: &Serial,
        page_size: 64,
        chunks: &whole,
        adapter,
        other: None,
    };
    let found = play(&made, &tokens, &plain);
    let expected = Naive::new(&program, &made.weights, adapter).pass(&tokens);
    let largest = expected.iter().flatten().fold(0.1f32, |most, x| most.max(x.abs()));
    // A number that is rounded to the next byte, up here and down there, moves everything behind it.
    let bound = if made.exact { 2e-4 } else { 0.15 } * largest;
    for (position, (found, expected)) in found.iter().zip(&expected).enumerate() {
        for (at, (x, y)) in found.iter().zip(expected).enumerate() {
            assert!(
                (x - y).abs() <= bound,
                "{choices:?}, position {position}, {at}: {x}, naively {y}"
            );
        }
    }
    let ones = [1];
    let mixed = [random.between(1, 5) as usize, random.between(1, 9) as usize];
    let chunks: [&[usize]; 2] = if made.mask == Mask::Full { [&whole; 2] } else { [&ones, &mixed] };
    let fast = omex::dispatch::kernels().unwrap();
    for way in [
        Way { chunks: chunks[0], ..plain },
        Way { kernels: fast, page_size: 512, chunks: chunks[1], ..plain },
        Way { parallel: pool, page_size: 4096, chunks: chunks[1], other: Some(other), ..plain },
    ] {
        let again = play(&made, &tokens, &way);
        assert!(
            bits(&found) == bits(&again),
            "{choices:?}: other bits in passes of {:?}",
            way.chunks
        );
    }
}

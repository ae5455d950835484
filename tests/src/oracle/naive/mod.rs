//! A player of programs that is meant to be obviously right: plain vectors, every token by itself, no
//! pages, no rings, no kernels.
#![expect(clippy::disallowed_methods, reason = "it is near the engine, not equal: any exp will do")]

mod attention;
mod bytes;
mod experts;
mod recurrent;
mod tensors;

pub(crate) use bytes::NaiveBytes;
pub(crate) use tensors::NaiveTensors;

use super::script::Token;
use omex_core::arena::Plan;
use omex_core::ops::{Activation, Delta, Embed, Index, Linear, Norm, NormKind, Op};
use omex_core::program::{PartKind, Parts, PerLayer, Program, Tensor, Value};
use omex_core::quant::{GROUP, PANEL, dequantize_row, quantize_group};
use std::collections::BTreeMap;
use std::ops::Range;

/// A key and a value.
type Pair = [Vec<f32>; 2];

/// Plays a program over a text.
pub(crate) struct Naive<'p> {
    program: &'p Program<'p>,
    weights: &'p [u8],
    plan: &'p Plan,
    text: &'p [Token],
    /// The slots of every token.
    slots: Vec<BTreeMap<u16, Vec<f32>>>,
    /// Keys and values of every token, by state.
    past: BTreeMap<u32, Vec<Pair>>,
    /// The inputs of short convolutions of every token, by state.
    convolved: BTreeMap<u32, Vec<Vec<f32>>>,
    /// What linear attentions hold, by state and head: for each number of a value what each of a key finds.
    states: BTreeMap<(u32, usize), Vec<Vec<f32>>>,
    /// By how much the experts that a token is sent to are ahead of the others.
    margins: Vec<f32>,
}

impl<'p> Naive<'p> {
    /// A player of a program whose tensors lie in `weights`.
    pub(crate) fn new(
        program: &'p Program<'p>,
        weights: &'p [u8],
        plan: &'p Plan,
        text: &'p [Token],
    ) -> Self {
        let (slots, margins) = (vec![BTreeMap::new(); text.len()], vec![f32::INFINITY; text.len()]);
        let (past, convolved, states) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { program, weights, plan, text, slots, past, convolved, states, margins }
    }

    /// The first output at every token.
    pub(crate) fn play(&mut self, parts: &dyn Parts) -> Vec<Vec<f32>> {
        for (op, layer) in self.program.steps(parts) {
            (0..self.text.len()).for_each(|token| self.keep(&op, layer, token));
            (0..self.text.len()).for_each(|token| self.step(&op, layer, token));
        }
        let port = self.program.outputs().next().expect("a program has an output");
        (0..self.text.len()).map(|token| self.get(token, port.value)).collect()
    }

    /// How many tokens come before the first that might be sent to other experts, if scores were a bit
    /// different.
    pub(crate) fn sure(&self, bit: f32) -> usize {
        self.margins.iter().take_while(|margin| **margin > bit).count()
    }

    fn get(&self, token: usize, value: Value) -> Vec<f32> {
        let slot = &self.slots[token][&value.slot];
        slot[value.first as usize..][..value.width as usize].to_vec()
    }

    fn set(&mut self, token: usize, value: Value, x: &[f32]) {
        let width = self.program.slot(value.slot).expect("checked").width as usize;
        let slot = self.slots[token].entry(value.slot).or_insert_with(|| vec![0.0; width]);
        slot[value.first as usize..][..value.width as usize].copy_from_slice(x);
    }

    fn change(&mut self, token: usize, value: Value, f: impl Fn(usize, f32) -> f32) {
        let x: Vec<_> =
            self.get(token, value).into_iter().enumerate().map(|(i, x)| f(i, x)).collect();
        self.set(token, value, &x);
    }

    /// Sets a value, or adds to what it holds.
    fn put(&mut self, token: usize, value: Value, x: &[f32], accumulate: bool) {
        if accumulate {
            self.change(token, value, |i, y| y + x[i]);
        } else {
            self.set(token, value, x);
        }
    }

    fn tensor(&self, weight: PerLayer, layer: u32) -> (Tensor, &'p [u8]) {
        let tensor = self.program.tensor(weight.at(layer)).expect("checked");
        (tensor, &self.weights[tensor.address as usize..][..tensor.bytes() as usize])
    }

    fn vector(&self, weight: PerLayer, layer: u32) -> Vec<f32> {
        let (_, bytes) = self.tensor(weight, layer);
        bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn row(&self, weight: PerLayer, layer: u32, row: usize) -> Vec<f32> {
        let (tensor, bytes) = self.tensor(weight, layer);
        let (unit, groups) = (tensor.unit_bytes(), (tensor.columns as usize).div_ceil(GROUP));
        let panel = &bytes[row / PANEL * groups * unit..][..groups * unit];
        let mut numbers = vec![];
        for block in panel.chunks(unit) {
            let mut group = [0.0; GROUP];
            dequantize_row(tensor.format, block, row % PANEL, &mut group);
            numbers.extend(group);
        }
        numbers.truncate(tensor.columns as usize);
        numbers
    }

    /// Some rows of a matrix times x.
    fn rows(&self, weight: PerLayer, layer: u32, rows: Range<usize>, x: &[f32]) -> Vec<f32> {
        let (tensor, _) = self.tensor(weight, layer);
        let x = if tensor.format.is_integer() { rounded(x) } else { x.to_vec() };
        let dot = |row: Vec<f32>| {
            row.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>()
        };
        rows.map(|row| dot(self.row(weight, layer, row)) as f32).collect()
    }

    fn product(&self, weight: PerLayer, layer: u32, x: &[f32]) -> Vec<f32> {
        let (tensor, _) = self.tensor(weight, layer);
        self.rows(weight, layer, 0..tensor.rows as usize, x)
    }

    /// What every token of a text keeps before any of them looks back.
    fn keep(&mut self, op: &Op, layer: u32, token: usize) {
        match op {
            Op::Store(op) => {
                let state = op.state.at(layer);
                let pair = [op.key, op.value].map(|of| self.cached(state, &self.get(token, of)));
                self.past.entry(state).or_default().push(pair);
            }
            Op::ShortConv(op) => {
                let input = self.get(token, op.input);
                self.convolved.entry(op.state.at(layer)).or_default().push(input);
            }
            _ => {}
        }
    }

    fn step(&mut self, op: &Op, layer: u32, token: usize) {
        match *op {
            Op::Embed(op) => self.embed(op, layer, token),
            Op::Norm(op) => self.norm(op, layer, token),
            Op::Linear(op) => self.linear(op, layer, token),
            Op::Correction(op) => {
                let y = self.product(op.weight, layer, &self.get(token, op.input));
                self.put(token, op.output, &y, true);
            }
            Op::Delta(op) => self.delta(op, layer, token),
            Op::Angles(op) => self.angles(op, layer, token),
            Op::Rotary(op) => self.rotary(op, token),
            Op::Store(_) => {}
            Op::Attend(op) => self.attend(op, layer, token),
            Op::Gated(op) => {
                let (gate, up) = (self.get(token, op.gate), self.get(token, op.up));
                self.set(token, op.output, &gated(op.activation, &gate, &up));
            }
            Op::Activate(op) => self.change(token, op.value, |_, x| activate(op.activation, x)),
            Op::Add(op) => self.put(token, op.output, &self.get(token, op.input), true),
            Op::Scale(op) => {
                let by = op.by.map_or(1.0, |by| self.get(token, by)[0]);
                self.change(token, op.value, |_, x| x * op.factor * by);
            }
            Op::SoftCap(op) => self.change(token, op.value, |_, x| op.cap * (x / op.cap).tanh()),
            Op::Select(op) => self.set(token, op.output, &self.get(token, op.input)),
            Op::ShortConv(op) => self.short_conv(op, layer, token),
            Op::Decay(op) => self.decay(op, layer, token),
            Op::LinearAttention(op) => self.linear_attention(op, layer, token),
            Op::Constant(op) => self.set(token, op.output, &self.vector(op.weight, layer)),
            Op::Route(op) => self.route(op, token),
            Op::Experts(op) => self.experts(op, layer, token),
            _ => panic!("{} is not an operation over tokens", op.name()),
        }
    }

    fn embed(&mut self, op: Embed, layer: u32, token: usize) {
        let row = match op.index {
            Index::Token => self.text[token].0 as usize,
            Index::Position => token + op.offset as usize,
            Index::First => 0,
            Index::Segment => self.text[token].2 as usize,
        };
        self.put(token, op.output, &self.row(op.weight, layer, row), op.accumulate);
    }

    fn norm(&mut self, op: Norm, layer: u32, token: usize) {
        let (weight, bias) =
            (self.vector(op.weight, layer), op.bias.map(|b| self.vector(b, layer)));
        let mut x = self.get(token, op.input);
        let piece = if op.group == 0 { x.len() } else { op.group as usize };
        for x in x.chunks_mut(piece) {
            let mean = x.iter().sum::<f32>() / piece as f32;
            if op.kind == NormKind::Layer {
                x.iter_mut().for_each(|x| *x -= mean);
            }
            let square = x.iter().map(|x| x * x).sum::<f32>() / piece as f32;
            x.iter_mut().for_each(|x| *x /= (square + op.epsilon).sqrt());
        }
        for (i, x) in x.iter_mut().enumerate() {
            *x *= weight[i % weight.len()];
            *x += bias.as_ref().map_or(0.0, |bias| bias[i % bias.len()]);
        }
        self.set(token, op.output, &x);
    }

    fn linear(&mut self, op: Linear, layer: u32, token: usize) {
        let mut y = self.product(op.weight, layer, &self.get(token, op.input));
        if let Some(bias) = op.bias {
            y.iter_mut().zip(self.vector(bias, layer)).for_each(|(y, b)| *y += b);
        }
        self.put(token, op.output, &y, op.accumulate);
    }

    fn delta(&mut self, op: Delta, layer: u32, token: usize) {
        let adapts = self.program.part_kind(op.part) == Some(PartKind::Adapter);
        if !adapts || op.part == self.text[token].1 {
            let low = self.product(op.down, layer, &self.get(token, op.input));
            let y = self.product(op.up, layer, &low);
            self.change(token, op.output, |i, x| x + op.scale * y[i]);
        }
    }
}

/// Activations as they meet integer weights: rounded to bytes.
fn rounded(x: &[f32]) -> Vec<f32> {
    let group = |chunk: &[f32]| {
        let group = quantize_group(chunk);
        let bytes = group.quads.as_flattened()[..chunk.len()].to_vec();
        bytes.into_iter().map(move |q| f32::from(q) * group.scale)
    };
    x.chunks(GROUP).flat_map(group).collect()
}

fn gated(activation: Activation, gate: &[f32], up: &[f32]) -> Vec<f32> {
    gate.iter().zip(up).map(|(gate, up)| activate(activation, *gate) * up).collect()
}

/// The error function.
fn erf(x: f32) -> f32 {
    // Abramowitz and Stegun 7.1.26, within 1.5e-7.
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let p = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_8) * t - 0.284_496_72) * t
        + 0.254_829_6)
        * t;
    (1.0 - p * (-x * x).exp()).copysign(x)
}

fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Identity => x,
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2.0f32.sqrt())),
        Activation::GeluTanh => {
            0.5 * x
                * (1.0 + ((2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

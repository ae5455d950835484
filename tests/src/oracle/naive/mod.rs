//! A player of programs that is meant to be obviously right: plain vectors, every token by itself, no
//! pages, no rings, no kernels.
#![expect(clippy::disallowed_methods, reason = "it is near the engine, not equal: any exp will do")]

use omex_core::ops::{Activation, Index, Mask, NormKind, Op, Pairing};
use omex_core::program::{ALL, PartKind, PerLayer, Program, Tensor, Value};
use omex_core::quant::{Format, GROUP, PANEL, dequantize_row, quantize_group};
use omex_core::state::State;
use std::collections::BTreeMap;

/// A key and a value.
type Pair = (Vec<f32>, Vec<f32>);

/// A text: what its states hold, and how long it is.
#[derive(Clone, Default)]
struct Text {
    /// Keys and values of every position, by state.
    past: BTreeMap<u32, Vec<Pair>>,
    /// The inputs of short convolutions of every position, by state.
    convolved: BTreeMap<u32, Vec<Vec<f32>>>,
    length: usize,
}

/// Plays a program over texts, one token after another.
pub struct Naive<'p> {
    program: &'p Program<'p>,
    weights: &'p [u8],
    text: Text,
    adapter: u16,
    /// The slots of every token of a pass.
    slots: Vec<BTreeMap<u16, Vec<f32>>>,
}

impl<'p> Naive<'p> {
    /// A player of a program whose tensors lie in `weights`, of tokens with this adapter.
    #[must_use]
    pub fn new(program: &'p Program<'p>, weights: &'p [u8], adapter: u16) -> Self {
        Self { program, weights, text: Text::default(), adapter, slots: vec![] }
    }

    /// Runs tokens that follow those before, and returns the first output for each.
    pub fn pass(&mut self, tokens: &[u32]) -> Vec<Vec<f32>> {
        self.slots = vec![BTreeMap::new(); tokens.len()];
        for (op, layer) in self.program.steps(ALL) {
            (0..tokens.len()).for_each(|t| self.store(&op, layer, t));
            (0..tokens.len()).for_each(|t| self.step(&op, layer, tokens, t));
        }
        self.text.length += tokens.len();
        let port = self.program.outputs().next().expect("a program has an output");
        (0..tokens.len()).map(|t| self.get(t, port.value)).collect()
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

    fn product(&self, weight: PerLayer, layer: u32, x: &[f32]) -> Vec<f32> {
        let (tensor, _) = self.tensor(weight, layer);
        // Integer weights meet activations that were rounded to bytes.
        let x: Vec<f32> = match tensor.format {
            Format::Int8 | Format::Int4 => x
                .chunks(GROUP)
                .flat_map(|chunk| {
                    let group = quantize_group(chunk);
                    let bytes = group.quads.as_flattened()[..chunk.len()].to_vec();
                    bytes.into_iter().map(move |q| f32::from(q) * group.scale)
                })
                .collect(),
            _ => x.to_vec(),
        };
        let dot = |row: Vec<f32>| {
            row.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>()
        };
        (0..tensor.rows as usize).map(|row| dot(self.row(weight, layer, row)) as f32).collect()
    }

    /// What every token of a pass keeps before any of them looks back.
    fn store(&mut self, op: &Op, layer: u32, token: usize) {
        match op {
            Op::Store(op) => {
                let pair = (self.get(token, op.key), self.get(token, op.value));
                self.text.past.entry(op.state.at(layer)).or_default().push(pair);
            }
            Op::ShortConv(op) => {
                let input = self.get(token, op.input);
                self.text.convolved.entry(op.state.at(layer)).or_default().push(input);
            }
            _ => {}
        }
    }

    fn step(&mut self, op: &Op, layer: u32, tokens: &[u32], token: usize) {
        let position = self.text.length + token;
        match *op {
            Op::Embed(op) => {
                let row = match op.index {
                    Index::Token => tokens[token] as usize,
                    Index::Position => position + op.offset as usize,
                    Index::First => 0,
                };
                let row = self.row(op.weight, layer, row);
                if op.accumulate {
                    self.change(token, op.output, |i, x| x + row[i]);
                } else {
                    self.set(token, op.output, &row);
                }
            }
            Op::Norm(op) => {
                let (weight, bias) =
                    (self.vector(op.weight, layer), op.bias.map(|b| self.vector(b, layer)));
                let piece = weight.len();
                let mut x = self.get(token, op.input);
                for x in x.chunks_mut(piece) {
                    let mean = x.iter().sum::<f32>() / piece as f32;
                    if op.kind == NormKind::Layer {
                        x.iter_mut().for_each(|x| *x -= mean);
                    }
                    let square = x.iter().map(|x| x * x).sum::<f32>() / piece as f32;
                    for (i, x) in x.iter_mut().enumerate() {
                        *x *= weight[i] / (square + op.epsilon).sqrt();
                        *x += bias.as_ref().map_or(0.0, |bias| bias[i]);
                    }
                }
                self.set(token, op.output, &x);
            }
            Op::Linear(op) => {
                let mut y = self.product(op.weight, layer, &self.get(token, op.input));
                if let Some(bias) = op.bias {
                    y.iter_mut().zip(self.vector(bias, layer)).for_each(|(y, b)| *y += b);
                }
                if op.accumulate {
                    self.change(token, op.output, |i, x| x + y[i]);
                } else {
                    self.set(token, op.output, &y);
                }
            }
            Op::Correction(op) => {
                let y = self.product(op.weight, layer, &self.get(token, op.input));
                self.change(token, op.output, |i, x| x + y[i]);
            }
            Op::Delta(op) => {
                if self.program.part_kind(op.part) == Some(PartKind::Adapter)
                    && op.part != self.adapter
                {
                    return;
                }
                let low = self.product(op.down, layer, &self.get(token, op.input));
                let y = self.product(op.up, layer, &low);
                self.change(token, op.output, |i, x| x + op.scale * y[i]);
            }
            Op::Angles(op) => {
                let scale = if op.scale == 0.0 { 1.0 } else { op.scale };
                let turns: Vec<_> = self
                    .vector(op.frequencies, layer)
                    .iter()
                    .map(|f| position as f32 * f)
                    .collect();
                let mut angles: Vec<f32> = turns.iter().map(|turn| scale * turn.cos()).collect();
                angles.extend(turns.iter().map(|turn| scale * turn.sin()));
                // No text here is so long that it meets the sinks.
                angles.resize(op.output.width as usize, 0.0);
                self.set(token, op.output, &angles);
            }
            Op::Rotary(op) => {
                let angles = self.get(token, op.angles);
                let pairs = angles.len() / 4;
                let mut x = self.get(token, op.value);
                for head in x.chunks_mut(op.head_width as usize) {
                    for i in 0..pairs {
                        let (a, b) = match op.pairing {
                            Pairing::Halves => (i, i + pairs),
                            Pairing::Neighbours => (2 * i, 2 * i + 1),
                        };
                        let (cosine, sine) = (angles[i], angles[pairs + i]);
                        (head[a], head[b]) =
                            (head[a] * cosine - head[b] * sine, head[b] * cosine + head[a] * sine);
                    }
                }
                self.set(token, op.value, &x);
            }
            Op::Store(_) => {}
            Op::Attend(op) => {
                let state = op.state.at(layer);
                let Some(State::Kv { heads, width, window }) = self.program.state(state) else {
                    panic!("attends to something else")
                };
                let past = &self.text.past[&state];
                let end = if op.mask == Mask::Full { past.len() } else { position + 1 };
                let first = if window == 0 { 0 } else { end.saturating_sub(window as usize) };
                let (width, query) = (width as usize, self.get(token, op.query));
                let group = query.len() / (heads as usize * width);
                let mut out = vec![];
                for (head, query) in query.chunks(width).enumerate() {
                    let at = head / group * width..(head / group + 1) * width;
                    let scores: Vec<f32> = past[first..end]
                        .iter()
                        .map(|(key, _)| {
                            op.scale
                                * key[at.clone()].iter().zip(query).map(|(k, q)| k * q).sum::<f32>()
                        })
                        .collect();
                    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let weights: Vec<f32> =
                        scores.iter().map(|score| (score - largest).exp()).collect();
                    let total: f32 = weights.iter().sum();
                    out.extend((at.start..at.end).map(|i| {
                        let values = past[first..end].iter().map(|(_, value)| value[i]);
                        values.zip(&weights).map(|(value, weight)| value * weight).sum::<f32>()
                            / total
                    }));
                }
                self.set(token, op.output, &out);
            }
            Op::Gated(op) => {
                let (gate, up) = (self.get(token, op.gate), self.get(token, op.up));
                let y: Vec<_> =
                    gate.iter().zip(&up).map(|(g, u)| activate(op.activation, *g) * u).collect();
                self.set(token, op.output, &y);
            }
            Op::Activate(op) => self.change(token, op.value, |_, x| activate(op.activation, x)),
            Op::Add(op) => {
                let x = self.get(token, op.input);
                self.change(token, op.output, |i, y| y + x[i]);
            }
            Op::Scale(op) => self.change(token, op.value, |_, x| x * op.factor),
            Op::SoftCap(op) => self.change(token, op.value, |_, x| op.cap * (x / op.cap).tanh()),
            Op::Select(op) => {
                let x = self.get(token, op.input);
                self.set(token, op.output, &x);
            }
            Op::ShortConv(op) => {
                let (weight, taps) = (self.vector(op.weight, layer), op.taps as usize);
                let inputs = &self.text.convolved[&op.state.at(layer)];
                let width = op.input.width as usize;
                let y: Vec<f32> = (0..width)
                    .map(|i| {
                        let tap = |t: usize| {
                            Some(
                                weight[t * width + i]
                                    * inputs[(position + t).checked_sub(taps - 1)?][i],
                            )
                        };
                        (0..taps).filter_map(tap).sum()
                    })
                    .collect();
                self.set(token, op.output, &y);
            }
            _ => panic!("{} is not an operation of these programs", op.name()),
        }
    }
}

fn activate(activation: Activation, x: f32) -> f32 {
    let erf = |x: f32| {
        // Abramowitz and Stegun 7.1.26, within 1.5e-7.
        let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
        let p = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_8) * t - 0.284_496_72) * t
            + 0.254_829_6)
            * t;
        (1.0 - p * (-x * x).exp()).copysign(x)
    };
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
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

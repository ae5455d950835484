//! A player of programs over tensors: element by element, by the definitions.

use omex_core::ops::{
    Activation, Alignment, Binary, BinaryFunction, FloatConv2d, FloatSoftmax, Op, Pool, Pooling,
    Rearrange, Reduction, Resize, UnaryFunction,
};
use omex_core::program::{ALL, PerLayer, Program, Value};
use omex_core::quant::{GROUP, PANEL, dequantize_row, quantize_group};
use std::collections::BTreeMap;

/// Plays a program; signed bytes are the floats that they are worth as numbers.
pub(crate) struct NaiveTensors<'p> {
    program: &'p Program<'p>,
    weights: &'p [u8],
    slots: BTreeMap<u16, Vec<f32>>,
}

impl<'p> NaiveTensors<'p> {
    pub(crate) fn new(program: &'p Program<'p>, weights: &'p [u8]) -> Self {
        Self { program, weights, slots: BTreeMap::new() }
    }

    /// What a program makes of its input: the output.
    pub(crate) fn infer(&mut self, input: &[f32]) -> Vec<f32> {
        let port = self.program.inputs().next().expect("a program has an input");
        self.slots.insert(port.value.slot, input.to_vec());
        for (op, _) in self.program.steps(ALL) {
            self.step(&op);
        }
        let output = self.program.outputs().next().expect("a program has an output");
        self.slots[&output.value.slot].clone()
    }

    fn step(&mut self, op: &Op) {
        let (output, numbers) = match *op {
            Op::Fill(op) => (op.output, vec![op.number; op.output.width as usize]),
            Op::Constant(op) => (op.output, self.vector(op.weight)),
            Op::Rearrange(op) => (op.output, self.rearranged(op)),
            Op::FloatConv2d(op) => (op.output, self.convolved(op)),
            Op::Pool(op) => (op.output, self.pooled(op)),
            Op::Resize(op) => (op.output, self.resized(op)),
            Op::Binary(op) => (op.output, self.paired(op)),
            Op::FloatSoftmax(op) => (op.value, self.softmax(op)),
            Op::Activate(op) => {
                assert_eq!(op.activation, Activation::Sigmoid);
                let sigmoid = |x: &f32| (1.0 / (1.0 + f64::from(-*x).exp())) as f32;
                (op.value, self.get(op.value).iter().map(sigmoid).collect())
            }
            Op::Unary(op) => {
                (op.value, self.get(op.value).iter().map(|x| unary(op.function, *x)).collect())
            }
            Op::Reduce(op) => {
                let rows = self.get(op.input);
                let length = rows.len() / op.output.width as usize;
                let row = |row: &[f32]| reduced(op.reduction, row);
                (op.output, rows.chunks(length).map(row).collect())
            }
            Op::Quantize(op) => {
                let byte = |x: &f32| {
                    let steps = x / op.scale;
                    let whole = if op.ties_away { steps.round() } else { steps.round_ties_even() };
                    (whole + op.zero as f32).clamp(-128.0, 127.0)
                };
                (op.output, self.get(op.input).iter().map(byte).collect())
            }
            Op::Dequantize(op) => {
                let number = |x: &f32| op.scale * (x - op.zero as f32);
                (op.output, self.get(op.input).iter().map(number).collect())
            }
            Op::Lookup(op) => {
                let table = self.vector(op.table);
                let entry = |x: &f32| table[(*x as i32 + 128) as usize];
                (op.output, self.get(op.input).iter().map(entry).collect())
            }
            ref other => panic!("{} is not an operation over tensors", other.name()),
        };
        self.slots.insert(output.slot, numbers);
    }

    fn get(&self, value: Value) -> Vec<f32> {
        self.slots[&value.slot][value.first as usize..][..value.width as usize].to_vec()
    }

    fn sides(&self, value: Value) -> [i64; 3] {
        let [_, height, width, channels] = self.program.slot(value.slot).expect("checked").dims;
        [height, width, channels].map(i64::from)
    }

    fn pixel(&self, value: Value, [y, x, channel]: [i64; 3]) -> Option<f64> {
        let [height, width, channels] = self.sides(value);
        let inside = (0..height).contains(&y) && (0..width).contains(&x);
        let at = (y * width + x) * channels + channel;
        inside.then(|| self.slots[&value.slot][at as usize].into())
    }

    fn bytes(&self, weight: PerLayer) -> &'p [u8] {
        let tensor = self.program.tensor(weight.first).expect("checked");
        &self.weights[tensor.address as usize..][..tensor.bytes() as usize]
    }

    fn vector(&self, weight: PerLayer) -> Vec<f32> {
        self.bytes(weight).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    /// A row of a matrix.
    fn row(&self, weight: PerLayer, row: usize) -> Vec<f64> {
        let tensor = self.program.tensor(weight.first).expect("checked");
        let (unit, groups) = (tensor.unit_bytes(), (tensor.columns as usize).div_ceil(GROUP));
        let panel = &self.bytes(weight)[row / PANEL * groups * unit..][..groups * unit];
        let mut numbers = vec![];
        for block in panel.chunks(unit) {
            let mut group = [0.0; GROUP];
            dequantize_row(tensor.format, block, row % PANEL, &mut group);
            numbers.extend(group.map(f64::from));
        }
        numbers
    }

    fn rearranged(&self, op: Rearrange) -> Vec<f32> {
        let from = self.get(op.input);
        let width = op.output.width as usize;
        let mut to = self.slots.get(&op.output.slot).cloned().unwrap_or_else(|| vec![0.0; width]);
        for index in 0..op.dims.iter().product::<u32>() {
            let (mut left, mut places) = (index, [op.from_first as i64, op.to_first as i64]);
            for axis in (0..op.dims.len()).rev() {
                let at = i64::from(left % op.dims[axis]);
                left /= op.dims[axis];
                places[0] += at * i64::from(op.from[axis]);
                places[1] += at * i64::from(op.to[axis]);
            }
            to[places[1] as usize] = from[places[0] as usize];
        }
        to
    }

    /// The numbers under a window, tap by tap; zeros beside the image.
    fn seen(&self, op: &FloatConv2d, [y, x]: [i64; 2], channels: std::ops::Range<i64>) -> Vec<f64> {
        let mut seen = vec![];
        for ky in 0..i64::from(op.kernel[0]) {
            for kx in 0..i64::from(op.kernel[1]) {
                let place = |at: i64, k: i64, side: usize| {
                    at * i64::from(op.stride[side]) + k * i64::from(op.dilation[side])
                        - i64::from(op.pad[side])
                };
                for channel in channels.clone() {
                    let at = [place(y, ky, 0), place(x, kx, 1), channel];
                    seen.push(self.pixel(op.input, at).unwrap_or(0.0));
                }
            }
        }
        seen
    }

    fn convolved(&self, op: FloatConv2d) -> Vec<f32> {
        let ([_, _, inputs], [rows, columns, outputs]) =
            (self.sides(op.input), self.sides(op.output));
        let bias = op.bias.map(|bias| self.vector(bias));
        let tensor = self.program.tensor(op.weight.first).expect("checked");
        let mut result = vec![];
        for at in places([rows, columns]) {
            for output in 0..outputs {
                let own = output / (outputs / inputs).max(1);
                let sum: f64 = if op.depthwise {
                    let weights = self.vector(op.weight);
                    let of = weights.chunks(outputs as usize).map(|tap| tap[output as usize]);
                    let seen = self.seen(&op, at, own..own + 1);
                    seen.iter().zip(of).map(|(x, w)| x * f64::from(w)).sum()
                } else {
                    let mut seen = self.seen(&op, at, 0..inputs);
                    if tensor.format.is_integer() {
                        seen = rounded(&seen);
                    }
                    let row = self.row(op.weight, output as usize);
                    seen.iter().zip(row).map(|(x, w)| x * w).sum()
                };
                let bias = bias.as_ref().map_or(0.0, |bias| f64::from(bias[output as usize]));
                result.push((bias + sum) as f32);
            }
        }
        result
    }

    fn pooled(&self, op: Pool) -> Vec<f32> {
        let [rows, columns, channels] = self.sides(op.output);
        let mut result = vec![];
        for [y, x] in places([rows, columns]) {
            for channel in 0..channels {
                let under = places(op.kernel.map(i64::from)).filter_map(|[ky, kx]| {
                    let place = |at: i64, k: i64, side: usize| {
                        at * i64::from(op.stride[side]) + k - i64::from(op.pad[side])
                    };
                    self.pixel(op.input, [place(y, ky, 0), place(x, kx, 1), channel])
                });
                let seen: Vec<f64> = under.collect();
                let sum: f64 = seen.iter().sum();
                let whole = f64::from(op.kernel[0]) * f64::from(op.kernel[1]);
                result.push(match op.pooling {
                    Pooling::Max => seen.iter().copied().fold(f64::MIN, f64::max),
                    Pooling::Mean => sum / seen.len() as f64,
                    Pooling::MeanOfWindow => sum / whole,
                } as f32);
            }
        }
        result
    }

    fn resized(&self, op: Resize) -> Vec<f32> {
        let ([height, width, _], [rows, columns, channels]) =
            (self.sides(op.input), self.sides(op.output));
        // Places in steps of floats, as they are defined: ties are decided by their bits.
        let place = |at: i64, from: i64, to: i64| {
            let ratio = from as f32 / to as f32;
            let place = match op.alignment {
                Alignment::Corner => at as f32 * ratio,
                Alignment::HalfPixel => (at as f32 + 0.5) * ratio - 0.5,
                Alignment::Ends if to > 1 => at as f32 * ((from - 1) as f32 / (to - 1) as f32),
                Alignment::Ends => 0.0,
            };
            place.clamp(0.0, (from - 1) as f32)
        };
        let mut result = vec![];
        for [y, x] in places([rows, columns]) {
            let (y, x) = (place(y, height, rows), place(x, width, columns));
            for channel in 0..channels {
                let pixel = |y: f32, x: f32| {
                    let inside = |at: f32, size: i64| (at as i64).min(size - 1);
                    self.pixel(op.input, [inside(y, height), inside(x, width), channel]).unwrap()
                };
                let (down, right) = (f64::from(y.fract()), f64::from(x.fract()));
                result.push(match (op.bilinear, op.nearest) {
                    (true, _) => {
                        let upper = pixel(y, x) * (1.0 - right) + pixel(y, x + 1.0) * right;
                        let lower =
                            pixel(y + 1.0, x) * (1.0 - right) + pixel(y + 1.0, x + 1.0) * right;
                        upper * (1.0 - down) + lower * down
                    }
                    (_, true) => pixel((y - 0.5).ceil(), (x - 0.5).ceil()),
                    _ => pixel(y, x),
                } as f32);
            }
        }
        result
    }

    fn paired(&self, op: Binary) -> Vec<f32> {
        let (first, second) = (self.get(op.first), self.get(op.second));
        let each = |index: u32| {
            let (mut left, mut places) = (index, [0i64; 2]);
            for axis in (0..op.dims.len()).rev() {
                let at = i64::from(left % op.dims[axis]);
                left /= op.dims[axis];
                places[0] += at * i64::from(op.first_steps[axis]);
                places[1] += at * i64::from(op.second_steps[axis]);
            }
            let [x, y] = [first[places[0] as usize], second[places[1] as usize]].map(f64::from);
            (match op.function {
                BinaryFunction::Add => x + y,
                BinaryFunction::Subtract => x - y,
                BinaryFunction::Multiply => x * y,
                BinaryFunction::Divide => x / y,
                BinaryFunction::Max => x.max(y),
                BinaryFunction::Min => x.min(y),
                BinaryFunction::Power => x.powf(y),
                BinaryFunction::LeakyRelu => {
                    if x < 0.0 {
                        x * y
                    } else {
                        x
                    }
                }
            }) as f32
        };
        (0..op.dims.iter().product()).map(each).collect()
    }

    fn softmax(&self, op: FloatSoftmax) -> Vec<f32> {
        let rows = self.get(op.value);
        let of = |row: &[f32]| {
            let most = row.iter().copied().fold(f32::MIN, f32::max);
            let powers: Vec<f64> = row.iter().map(|x| f64::from(x - most).exp()).collect();
            let total: f64 = powers.iter().sum();
            let log = |x: &f32| f64::from(x - most) - total.ln();
            match op.log {
                true => row.iter().map(|x| log(x) as f32).collect::<Vec<_>>(),
                false => powers.iter().map(|power| (power / total) as f32).collect(),
            }
        };
        rows.chunks(op.length as usize).flat_map(of).collect()
    }
}

/// Numbers as kernels of integers round them.
fn rounded(x: &[f64]) -> Vec<f64> {
    let group = |chunk: &[f64]| {
        let floats: Vec<f32> = chunk.iter().map(|x| *x as f32).collect();
        let group = quantize_group(&floats);
        let scale = f64::from(group.scale);
        let all = group.quads.as_flattened().iter().map(move |q| f64::from(*q) * scale);
        all.take(chunk.len()).collect::<Vec<_>>()
    };
    x.chunks(GROUP).flat_map(group).collect()
}

fn unary(function: UnaryFunction, x: f32) -> f32 {
    let x = f64::from(x);
    (match function {
        UnaryFunction::Exp => x.exp(),
        UnaryFunction::Log => x.ln(),
        UnaryFunction::Sqrt => x.sqrt(),
        UnaryFunction::Abs => x.abs(),
        UnaryFunction::Reciprocal => x.recip(),
        UnaryFunction::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        UnaryFunction::Erf => f64::from(super::erf(x as f32)),
        UnaryFunction::Softplus => x.exp().ln_1p(),
        UnaryFunction::Floor => x.floor(),
        UnaryFunction::Ceil => x.ceil(),
        UnaryFunction::Round => x.round_ties_even(),
        UnaryFunction::Elu => {
            if x < 0.0 {
                x.exp_m1()
            } else {
                x
            }
        }
        UnaryFunction::Sin => x.sin(),
        UnaryFunction::Cos => x.cos(),
    }) as f32
}

fn reduced(reduction: Reduction, row: &[f32]) -> f32 {
    let sum: f64 = row.iter().map(|x| f64::from(*x)).sum();
    match reduction {
        Reduction::Sum => sum as f32,
        Reduction::Mean => (sum / row.len() as f64) as f32,
        Reduction::Max => row.iter().copied().fold(f32::MIN, f32::max),
        Reduction::Min => row.iter().copied().fold(f32::MAX, f32::min),
    }
}

/// All places of a window or an image, row by row.
fn places([height, width]: [i64; 2]) -> impl Iterator<Item = [i64; 2]> {
    (0..height).flat_map(move |y| (0..width).map(move |x| [y, x]))
}

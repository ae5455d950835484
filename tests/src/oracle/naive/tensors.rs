//! A player of programs over tensors: element by element, by the definitions.

use super::bytes::scaled;
use omex_core::ops::{
    Activation, Alignment, Binary, BinaryFunction, FloatConv2d, FloatSoftmax, Op, Pool, Pooling,
    QuantizedBinary, QuantizedFunction, QuantizedLstm, QuantizedSum, Rearrange, Reduction, Resize,
    UnaryFunction,
};
use omex_core::program::{ALL, Dtype, PerLayer, Program, Value};
use omex_core::quant::{GROUP, PANEL, dequantize_row, quantize_group};
use std::collections::BTreeMap;

/// Plays a program; signed bytes are the floats that they are worth as numbers.
pub(crate) struct NaiveTensors<'p> {
    program: &'p Program<'p>,
    weights: &'p [u8],
    slots: BTreeMap<u16, Vec<f32>>,
    /// What was kept, by state.
    kept: BTreeMap<u32, Vec<f32>>,
}

impl<'p> NaiveTensors<'p> {
    pub(crate) fn new(program: &'p Program<'p>, weights: &'p [u8]) -> Self {
        Self { program, weights, slots: BTreeMap::new(), kept: BTreeMap::new() }
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
            Op::Recall(op) => {
                let initial = vec![op.initial; op.output.width as usize];
                (op.output, self.kept.get(&op.state.first).cloned().unwrap_or(initial))
            }
            Op::Keep(op) => {
                self.kept.insert(op.state.first, self.get(op.input));
                return;
            }
            Op::Rearrange(op) => (op.output, self.rearranged(op)),
            Op::FloatConv2d(op) => (op.output, self.convolved(op)),
            Op::Pool(op) => (op.output, self.pooled(op)),
            Op::Resize(op) => (op.output, self.resized(op)),
            Op::Binary(op) => (op.output, self.paired(op)),
            Op::QuantizedBinary(op) => (op.output, self.paired_bytes(op)),
            Op::QuantizedSum(op) => (op.output, self.summed(op)),
            Op::QuantizedLstm(op) => {
                let [cell, output] = self.lstm(op);
                self.slots.insert(op.cell.slot, cell);
                (op.output, output)
            }
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
        let slot = self.program.slot(op.input.slot).expect("checked");
        if slot.dtype == Dtype::I8 && op.bilinear {
            return self.resized_bytes(op);
        }
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
                Alignment::Middle => (at as f32 + 0.5) * ratio,
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

    /// Bilinear, with places and shares in whole 1024ths.
    fn resized_bytes(&self, op: Resize) -> Vec<f32> {
        let ([height, width, _], [rows, columns, channels]) =
            (self.sides(op.input), self.sides(op.output));
        let place = |at: i64, from: i64, to: i64| {
            let [from_parts, to_parts] = match op.alignment {
                Alignment::Ends if to > 1 => [from - 1, to - 1],
                _ => [from, to],
            };
            let ratio = (1024 * from_parts + to_parts / 2) / to_parts;
            let before = match op.alignment {
                Alignment::HalfPixel => ratio / 2 - 512,
                Alignment::Middle => ratio / 2,
                _ => 0,
            };
            (at * ratio + before).clamp(0, 1024 * (from - 1))
        };
        let mut result = vec![];
        for [y, x] in places([rows, columns]) {
            let (y, x) = (place(y, height, rows), place(x, width, columns));
            for channel in 0..channels {
                // Each pixel by how near it lies, if it is nearer than one step.
                let near = |at: i64, place: i64| (1024 - (1024 * at - place).abs()).max(0);
                let all = places([height, width]).map(|[py, px]| {
                    let pixel = self.pixel(op.input, [py, px, channel]).unwrap();
                    pixel as i64 * near(py, y) * near(px, x)
                });
                let mean = all.sum::<i64>() as f64 / f64::from(1 << 20);
                result.push(mean.round() as f32);
            }
        }
        result
    }

    /// The numbers of two operands for each element of the result.
    fn pairs(&self, ends: [Value; 2], dims: [u32; 4], steps: [[i32; 4]; 2]) -> Vec<[f64; 2]> {
        let numbers = ends.map(|end| self.get(end));
        let each = |index: u32| {
            let (mut left, mut places) = (index, [0i64; 2]);
            for axis in (0..dims.len()).rev() {
                let at = i64::from(left % dims[axis]);
                left /= dims[axis];
                for (place, steps) in places.iter_mut().zip(steps) {
                    *place += at * i64::from(steps[axis]);
                }
            }
            [0, 1].map(|end| f64::from(numbers[end][places[end] as usize]))
        };
        (0..dims.iter().product()).map(each).collect()
    }

    fn paired_bytes(&self, op: QuantizedBinary) -> Vec<f32> {
        let [low, high] = op.clamp.map(i64::from);
        let of = |end: usize, x: i64| scaled(x, op.multipliers[end].into(), op.shifts[end]);
        let each = |pair: [f64; 2]| {
            let [x, y] = [0, 1].map(|end| pair[end] as i64 - i64::from(op.zeros[end]));
            let result = match op.function {
                QuantizedFunction::Subtract => of(2, of(0, x << 20) - of(1, y << 20)),
                QuantizedFunction::Multiply => of(2, x * y),
                QuantizedFunction::Max => return pair[0].max(pair[1]) as i64,
                QuantizedFunction::Min => return pair[0].min(pair[1]) as i64,
            };
            result + i64::from(op.zeros[2])
        };
        let pairs = self.pairs([op.first, op.second], op.dims, [op.first_steps, op.second_steps]);
        pairs.into_iter().map(|pair| each(pair).max(low).min(high) as f32).collect()
    }

    /// What an LSTM remembers and gives out after a step.
    fn lstm(&self, op: QuantizedLstm) -> [Vec<f32>; 2] {
        let width = op.output.width as usize;
        let parts = [
            (op.input_weight, op.input, op.input_zero),
            (op.recurrent_weight, op.before, op.output_zero),
        ];
        let word = |x: i64| x.clamp(-32768, 32767);
        let mut gates = vec![0; 4 * width];
        for (weight, value, zero) in parts {
            let (values, columns) = (self.get(value), value.width as usize);
            let row_bytes = (12 + columns).next_multiple_of(4);
            for (gate, row) in gates.iter_mut().zip(self.bytes(weight).chunks(row_bytes)) {
                let head = |n: usize| i32::from_le_bytes(row[4 * n..][..4].try_into().unwrap());
                let products = row[12..].iter().zip(&values);
                let sum = products
                    .map(|(w, x)| i64::from(w.cast_signed()) * (*x as i64 - i64::from(zero)));
                let sum = i64::from(head(0)) + sum.sum::<i64>();
                *gate = word(*gate + word(scaled(sum, head(1).into(), head(2))));
            }
        }
        let table = self.vector(op.sigmoids);
        let mut cell = self.get(op.cell);
        let mut output = vec![];
        for (n, cell) in cell.iter_mut().enumerate() {
            let gate = |number: usize| gates[number * width + n];
            let [input, forget, out] = [0, 1, 3].map(|number| sigmoid(&table, gate(number)));
            let kept = scaled(forget * *cell as i64, 1 << 30, -14);
            let new =
                scaled(input * tanh(&table, gate(2), 12), 1 << 30, i32::from(op.cell_bits) - 29);
            let clip = if op.clip == 0 { 32768 } else { i64::from(op.clip) };
            let sum = word(word(kept) + word(new)).clamp(-clip, clip);
            *cell = sum as f32;
            let product = tanh(&table, sum, op.cell_bits) * out;
            let byte = scaled(product, op.multiplier.into(), op.shift);
            output.push((byte + i64::from(op.output_zero)).clamp(-128, 127) as f32);
        }
        [cell, output]
    }

    fn summed(&self, op: QuantizedSum) -> Vec<f32> {
        let rows = self.get(op.input);
        let row = |row: &[f32]| {
            let sum = row.iter().map(|x| *x as i64 - i64::from(op.input_zero)).sum();
            let scaled = scaled(sum, op.multiplier.into(), op.shift);
            (scaled + i64::from(op.output_zero)).clamp(-128, 127) as f32
        };
        rows.chunks(rows.len() / op.output.width as usize).map(row).collect()
    }

    fn paired(&self, op: Binary) -> Vec<f32> {
        let each = |[x, y]: [f64; 2]| {
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
        let pairs = self.pairs([op.first, op.second], op.dims, [op.first_steps, op.second_steps]);
        pairs.into_iter().map(each).collect()
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

/// A sigmoid in 2^-16ths between entries of a table, at a place in 2^-`bits` of one.
fn between(table: &[f32], place: f64) -> f64 {
    let at = place.floor() as usize;
    if at >= 255 {
        return 65535.0;
    }
    let [a, b] = [at, at + 1].map(|at| f64::from(table[at]));
    a + place.fract() * (b - a)
}

/// The sigmoid of x / 4096, in 2^-15ths.
fn sigmoid(table: &[f32], x: i64) -> i64 {
    let place = 3.0 * x.abs() as f64 / 512.0;
    let half = if place >= 255.0 { 65534.0 } else { between(table, place) };
    // Of two that are as near, the upper.
    match x < 0 {
        false => (half / 2.0 + 0.5).floor() as i64,
        true => (32768.0 - half / 2.0 + 0.5 - 1.0 / 1024.0).floor() as i64,
    }
}

/// The hyperbolic tangent of x · 2^-`bits`, in 2^-15ths.
fn tanh(table: &[f32], x: i64, bits: u8) -> i64 {
    let x = (3.0 * x as f64 * (12.0 - f64::from(bits)).exp2() + 0.5).floor();
    let twice = between(table, x.abs() / 256.0) - 32768.0;
    match x < 0.0 {
        false => (twice + 0.5).floor() as i64,
        true => (-twice + 0.5 - 1.0 / 256.0).floor() as i64,
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

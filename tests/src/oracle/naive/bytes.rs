//! A player of programs over images of signed bytes: pixel by pixel, in 64-bit integers.

use omex_core::ops::{AveragePool, Conv2d, Op, QuantizedAdd, Softmax};
use omex_core::program::{ALL, Program, Value};
use omex_core::quant::CHANNEL_HEAD;
use std::collections::BTreeMap;

/// Height, width and channels.
type Sides = [i64; 3];

/// Plays a program over an image.
pub(crate) struct NaiveBytes<'p> {
    program: &'p Program<'p>,
    weights: &'p [u8],
    slots: BTreeMap<u16, Vec<i8>>,
}

impl<'p> NaiveBytes<'p> {
    pub(crate) fn new(program: &'p Program<'p>, weights: &'p [u8]) -> Self {
        Self { program, weights, slots: BTreeMap::new() }
    }

    /// What a program makes of its input: the output.
    pub(crate) fn infer(&mut self, image: &[i8]) -> Vec<i8> {
        let input = self.program.inputs().next().expect("a program has an input");
        self.slots.insert(input.value.slot, image.to_vec());
        for (op, _) in self.program.steps(ALL) {
            let (output, bytes) = match op {
                Op::Conv2d(op) => (op.output, self.convolve(op)),
                Op::AveragePool(op) => (op.output, self.pool(op)),
                Op::Softmax(op) => (op.output, self.softmax(op)),
                Op::QuantizedAdd(op) => (op.output, self.add(op)),
                _ => panic!("{} is not an operation over images", op.name()),
            };
            self.slots.insert(output.slot, bytes);
        }
        let output = self.program.outputs().next().expect("a program has an output");
        self.slots[&output.value.slot].clone()
    }

    /// Those of an image, or of the rows of one that the value is.
    fn sides(&self, value: Value) -> Sides {
        let dims = self.program.slot(value.slot).expect("checked").dims;
        let [_, _, width, channels] = dims.map(i64::from);
        [i64::from(value.width) / (width * channels), width, channels]
    }

    /// A number of an image, unless the place lies outside.
    fn pixel(&self, value: Value, [y, x, channel]: [i64; 3]) -> Option<i64> {
        let [height, width, channels] = self.sides(value);
        let inside = (0..height).contains(&y) && (0..width).contains(&x);
        let at = i64::from(value.first) + (y * width + x) * channels + channel;
        inside.then(|| self.slots[&value.slot][at as usize].into())
    }

    /// The place in the image that place `k` of a window at `at` lies on.
    fn place(at: [i64; 2], k: [i64; 2], stride: [u16; 2], pad: [u16; 2]) -> [i64; 2] {
        [0, 1].map(|side| at[side] * i64::from(stride[side]) + k[side] - i64::from(pad[side]))
    }

    fn convolve(&self, op: Conv2d) -> Vec<i8> {
        let ([_, _, inputs], to) = (self.sides(op.input), self.sides(op.output));
        let [height, width] = op.kernel.map(i64::from);
        let tensor = self.program.tensor(op.weight.first).expect("checked");
        let rows = &self.weights[tensor.address as usize..][..tensor.bytes() as usize];
        let each = |[y, x, channel]: [i64; 3]| {
            let row = &rows[channel as usize * tensor.unit_bytes()..][..tensor.unit_bytes()];
            let [bias, multiplier, shift] =
                [0, 4, 8].map(|at| i32::from_le_bytes(row[at..at + 4].try_into().unwrap()));
            let mut weights = row[CHANNEL_HEAD..].iter().map(|w| i64::from(w.cast_signed()));
            let own = channel / (to[2] / inputs).max(1);
            let seen = if op.depthwise { own..own + 1 } else { 0..inputs };
            let mut sum = i64::from(bias);
            for [ky, kx] in places([height, width]) {
                let [y, x] = Self::place([y, x], [ky, kx], op.stride, op.pad);
                for channel in seen.clone() {
                    let weight = weights.next().expect("as many as the window has numbers");
                    let pixel = self.pixel(op.input, [y, x, channel]);
                    sum += pixel.map_or(0, |p| (p - i64::from(op.input_zero)) * weight);
                }
            }
            let [low, high] = op.clamp.map(i64::from);
            let scaled = scaled(sum, multiplier.into(), shift);
            (scaled + i64::from(op.output_zero)).max(low).min(high) as i8
        };
        pixels(to).map(each).collect()
    }

    fn pool(&self, op: AveragePool) -> Vec<i8> {
        let [low, high] = op.clamp.map(f64::from);
        let each = |[y, x, channel]: [i64; 3]| {
            let place = |k| Self::place([y, x], k, op.stride, op.pad);
            let under = places(op.kernel.map(i64::from)).map(place);
            let seen: Vec<i64> =
                under.filter_map(|[y, x]| self.pixel(op.input, [y, x, channel])).collect();
            let mean = seen.iter().sum::<i64>() as f64 / seen.len().max(1) as f64;
            mean.round().max(low).min(high) as i8
        };
        pixels(self.sides(op.output)).map(each).collect()
    }

    fn add(&self, op: QuantizedAdd) -> Vec<i8> {
        let [low, high] = op.clamp.map(i64::from);
        let of = |value: Value, at: usize, side: usize| {
            let x = i64::from(self.slots[&value.slot][value.first as usize + at]);
            scaled(
                (x - i64::from(op.zeros[side])) << 20,
                op.multipliers[side].into(),
                op.shifts[side],
            )
        };
        let each = |at: usize| {
            let sum = of(op.first, at, 0) + of(op.second, at, 1);
            let sum = scaled(sum, op.multipliers[2].into(), op.shifts[2]);
            (sum + i64::from(op.zeros[2])).max(low).min(high) as i8
        };
        (0..op.output.width as usize).map(each).collect()
    }

    /// Within one of the engine's.
    fn softmax(&self, op: Softmax) -> Vec<i8> {
        let scores = &self.slots[&op.input.slot];
        let largest = scores.iter().copied().max().map_or(0, i32::from);
        let scale = f64::from(op.multiplier) * f64::from(i32::from(op.shift) - 57).exp2();
        let powers = scores.iter().map(|score| match i32::from(*score) - largest {
            difference if difference < op.least_difference => 0.0,
            difference => (scale * f64::from(difference)).exp(),
        });
        let powers: Vec<f64> = powers.collect();
        let total: f64 = powers.iter().sum();
        powers
            .iter()
            .map(|power| (256.0 * power / total - 128.0).round().min(127.0) as i8)
            .collect()
    }
}

/// All places of a window or an image, row by row.
fn places([height, width]: [i64; 2]) -> impl Iterator<Item = [i64; 2]> {
    (0..height).flat_map(move |y| (0..width).map(move |x| [y, x]))
}

fn pixels([height, width, channels]: Sides) -> impl Iterator<Item = [i64; 3]> {
    places([height, width]).flat_map(move |[y, x]| (0..channels).map(move |c| [y, x, c]))
}

/// sum · multiplier · 2^(shift - 31), rounded twice: halves up, then halves away from zero.
pub(super) fn scaled(sum: i64, multiplier: i64, shift: i32) -> i64 {
    let high = ((sum << shift.max(0)) * multiplier + (1 << 30)) >> 31;
    let right = (-shift).max(0);
    let half = (1 << right) >> 1;
    high.signum() * ((high.abs() + half) >> right)
}

//! Convolutions by kernels that compute sixteen output channels at once: what they multiply is staged on the
//! stack, laid out for the lanes.

mod depthwise;
mod matrix;

use super::{Block, Head, Shape};
use crate::simd::Kernels;
use crate::simd::channels::{CHANNELS, Convolve, Heads, Sums};

/// Computes the output channels from number `first` on that a block's rows are for; false if that isn't done here.
pub(crate) fn convolve(
    kernels: &Kernels,
    shape: &Shape,
    depthwise: bool,
    (block, first): (&Block<'_>, usize),
    input: &[i8],
    output: &mut [i8],
) -> bool {
    let Some(kernels) = &kernels.convolve else { return false };
    let rows = block.rows.chunks_exact(block.row_bytes.max(1));
    // The lowest number times itself saturates, which kernels don't.
    let odd = |row: &[u8]| Head::split(row).is_none_or(|(head, _)| head.multiplier == i32::MIN);
    if first + rows.len() > shape.to[2] || rows.clone().any(odd) || !begins_on_image(shape) {
        return false;
    }
    let work = Work { kernels, shape, block, first };
    if depthwise { work.depthwise(input, output) } else { work.matrix(input, output) }
}

/// True if each window begins on the image, or before it.
fn begins_on_image(shape: &Shape) -> bool {
    let ([height, width, _], [rows, columns, _]) = (shape.from, shape.to);
    let ([down, right], [top, left]) = (shape.stride, shape.pad);
    let begins = |to: usize, stride: usize, room: usize| to > 0 && (to - 1) * stride < room;
    begins(rows, down, height + top) && begins(columns, right, width + left)
}

/// A weight times a number from which a zero point was taken.
const LARGEST_PRODUCT: u64 = 128 * 255;

struct Work<'a> {
    kernels: &'a Convolve,
    shape: &'a Shape,
    block: &'a Block<'a>,
    /// The output channel of the first row.
    first: usize,
}

impl Work<'_> {
    /// How sums become bytes, of rows whose weights have these sums; `zero` was not taken off what they were
    /// multiplied with.
    fn heads(&self, rows: &[u8], weights: &Sums, zero: i32) -> Heads {
        let rescale = self.block.rescale;
        let clamp = [rescale.low.into(), rescale.high.into()];
        let mut heads = Heads { zero: rescale.zero, clamp, ..Heads::NONE };
        let Heads { offsets, multipliers, left, right, small, .. } = &mut heads;
        let lanes = offsets.iter_mut().zip(multipliers).zip(left.iter_mut().zip(right));
        let rows = rows.chunks_exact(self.block.row_bytes.max(1));
        let largest_sum = self.block.row_bytes as u64 * LARGEST_PRODUCT;
        for ((lane, row), sum) in lanes.zip(rows).zip(weights) {
            let Some((head, _)) = Head::split(row) else { break };
            let ((offset, multiplier), (left, right)) = lane;
            *offset = head.bias.wrapping_sub(sum.wrapping_mul(zero));
            *multiplier = head.multiplier;
            *left = head.shift.clamp(0, 31);
            *right = head.shift.saturating_neg().clamp(0, 31);
            *small &= *left == 0 && largest_sum + u64::from(head.bias.unsigned_abs()) < 1 << 30;
        }
        heads
    }

    /// The weights of at most sixteen rows.
    fn weights<'r>(&self, rows: &'r [u8]) -> ([&'r [u8]; CHANNELS], usize) {
        let mut weights = [&[][..]; CHANNELS];
        let rows = rows.chunks_exact(self.block.row_bytes.max(1));
        let lanes = rows.len().min(CHANNELS);
        for (weights, row) in weights.iter_mut().zip(rows) {
            *weights = row.get(super::CHANNEL_HEAD..).unwrap_or_default();
        }
        (weights, lanes)
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "kernels are made after their instructions were detected")]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    extern crate std;

    use super::*;
    use crate::convolve::Rescale;
    use crate::convolve::direct::one;
    use crate::quant::CHANNEL_HEAD;
    use crate::simd::{PORTABLE, avx512};
    use std::vec::Vec;
    use std::{is_x86_feature_detected, vec};

    /// What this machine has.
    fn kernels() -> Option<Kernels> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("f16c");
        // SAFETY: all of it is there.
        all.then(|| unsafe { avx512::kernels(PORTABLE.crc32c) })
    }

    struct Random(u64);

    impl Random {
        fn draw(&mut self) -> u32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 24) as u32
        }

        fn from(&mut self, range: core::ops::Range<usize>) -> usize {
            range.start + self.draw() as usize % range.len()
        }

        fn bytes(&mut self, count: usize) -> Vec<i8> {
            (0..count).map(|_| self.draw() as i8).collect()
        }
    }

    fn shape(random: &mut Random, depthwise: bool) -> Shape {
        let channels = [1, 3, 4, 8, 16, 20, 33, 48][random.from(0..8)];
        let outputs = if depthwise { channels } else { random.from(1..70) };
        let kernel = [random.from(1..5), random.from(1..5)];
        let stride = [random.from(1..3), random.from(1..3)];
        let pad = [random.from(0..kernel[0]), random.from(0..kernel[1])];
        let from = [random.from(kernel[0]..12), random.from(kernel[1]..12), channels];
        // What is beside the image on the other sides is as much.
        let to = [0, 1].map(|side| (from[side] + 2 * pad[side] - kernel[side]) / stride[side] + 1);
        let (low, high) = (random.from(0..100) as i8 - 127, 127 - random.from(0..100) as i8);
        let zero = i32::from(random.draw() as i8);
        let rescale = Rescale { zero: i32::from(random.draw() as i8), low, high };
        Shape { from, to: [to[0], to[1], outputs], kernel, stride, pad, zero, rescale }
    }

    fn rows(random: &mut Random, count: usize, row_bytes: usize, weights: usize) -> Vec<u8> {
        let mut rows = vec![0; count * row_bytes];
        for row in rows.chunks_exact_mut(row_bytes) {
            let bias = random.draw().cast_signed() >> random.from(0..20);
            let multiplier = random.draw().cast_signed() >> random.from(0..3);
            let shift = random.from(0..40) as i32 - 32;
            for (word, at) in [bias, multiplier, shift].into_iter().zip([0, 4, 8]) {
                row[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
            let bytes = random.bytes(weights);
            for (to, from) in row[CHANNEL_HEAD..].iter_mut().zip(bytes) {
                *to = from.cast_unsigned();
            }
        }
        rows
    }

    #[test]
    fn images_of_any_shape_are_as_tap_by_tap() {
        let Some(kernels) = kernels() else { return };
        let mut random = Random(7);
        for number in 0..600 {
            let depthwise = number % 2 == 0;
            let shape = shape(&mut random, depthwise);
            let weights =
                shape.kernel[0] * shape.kernel[1] * if depthwise { 1 } else { shape.from[2] };
            let row_bytes = CHANNEL_HEAD + weights.next_multiple_of(4);
            let rows = rows(&mut random, shape.to[2], row_bytes, weights);
            let input = random.bytes(shape.from.iter().product());
            let mut found = vec![0; shape.to.iter().product()];
            let mut expected = found.clone();
            for (channel, row) in rows.chunks_exact(row_bytes).enumerate() {
                one(&shape, depthwise, row, channel, &input, &mut expected);
            }
            // In two blocks, as pages of rows come.
            let split = random.from(0..shape.to[2]);
            for (first, rows) in
                [(0, &rows[..split * row_bytes]), (split, &rows[split * row_bytes..])]
            {
                let block = Block { rows, row_bytes, rescale: shape.rescale };
                let block = (&block, first);
                assert!(convolve(&kernels, &shape, depthwise, block, &input, &mut found));
            }
            assert_eq!(found, expected, "{:?} {:?} {:?}", shape.from, shape.kernel, shape.stride);
        }
    }

    #[test]
    fn sums_are_as_numbers_alone_are_scaled() {
        use crate::fixed_point::multiply_by_quantized_multiplier as scale;
        use crate::simd::channels::Scale;
        let Some(kernels) = kernels().and_then(|kernels| kernels.convolve) else { return };
        let mut random = Random(3);
        for count in 1..200 {
            let values = [random.bytes(count), random.bytes(count)];
            let shifts = [0..1, 0..1, 0..60].map(|range| random.from(range) as i32 - 30);
            let scales = shifts.map(|shift| {
                let zero = i32::from(random.draw() as i8);
                Scale { zero, multiplier: random.draw().cast_signed() >> 1, shift: shift - 1 }
            });
            let clamp = [random.from(0..100) as i8 - 127, 127 - random.from(0..100) as i8];
            let mut found = vec![0; count];
            (kernels.add)([&values[0], &values[1]], scales, clamp, &mut found);
            for number in 0..count {
                let scaled = [0, 1].map(|value| {
                    let Scale { zero, multiplier, shift } = scales[value];
                    scale((i32::from(values[value][number]) - zero) << 20, multiplier, shift)
                });
                let Scale { zero, multiplier, shift } = scales[2];
                let sum = scale(scaled[0].wrapping_add(scaled[1]), multiplier, shift);
                let [low, high] = clamp.map(i32::from);
                assert_eq!(i32::from(found[number]), sum.saturating_add(zero).max(low).min(high));
            }
        }
    }
}

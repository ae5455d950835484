//! Convolutions by kernels that compute sixteen output channels at once: windows are staged as unsigned bytes,
//! weights are laid out for the lanes, both on the stack.

use super::matrix::View;
use super::{Block, Head, Shape, taps};
use crate::simd::Kernels;
use crate::simd::channels::{
    BESIDE, CHANNELS, Convolve, Heads, PAIR_ORDER, Pair, Quad, Sums, Taps, Windows,
};

/// Quads of weights that there is room for, and bytes of windows.
const QUADS: usize = 1024;
const STAGED: usize = 32 << 10;
/// Panels and windows that are multiplied at once, at most.
const PANELS: usize = 16;
const WINDOWS: usize = 64;
/// The most taps of a kernel that sees one channel.
const TAPS: usize = 64;

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
    // What is lowest times what is lowest saturates, which kernels don't.
    let odd = |row: &[u8]| Head::split(row).is_none_or(|(head, _)| head.multiplier == i32::MIN);
    if first + rows.len() > shape.to[2] || rows.clone().any(odd) {
        return false;
    }
    let work = Work { kernels, shape, block, first };
    if depthwise { work.depthwise(input, output) } else { work.matrix(input, output) }
}

struct Work<'a> {
    kernels: &'a Convolve,
    shape: &'a Shape,
    block: &'a Block<'a>,
    /// The output channel of the first row.
    first: usize,
}

impl Work<'_> {
    /// How sums become bytes, of rows whose weights have these sums; staged numbers are `above` the image's.
    fn heads(&self, rows: &[u8], weights: &Sums, above: i32) -> Heads {
        let rescale = self.block.rescale;
        let clamp = [rescale.low.into(), rescale.high.into()];
        let mut heads = Heads { zero: rescale.zero, clamp, ..Heads::default() };
        for (lane, row) in rows.chunks_exact(self.block.row_bytes.max(1)).enumerate() {
            let lanes = (heads.offsets.get_mut(lane), heads.multipliers.get_mut(lane));
            let shifts = (heads.left.get_mut(lane), heads.right.get_mut(lane));
            let (Some((head, _)), Some(sum)) = (Head::split(row), weights.get(lane)) else { break };
            if let ((Some(offset), Some(multiplier)), (Some(left), Some(right))) = (lanes, shifts) {
                let zeros = sum.wrapping_mul(self.shape.zero + above);
                *offset = head.bias.wrapping_sub(zeros);
                *multiplier = head.multiplier;
                *left = head.shift.clamp(0, 31);
                *right = head.shift.saturating_neg().clamp(0, 31);
            }
        }
        heads
    }

    /// Each output channel sees all input channels.
    fn matrix(&self, input: &[i8], output: &mut [i8]) -> bool {
        let window = self.shape.window().next_multiple_of(4);
        let depth = window / 4;
        if depth == 0 || depth > QUADS || self.block.row_bytes != super::CHANNEL_HEAD + window {
            return false;
        }
        let mut quads = [[[0; 4]; CHANNELS]; QUADS];
        let mut staged = [0; STAGED];
        let at_once = (QUADS / depth).min(PANELS);
        let windows = (STAGED / window).min(WINDOWS);
        let rows = self.block.rows.chunks(at_once * CHANNELS * self.block.row_bytes);
        for (number, rows) in rows.enumerate() {
            let mut heads = [const { None }; PANELS];
            let panels = self.pack(rows, depth, &mut quads, &mut heads);
            let first = self.first + number * at_once * CHANNELS;
            let mut pixel = 0;
            while pixel < self.shape.pixels() {
                let count = windows.min(self.shape.pixels() - pixel);
                let staged = staged.get_mut(..count * window).unwrap_or_default();
                self.stage(input, pixel, count, staged);
                self.multiply((panels, depth), &heads, staged, pixel, first, output);
                pixel += count;
            }
        }
        true
    }

    /// Lays rows out in panels.
    fn pack<'q>(
        &self,
        rows: &[u8],
        depth: usize,
        quads: &'q mut [Quad],
        heads: &mut [Option<(Heads, usize)>; PANELS],
    ) -> &'q [Quad] {
        let row_bytes = self.block.row_bytes;
        let panels = rows.chunks(CHANNELS * row_bytes);
        let used = panels.len() * depth;
        for ((rows, panel), head) in panels.zip(quads.chunks_mut(depth)).zip(heads) {
            let mut weights = [&[][..]; CHANNELS];
            let all = rows.chunks_exact(row_bytes);
            let lanes = all.len();
            for (weights, row) in weights.iter_mut().zip(all) {
                *weights = row.get(super::CHANNEL_HEAD..).unwrap_or_default();
            }
            let sums = (self.kernels.pack)(&weights, panel);
            *head = Some((self.heads(rows, &sums, 128), lanes));
        }
        quads.get(..used).unwrap_or_default()
    }

    /// Multiplies panels with the windows of pixels from number `pixel` on, and writes what comes of it.
    fn multiply(
        &self,
        (panels, depth): (&[Quad], usize),
        heads: &[Option<(Heads, usize)>],
        staged: &[u8],
        pixel: usize,
        first: usize,
        output: &mut [i8],
    ) {
        let count = staged.len() / (4 * depth);
        let channels = self.shape.to[2];
        let mut sums = [[0; CHANNELS]; 2 * WINDOWS];
        for (number, (panels, heads)) in panels.chunks(2 * depth).zip(heads.chunks(2)).enumerate() {
            let used = panels.len() / depth * count;
            let sums = sums.get_mut(..used).unwrap_or_default();
            (self.kernels.multiply)(panels, depth, staged, sums);
            for (half, (sums, heads)) in sums.chunks(count).zip(heads).enumerate() {
                let Some((heads, lanes)) = heads else { break };
                let channel = first + (2 * number + half) * CHANNELS;
                let out = output.get_mut(pixel * channels + channel..).unwrap_or_default();
                (self.kernels.rescale)(sums, heads, out, channels, *lanes);
            }
        }
    }

    /// Stages the windows of `count` pixels.
    fn stage(&self, input: &[i8], mut pixel: usize, count: usize, staged: &mut [u8]) {
        let shape = self.shape;
        let (columns, end) = (shape.to[1].max(1), pixel + count);
        let window = shape.window().next_multiple_of(4);
        let row = shape.kernel[1] * shape.from[2];
        let step = shape.stride[1] * shape.from[2];
        let mut staged = staged;
        // Windows are filled up with zeros, which are 128 here.
        staged.fill(128);
        let pixels = shape.kernel == [1, 1] && shape.pad == [0; 2] && shape.stride == [1, 1];
        while pixel < end {
            let at = [pixel / columns, pixel % columns];
            let view = View::new(shape, at);
            let whole = if pixels { end - pixel } else { self.whole(at).min(end - pixel) };
            let count = if view.whole { whole.max(1) } else { 1 };
            let Some((here, rest)) =
                core::mem::take(&mut staged).split_at_mut_checked(count * window)
            else {
                return;
            };
            let [[ky0, ky1], [kx0, kx1]] = view.seen;
            let place = (ky0 * shape.kernel[1] + kx0) * shape.from[2];
            let seen = input.get(view.start..).unwrap_or_default();
            if !view.whole {
                here.fill((shape.zero as u8) ^ 128);
            }
            let windows = Windows {
                count,
                steps: [step, window],
                lines: [ky1 - ky0, (kx1 - kx0) * shape.from[2]],
                line_steps: [view.step, row],
            };
            (self.kernels.stage)(seen, windows, here.get_mut(place..).unwrap_or_default());
            staged = rest;
            pixel += count;
        }
    }

    /// Pixels of a row from one on whose windows lie on the image, if the first does.
    fn whole(&self, [_, x]: [usize; 2]) -> usize {
        let Shape { from: [_, width, _], to: [_, columns, _], kernel, stride, pad, .. } =
            *self.shape;
        let Some(room) = (width + pad[1]).checked_sub(kernel[1]) else { return 0 };
        columns.min(room / stride[1].max(1) + 1).saturating_sub(x)
    }

    /// Each output channel sees one input channel.
    fn depthwise(&self, input: &[i8], output: &mut [i8]) -> bool {
        let shape = self.shape;
        let [height, width] = shape.kernel;
        let area = height * width;
        if shape.from[2] != shape.to[2] || area == 0 || area > TAPS {
            return false;
        }
        if self.block.row_bytes < super::CHANNEL_HEAD + area {
            return false;
        }
        let rows = self.block.rows.chunks(CHANNELS * self.block.row_bytes);
        for (number, rows) in rows.enumerate() {
            let mut weights = [[[0; 2]; CHANNELS]; TAPS / 2];
            let sums = self.pairs(rows, &mut weights);
            let heads = self.heads(rows, &sums, 0);
            let channels = Channels {
                first: self.first + number * CHANNELS,
                lanes: rows.len() / self.block.row_bytes,
                weights: weights.get(..area.div_ceil(2)).unwrap_or_default(),
                heads,
            };
            for y in 0..shape.to[0] {
                self.row(y, &channels, input, output);
            }
        }
        true
    }

    /// Lays the weights of sixteen rows out by pairs of taps; returns their sums.
    fn pairs(&self, rows: &[u8], weights: &mut [Pair]) -> Sums {
        let area = self.shape.kernel[0] * self.shape.kernel[1];
        let mut sums = [0i32; CHANNELS];
        for (lane, row) in rows.chunks_exact(self.block.row_bytes).enumerate() {
            let place = PAIR_ORDER.iter().position(|channel| *channel == lane);
            let (Some(place), Some(sum)) = (place, sums.get_mut(lane)) else { break };
            let taps = row.get(super::CHANNEL_HEAD..).unwrap_or_default();
            for (number, weight) in taps.iter().take(area).enumerate() {
                let weight = weight.cast_signed();
                *sum = sum.wrapping_add(weight.into());
                let pair = weights.get_mut(number / 2).and_then(|pair| pair.get_mut(place));
                if let Some(place) = pair.and_then(|pair| pair.get_mut(number % 2)) {
                    *place = weight.into();
                }
            }
        }
        sums
    }

    /// Computes a row of pixels of sixteen channels.
    fn row(&self, y: usize, channels: &Channels<'_>, input: &[i8], output: &mut [i8]) {
        let Shape {
            from: [height, width, all],
            to: [_, columns, _],
            kernel,
            stride,
            pad,
            zero,
            ..
        } = *self.shape;
        let [top, ky0, ky1] = taps(y, stride[0], pad[0], kernel[0], height);
        let mut sums = [[0; CHANNELS]; WINDOWS];
        let mut x = 0;
        while x < columns {
            let [left, kx0, kx1] = taps(x, stride[1], pad[1], kernel[1], width);
            let whole = kx0 == 0 && kx1 == kernel[1];
            let count = if whole { self.whole([y, x]).clamp(1, WINDOWS) } else { 1 };
            let mut places = [BESIDE; TAPS];
            for (ky, line) in places.chunks_mut(kernel[1].max(1)).take(kernel[0]).enumerate() {
                for (kx, place) in line.iter_mut().enumerate() {
                    if (ky0..ky1).contains(&ky) && (kx0..kx1).contains(&kx) {
                        let pixel = (top + ky - pad[0]) * width + left + kx - pad[1];
                        *place = pixel * all + channels.first;
                    }
                }
            }
            let places = places.get(..kernel[0] * kernel[1]).unwrap_or_default();
            let seen =
                Taps { places, step: stride[1] * all, lanes: channels.lanes, zero: zero as i8 };
            let sums = sums.get_mut(..count).unwrap_or_default();
            (self.kernels.depthwise)(input, seen, channels.weights, sums);
            let place = (y * columns + x) * all + channels.first;
            let out = output.get_mut(place..).unwrap_or_default();
            (self.kernels.rescale)(sums, &channels.heads, out, all, channels.lanes);
            x += count;
        }
    }
}

/// At most sixteen channels, each of which sees itself.
struct Channels<'a> {
    first: usize,
    lanes: usize,
    weights: &'a [Pair],
    heads: Heads,
}

#[cfg(test)]
#[expect(unsafe_code, reason = "kernels are made after their instructions were detected")]
mod tests {
    extern crate std;

    use super::super::direct::one;
    use super::*;
    use crate::convolve::Rescale;
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
}

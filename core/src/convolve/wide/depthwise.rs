//! Each output channel sees one input channel: four pixels side by side, times four weights.

use super::Work;
use crate::convolve::CHANNEL_HEAD;
use crate::simd::channels::{CHANNELS, Heads, Quad, Row, Sums};
use core::ops::Range;

/// Quads of an image that are staged, at most; where fewer do; and quads of weights.
const STAGED: usize = 512;
const FEW_STAGED: usize = 64;
const WEIGHTS: usize = 32;
/// Sums of a row that are computed at once.
const SUMS: usize = 64;

/// At most sixteen channels, each of which sees itself.
struct Channels<'a> {
    /// The number of the first, and how many there are.
    first: usize,
    lanes: usize,
    weights: &'a [Quad],
    heads: Heads,
    /// The columns of the output that are computed.
    columns: Range<usize>,
    /// Columns that are staged.
    width: usize,
}

impl Work<'_> {
    /// Computes what `convolve` is asked for; false if that isn't done here.
    pub(super) fn depthwise(&self, input: &[i8], output: &mut [i8]) -> bool {
        let shape = self.shape;
        let [height, width] = shape.kernel;
        // Columns of the image that fit, and of the output then.
        let room = STAGED / height.max(1);
        let fits = height * width > 0 && width <= room && height * width.div_ceil(4) <= WEIGHTS;
        let one_each = shape.from[2] == shape.to[2];
        if !fits || !one_each || self.block.row_bytes < CHANNEL_HEAD + height * width {
            return false;
        }
        let columns = ((room - width) / shape.stride[1].max(1) + 1).min(SUMS);
        let seen = (shape.to[1].min(columns) - 1) * shape.stride[1] + width;
        if height * seen <= FEW_STAGED {
            self.strips::<FEW_STAGED>(columns, input, output);
        } else {
            self.strips::<STAGED>(columns, input, output);
        }
        true
    }

    /// So many columns of the output at once.
    fn strips<const STAGED: usize>(&self, columns: usize, input: &[i8], output: &mut [i8]) {
        let shape = self.shape;
        let [height, width] = shape.kernel;
        let mut weights = [[[0; 4]; CHANNELS]; WEIGHTS];
        let mut quads = [[[0; 4]; CHANNELS]; STAGED];
        for (number, rows) in self.block.rows.chunks(CHANNELS * self.block.row_bytes).enumerate() {
            let (sums, lanes) = self.quads(rows, &mut weights);
            let weights = weights.get(..height * width.div_ceil(4)).unwrap_or_default();
            for first in (0..shape.to[1]).step_by(columns) {
                let columns = first..shape.to[1].min(first + columns);
                let channels = Channels {
                    first: self.first + number * CHANNELS,
                    lanes,
                    weights,
                    heads: self.heads(rows, &sums, shape.zero + 128),
                    width: (columns.len() - 1) * shape.stride[1] + width,
                    columns,
                };
                self.strip(&channels, input, &mut quads, output);
            }
        }
    }

    /// Lays the weights of at most sixteen rows out by columns of the kernel; returns their sums, and how many
    /// rows there are.
    fn quads(&self, rows: &[u8], weights: &mut [Quad]) -> (Sums, usize) {
        let [height, width] = self.shape.kernel;
        let (all, lanes) = self.weights(rows);
        let mut sums = [0i32; CHANNELS];
        let quads = width.div_ceil(4);
        weights.iter_mut().take(height * quads).for_each(|quad| *quad = [[0; 4]; CHANNELS]);
        for ((lane, row), sum) in (0..).zip(all).zip(&mut sums) {
            for (line, taps) in weights.chunks_mut(quads.max(1)).zip(row.chunks(width)).take(height)
            {
                for (quad, taps) in line.iter_mut().zip(taps.chunks(4)) {
                    for (weight, tap) in quad.get_mut(lane).into_iter().flatten().zip(taps) {
                        *weight = *tap;
                        *sum = sum.wrapping_add(tap.cast_signed().into());
                    }
                }
            }
        }
        (sums, lanes)
    }

    /// Computes columns of the output, row by row; rows of the image are staged in turn.
    fn strip(&self, channels: &Channels<'_>, input: &[i8], quads: &mut [Quad], output: &mut [i8]) {
        let shape = self.shape;
        let (height, width) = (shape.kernel[0], shape.kernel[1].div_ceil(4));
        let mut sums = [[0; CHANNELS]; SUMS];
        let sums = sums.get_mut(..channels.columns.len()).unwrap_or_default();
        let mut places = [0; WEIGHTS];
        let places = places.get_mut(..height * width).unwrap_or_default();
        let mut staged = 0;
        for y in 0..shape.to[0] {
            // Rows of the image are counted from those above it.
            let top = y * shape.stride[0];
            for row in staged.max(top)..top + height {
                let start = row % height * channels.width;
                let quads = quads.get_mut(start..start + channels.width).unwrap_or_default();
                self.stage_row(row, channels, input, quads);
            }
            staged = top + height;
            for (ky, line) in places.chunks_mut(width.max(1)).enumerate() {
                let start = (top + ky) % height * channels.width;
                for (kx, place) in line.iter_mut().enumerate() {
                    *place = start + 4 * kx;
                }
            }
            (self.kernels.depthwise)(quads, places, shape.stride[1], channels.weights, sums);
            let pixel = y * shape.to[1] + channels.columns.start;
            let out = output.get_mut(pixel * shape.to[2] + channels.first..).unwrap_or_default();
            (self.kernels.rescale)(sums, &channels.heads, out, shape.to[2], channels.lanes);
        }
    }

    /// Stages the columns of a row that are seen.
    fn stage_row(&self, row: usize, channels: &Channels<'_>, input: &[i8], quads: &mut [Quad]) {
        let shape = self.shape;
        let [height, width, all] = shape.from;
        // The first column that is seen, counted from those left of the image.
        let left = channels.columns.start * shape.stride[1];
        let before = shape.pad[1].saturating_sub(left);
        let start = left.saturating_sub(shape.pad[1]);
        let y = row.checked_sub(shape.pad[0]).filter(|y| *y < height);
        let seen = if y.is_some() { width.saturating_sub(start) } else { 0 };
        let place = (y.unwrap_or(0) * width + start) * all + channels.first;
        let image = input.get(place..).unwrap_or_default();
        let row = Row { step: all, lanes: channels.lanes, before, seen, zero: shape.zero as i8 };
        (self.kernels.quads)(image, row, quads);
    }
}

//! Each output channel sees all input channels: windows times panels of weights.

use super::Work;
use crate::convolve::CHANNEL_HEAD;
use crate::convolve::matrix::View;
use crate::simd::channels::{CHANNELS, Heads, Quad, Sums, Windows};

/// The most quads of weights, and the most bytes of windows: what a core's nearest caches hold.
const QUADS: usize = 1024;
const STAGED: usize = 8 << 10;
/// Where less does: clearing takes longer than small images do.
const FEW_QUADS: usize = 160;
const FEW_STAGED: usize = 4 << 10;
/// Panels and windows that are multiplied at once, at most.
const PANELS: usize = 16;
const WINDOWS: usize = 64;

/// What windows are multiplied with.
struct Panels<'a> {
    quads: &'a [Quad],
    /// Quads of a panel.
    depth: usize,
    heads: &'a [Heads],
    /// The output channel of the first row, and how many there are.
    first: usize,
    rows: usize,
}

impl Work<'_> {
    /// Computes what `convolve` is asked for; false if that isn't done here.
    pub(super) fn matrix(&self, input: &[i8], output: &mut [i8]) -> bool {
        let window = self.shape.window().next_multiple_of(4);
        let depth = window / 4;
        if depth == 0 || depth > QUADS || self.block.row_bytes != CHANNEL_HEAD + window {
            return false;
        }
        let pixels = self.shape.pixels();
        let panels = (self.block.rows.len() / self.block.row_bytes).div_ceil(CHANNELS);
        if pixels == 1 && window <= FEW_STAGED {
            self.vector(input, output);
        } else if panels * depth <= FEW_QUADS {
            self.tiles::<FEW_QUADS, FEW_STAGED>(input, output);
        } else {
            self.tiles::<QUADS, STAGED>(input, output);
        }
        true
    }

    /// One window.
    fn vector(&self, input: &[i8], output: &mut [i8]) {
        let mut staged = [0; FEW_STAGED];
        let window = self.shape.window().next_multiple_of(4);
        let staged = staged.get_mut(..window).unwrap_or_default();
        self.stage(input, 0..1, staged);
        let rows = self.block.rows.chunks(CHANNELS * self.block.row_bytes);
        let out = output.get_mut(self.first..).unwrap_or_default();
        for (rows, out) in rows.zip(out.chunks_mut(CHANNELS)) {
            let (weights, lanes) = self.weights(rows);
            let weights = weights.get(..lanes).unwrap_or_default();
            let sums = (self.kernels.dot)(weights, staged, self.shape.zero);
            let heads = self.heads(rows, &[0; CHANNELS], 0);
            (self.kernels.rescale)(&[sums], &heads, out, 0, lanes);
        }
    }

    /// Tiles of windows, times as many panels as there is room for.
    fn tiles<const QUADS: usize, const STAGED: usize>(&self, input: &[i8], output: &mut [i8]) {
        let window = self.shape.window().next_multiple_of(4);
        let depth = window / 4;
        let mut quads = [[[0; 4]; CHANNELS]; QUADS];
        let mut heads = [const { Heads::NONE }; PANELS];
        let mut staged = [0; STAGED];
        let mut sums = [[0; CHANNELS]; 2 * WINDOWS];
        let row_bytes = self.block.row_bytes;
        let at_once = (QUADS / depth).clamp(1, PANELS) * CHANNELS;
        let windows = (STAGED / window).clamp(1, WINDOWS);
        let pixels = self.shape.pixels();
        for (number, rows) in self.block.rows.chunks(at_once * row_bytes).enumerate() {
            let used = self.pack(rows, depth, &mut quads, &mut heads);
            let quads = quads.get(..used * depth).unwrap_or_default();
            let heads = heads.get(..used).unwrap_or_default();
            let first = self.first + number * at_once;
            let panels = Panels { quads, depth, heads, first, rows: rows.len() / row_bytes };
            for pixel in (0..pixels).step_by(windows) {
                let end = pixels.min(pixel + windows);
                let staged = staged.get_mut(..(end - pixel) * window).unwrap_or_default();
                self.stage(input, pixel..end, staged);
                self.multiply(&panels, pixel, staged, &mut sums, output);
            }
        }
    }

    /// Lays rows out in panels; returns how many there are.
    fn pack(&self, rows: &[u8], depth: usize, quads: &mut [Quad], heads: &mut [Heads]) -> usize {
        let panels = rows.chunks(CHANNELS * self.block.row_bytes);
        let used = panels.len();
        for ((rows, panel), head) in panels.zip(quads.chunks_mut(depth)).zip(heads) {
            let sums = (self.kernels.pack)(&self.weights(rows).0, panel);
            *head = self.heads(rows, &sums, self.shape.zero + 128);
        }
        used
    }

    /// Multiplies panels with the windows of pixels from number `pixel` on, and writes what comes of it.
    fn multiply(
        &self,
        panels: &Panels<'_>,
        pixel: usize,
        staged: &[u8],
        sums: &mut [Sums],
        output: &mut [i8],
    ) {
        let &Panels { quads, depth, heads, first, rows } = panels;
        let count = (staged.len() / (4 * depth)).max(1);
        let channels = self.shape.to[2];
        for (number, (quads, heads)) in quads.chunks(2 * depth).zip(heads.chunks(2)).enumerate() {
            let sums = sums.get_mut(..heads.len() * count).unwrap_or_default();
            (self.kernels.multiply)(quads, depth, staged, sums);
            for (half, (sums, heads)) in sums.chunks(count).zip(heads).enumerate() {
                let before = (2 * number + half) * CHANNELS;
                let place = pixel * channels + first + before;
                let out = output.get_mut(place..).unwrap_or_default();
                (self.kernels.rescale)(sums, heads, out, channels, rows.saturating_sub(before));
            }
        }
    }

    /// Stages the windows of pixels.
    fn stage(&self, input: &[i8], pixels: core::ops::Range<usize>, mut staged: &mut [u8]) {
        let shape = self.shape;
        let columns = shape.to[1].max(1);
        let window = shape.window().next_multiple_of(4);
        if window != shape.window() {
            // Windows are filled up with the number 0.
            staged.fill(128);
        }
        let all = shape.from[..2] == shape.to[..2];
        let singly = all && [shape.kernel, shape.stride] == [[1; 2]; 2] && shape.pad == [0; 2];
        let mut pixel = pixels.start;
        while pixel < pixels.end {
            let at = [pixel / columns, pixel % columns];
            let view = View::new(shape, at);
            let left = pixels.end - pixel;
            let count = match (singly, view.whole) {
                (true, _) => left,
                (_, true) => self.whole(at[1]).clamp(1, left),
                _ => 1,
            };
            let (here, rest) = core::mem::take(&mut staged)
                .split_at_mut_checked(count * window)
                .unwrap_or_default();
            if !view.whole {
                here.fill((shape.zero as u8) ^ 128);
            }
            let [[ky0, ky1], [kx0, kx1]] = view.seen;
            let windows = Windows {
                count,
                steps: [shape.stride[1] * shape.from[2], window],
                lines: [ky1 - ky0, (kx1 - kx0) * shape.from[2]],
                line_steps: [view.step, shape.kernel[1] * shape.from[2]],
            };
            let place = (ky0 * shape.kernel[1] + kx0) * shape.from[2];
            let seen = input.get(view.start..).unwrap_or_default();
            (self.kernels.stage)(seen, windows, here.get_mut(place..).unwrap_or_default());
            staged = rest;
            pixel += count;
        }
    }

    /// Pixels of a row from one on whose windows lie on the image, if the first does.
    fn whole(&self, x: usize) -> usize {
        let shape = self.shape;
        let room = (shape.from[1] + shape.pad[1]).saturating_sub(shape.kernel[1]);
        shape.to[1].min(room / shape.stride[1].max(1) + 1).saturating_sub(x)
    }
}

//! Convolutions in which each output channel sees all input channels: rows of weights times windows.

use super::{Block, Head, Shape, kernels, portable, taps};
use crate::quant::CHANNEL_HEAD;
use zerocopy::FromBytes;

/// Rows that are multiplied with a window after another.
const ROWS: usize = 256;

impl Shape {
    fn pixels(&self) -> usize {
        self.to[0] * self.to[1]
    }

    /// Numbers of a window.
    fn window(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.from[2]
    }

    /// True if the one window is the whole image, in quads.
    fn is_vector(&self) -> bool {
        let [height, width, _] = self.from;
        let whole = [height, width] == self.kernel && self.pad == [0; 2];
        self.pixels() == 1 && whole && self.in_quads()
    }

    /// True if a pixel's channels are quads, so that quads of a window are quads of the image.
    fn in_quads(&self) -> bool {
        self.from[2].is_multiple_of(4)
    }

    /// Bytes that [`matrix`] stages windows in.
    pub(crate) fn matrix_staging(&self) -> u64 {
        let window = (self.window() as u64).next_multiple_of(4);
        let pair = if self.pixels() > 1 { 4 * window } else { 0 };
        let gathered = !self.in_quads() || self.pixels() == 1 && !self.is_vector();
        pair + if gathered { window } else { 0 }
    }
}

/// Computes the output channels from number `first` on that `rows` are for.
pub(crate) fn matrix(
    shape: &Shape,
    block: &Block<'_>,
    first: usize,
    input: &[i8],
    output: &mut [i8],
    staging: &mut [u8],
) {
    let window = shape.window().next_multiple_of(4);
    let rows = block.rows.len() / block.row_bytes.max(1);
    if block.row_bytes != CHANNEL_HEAD + window || first + rows > shape.to[2] {
        return;
    }
    if shape.pixels() == 1 {
        let out = output.get_mut(first..first + rows).unwrap_or_default();
        let gathered = staging.get_mut(..window).unwrap_or_default();
        let at = [0; 2];
        let x = if shape.is_vector() { input } else { gather(shape, input, at, gathered) };
        return vector(shape, block, x, out);
    }
    let (pair, bytes) = staging.split_at_mut_checked(4 * window).unwrap_or_default();
    let Ok(pair) = <[i16]>::mut_from_bytes(pair) else { return };
    let bytes = bytes.get_mut(..window).unwrap_or_default();
    let mut pair = Pair { shape, input, pair, bytes };
    for (number, rows) in block.rows.chunks(ROWS.saturating_mul(block.row_bytes).max(1)).enumerate()
    {
        pair.multiply(&Block { rows, ..*block }, first + ROWS * number, output);
    }
}

/// Multiplies rows with the bytes of one window.
fn vector(shape: &Shape, block: &Block<'_>, x: &[i8], out: &mut [i8]) {
    let fits = kernels::fits(block.rows, block.row_bytes);
    let done = if fits { kernels::multiply_vector(block, x, shape.zero, out) } else { 0 };
    let rows = block.rows.get(done * block.row_bytes..).unwrap_or_default();
    let rest = out.get_mut(done..).unwrap_or_default();
    portable::multiply_vector(&Block { rows, ..*block }, x, shape.zero, rest);
}

/// What rows do with any window: those without a weight are constant, and the others are live; their numbers
/// ascend.
struct Rows {
    live: [u16; ROWS],
    count: usize,
    constants: [i8; ROWS],
}

impl Rows {
    fn of(block: &Block<'_>) -> Self {
        let mut rows = Self { live: [0; ROWS], count: 0, constants: [0; ROWS] };
        let all = block.rows.chunks_exact(block.row_bytes.max(1));
        for ((number, row), constant) in (0..).zip(all).zip(&mut rows.constants) {
            let Some((head, weights)) = Head::split(row) else { break };
            if weights.iter().all(|weight| *weight == 0) {
                *constant = block.rescale.byte(head, head.bias);
            } else if let Some(place) = rows.live.get_mut(rows.count) {
                *place = number;
                rows.count += 1;
            }
        }
        rows
    }
}

/// Two windows at a time.
struct Pair<'a> {
    shape: &'a Shape,
    input: &'a [i8],
    /// Both windows, as kernels want them.
    pair: &'a mut [i16],
    /// One window's bytes, where these have to be put together first.
    bytes: &'a mut [u8],
}

impl Pair<'_> {
    /// Computes the output channels from number `first` on that at most [`ROWS`] rows are for.
    fn multiply(&mut self, block: &Block<'_>, first: usize, output: &mut [i8]) {
        let all = Rows::of(block);
        let live = all.live.get(..all.count).unwrap_or_default();
        let rows = block.rows.len() / block.row_bytes.max(1);
        let constants = all.constants.get(..rows).unwrap_or_default();
        let fits = kernels::all_fit(block, live);
        let multiply = if fits { kernels::multiply } else { portable::multiply };
        let [height, width, channels] = self.shape.to;
        let pixels = height * width;
        let [mut y, mut x] = [0; 2];
        let mut pixel = 0;
        while pixel < pixels {
            if pixel + 1 == pixels {
                // The last pair has two windows, too.
                pixel -= 1;
                [y, x] = [pixel / width.max(1), pixel % width.max(1)];
            }
            for number in 0..2 {
                self.stage([y, x], number, fits);
                x += 1;
                if x == width {
                    [y, x] = [y + 1, 0];
                }
            }
            let behind = output.get_mut(pixel * channels + first..).unwrap_or_default();
            let (a, b) = behind.split_at_mut_checked(channels).unwrap_or_default();
            let [a, b] = [a, b].map(|out| out.get_mut(..rows).unwrap_or_default());
            if live.len() < rows {
                copy(constants, a);
                copy(constants, b);
            }
            multiply(block, live, self.pair, [a, b]);
            pixel += 2;
        }
    }

    /// Stages the window of a pixel.
    fn stage(&mut self, at: [usize; 2], number: usize, fits: bool) {
        let Self { shape, input, pair, bytes } = self;
        let (stage, blank) = match fits {
            true => (kernels::stage as Stage, kernels::blank as Blank),
            false => (portable::stage as Stage, portable::blank as Blank),
        };
        if !shape.in_quads() {
            return stage(gather(shape, input, at, bytes), 0, pair, number, shape.zero);
        }
        let (channels, [height, width]) = (shape.from[2], shape.kernel);
        if height == 1 && width == 1 && shape.pad == [0; 2] {
            let pixel = at[0] * shape.stride[0] * shape.from[1] + at[1] * shape.stride[1];
            let start = pixel * channels;
            let seen = input.get(start..start + channels).unwrap_or_default();
            return stage(seen, 0, pair, number, shape.zero);
        }
        let view = View::new(shape, at);
        if view.is_whole(shape) {
            let row = width * channels;
            for ky in 0..height {
                let start = view.start + ky * view.step;
                let seen = input.get(start..start + row).unwrap_or_default();
                stage(seen, ky * row, pair, number, shape.zero);
            }
            return;
        }
        blank(height * width * channels / 4, 0, pair, number);
        let [[ky0, ky1], [kx0, kx1]] = view.seen;
        for ky in ky0..ky1 {
            let start = view.start + (ky - ky0) * view.step;
            let seen = input.get(start..start + (kx1 - kx0) * channels).unwrap_or_default();
            stage(seen, (ky * width + kx0) * channels, pair, number, shape.zero);
        }
    }
}

/// Copies bytes to where there is room for as many.
fn copy(from: &[i8], to: &mut [i8]) {
    if from.len() == to.len() {
        to.copy_from_slice(from);
    }
}

type Stage = fn(&[i8], usize, &mut [i16], usize, i32);
type Blank = fn(usize, usize, &mut [i16], usize);

/// What a window sees of an image.
struct View {
    /// The first and the end of its rows, and of its columns, that lie on the image.
    seen: [[usize; 2]; 2],
    /// Where they begin in the image, and from a row to the next.
    start: usize,
    step: usize,
}

impl View {
    fn new(shape: &Shape, [y, x]: [usize; 2]) -> Self {
        let Shape { from: [height, width, channels], kernel, stride, pad, .. } = *shape;
        let [top, ky0, ky1] = taps(y, stride[0], pad[0], kernel[0], height);
        let [left, kx0, kx1] = taps(x, stride[1], pad[1], kernel[1], width);
        if ky0 >= ky1 || kx0 >= kx1 {
            return Self { seen: [[0; 2]; 2], start: 0, step: 0 };
        }
        let first = (top + ky0 - pad[0]) * width + left + kx0 - pad[1];
        let seen = [[ky0, ky1], [kx0, kx1]];
        Self { seen, start: first * channels, step: width * channels }
    }

    /// True if all of the window lies on the image.
    fn is_whole(&self, shape: &Shape) -> bool {
        self.seen == shape.kernel.map(|size| [0, size])
    }
}

/// Puts the bytes of a pixel's window together, and fills them up to quads.
fn gather<'b>(shape: &Shape, input: &[i8], at: [usize; 2], bytes: &'b mut [u8]) -> &'b [i8] {
    let Ok(bytes) = <[i8]>::mut_from_bytes(bytes) else { return &[] };
    let view = View::new(shape, at);
    let (channels, [height, width]) = (shape.from[2], shape.kernel);
    let (row, seen) = (width * channels, input.get(view.start..).unwrap_or_default());
    if view.is_whole(shape) && kernels::gather(seen, view.step, row, height, bytes) {
        bytes.get_mut(height * row..).unwrap_or_default().fill(0);
        return bytes;
    }
    bytes.fill(shape.zero as i8);
    let [[ky0, ky1], [kx0, kx1]] = view.seen;
    for ky in ky0..ky1 {
        let place = (ky * width + kx0) * channels;
        let length = (kx1 - kx0) * channels;
        let start = (ky - ky0) * view.step;
        let seen = seen.get(start..start + length);
        let out = bytes.get_mut(place..place + length).unwrap_or_default();
        copy(seen.unwrap_or_default(), out);
    }
    bytes
}

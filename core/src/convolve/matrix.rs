//! Convolutions in which each output channel sees all input channels: rows of weights times windows.

use super::direct::one;
use super::{Block, Head, NEAR, Shape, Tile, WIDE, kernels, portable, taps};
use crate::quant::CHANNEL_HEAD;
use zerocopy::FromBytes;

/// Rows that are multiplied with a window after another.
const ROWS: usize = 256;

impl Shape {
    pub(super) fn pixels(&self) -> usize {
        self.to[0] * self.to[1]
    }

    /// Numbers of a window.
    pub(super) fn window(&self) -> usize {
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

    /// Bytes that [`matrix`] stages windows in: their numbers, and their bytes where these have to be put
    /// together first.
    pub(crate) fn matrix_staging(&self) -> u64 {
        let window = (self.window() as u64).next_multiple_of(4);
        let windows = self.windows() as u64;
        let near = self.pixels() == 1 && window <= NEAR as u64;
        let numbers = if near { 0 } else { 2 * windows * window };
        numbers + if self.gathers() { windows * window } else { 0 }
    }

    /// True if the bytes of windows have to be put together first.
    fn gathers(&self) -> bool {
        !self.in_quads() || self.pixels() == 1 && !self.is_vector()
    }

    /// The most windows of a tile.
    fn windows(&self) -> usize {
        match self.pixels() {
            1 => 1,
            _ if self.window() > WIDE => 2,
            _ => 4,
        }
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
    let windows = shape.windows();
    let gathered = if shape.gathers() { windows * window } else { 0 };
    let (bytes, numbers) = staging.split_at_mut_checked(gathered).unwrap_or_default();
    if windows == 1 {
        let out = output.get_mut(first..first + rows).unwrap_or_default();
        let x = if shape.is_vector() { input } else { gather(shape, input, [0; 2], bytes) };
        return vector(shape, block, x, numbers, out);
    }
    let Ok(numbers) = <[i16]>::mut_from_bytes(numbers) else { return };
    let mut tiles = Tiles { shape, input, numbers, bytes, window };
    for (number, rows) in block.rows.chunks(ROWS.saturating_mul(block.row_bytes).max(1)).enumerate()
    {
        tiles.multiply(&Block { rows, ..*block }, first + ROWS * number, output);
    }
}

/// Multiplies rows with the bytes of one window.
fn vector(shape: &Shape, block: &Block<'_>, x: &[i8], room: &mut [u8], out: &mut [i8]) {
    if !kernels::multiply_vector(block, x, shape.zero, room, out) {
        portable::multiply_vector(block, x, shape.zero, room, out);
    }
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
            // Rows are filled up to words.
            if weights.as_chunks().0.iter().all(|word| u32::from_le_bytes(*word) == 0) {
                *constant = block.rescale.byte(head, head.bias);
            } else if let Some(place) = rows.live.get_mut(rows.count) {
                *place = number;
                rows.count += 1;
            }
        }
        rows
    }
}

/// The image, tile by tile.
struct Tiles<'a> {
    shape: &'a Shape,
    input: &'a [i8],
    numbers: &'a mut [i16],
    /// The windows' bytes, where these have to be put together first.
    bytes: &'a mut [u8],
    /// Numbers of a window.
    window: usize,
}

impl Tiles<'_> {
    /// Computes the output channels from number `first` on that at most [`ROWS`] rows are for.
    #[inline(never)]
    fn multiply(&mut self, block: &Block<'_>, first: usize, output: &mut [i8]) {
        let all = Rows::of(block);
        let live = all.live.get(..all.count).unwrap_or_default();
        let rows = block.rows.len() / block.row_bytes.max(1);
        if !kernels::all_fit(block, live) {
            for (channel, row) in (first..).zip(block.rows.chunks_exact(block.row_bytes.max(1))) {
                one(self.shape, false, row, channel, self.input, output);
            }
            return;
        }
        let constants = all.constants.get(..rows).unwrap_or_default();
        let (pixels, channels) = (self.shape.pixels(), self.shape.to[2]);
        let all_live = live.len() == rows && rows >= 4;
        let mut pixel = 0;
        while pixel < pixels {
            let windows = kernels::windows(pixels - pixel, self.window, all_live);
            // The last tile is full, too.
            pixel = pixel.min(pixels.saturating_sub(windows));
            let Some(tile) = self.stage(pixel, windows) else { return };
            let out = output.get_mut(pixel * channels + first..).unwrap_or_default();
            if live.len() < rows {
                for out in out.chunks_mut(channels.max(1)).take(windows) {
                    copy(constants, out.get_mut(..rows).unwrap_or_default());
                }
            }
            kernels::multiply(block, live, &tile, (out, channels));
            pixel += windows;
        }
    }

    /// Stages the windows of pixels, from one on.
    fn stage(&mut self, pixel: usize, windows: usize) -> Option<Tile<'_>> {
        let Self { shape, input, numbers, bytes, window } = self;
        let (window, channels, [height, width]) = (*window, shape.from[2], shape.kernel);
        let numbers = numbers.get_mut(..windows * window)?;
        let mut tile = Tile { numbers, windows };
        let columns = shape.to[1].max(1);
        let at = |number: usize| [(pixel + number) / columns, (pixel + number) % columns];
        if !shape.in_quads() {
            for (number, bytes) in bytes.chunks_exact_mut(window.max(1)).take(windows).enumerate() {
                gather(shape, input, at(number), bytes);
            }
            let bytes = <[i8]>::ref_from_bytes(bytes).ok()?;
            if !kernels::stage_four(bytes, window, [window, 1, 0], &mut tile, shape.zero) {
                for (number, bytes) in bytes.chunks_exact(window.max(1)).take(windows).enumerate() {
                    kernels::stage(bytes, 0, &mut tile, number, shape.zero);
                }
            }
            return Some(tile);
        }
        let [first, last] = [0, windows - 1].map(|number| View::new(shape, at(number)));
        let step = shape.stride[1] * channels;
        // Between two whole windows of a row there are only whole ones; without anything beside the image, windows of
        // a pixel may go on in the next row.
        let one_row = at(0)[0] == at(windows - 1)[0];
        let pixels = height * width == 1 && shape.pad[0] + shape.pad[1] == 0;
        let evenly = one_row || pixels && first.start + (windows - 1) * step == last.start;
        if first.whole && last.whole && evenly {
            let lines = [width * channels, height, first.step];
            let seen = input.get(first.start..).unwrap_or_default();
            if kernels::stage_four(seen, step, lines, &mut tile, shape.zero) {
                return Some(tile);
            }
        }
        tile.numbers.fill(0);
        for number in 0..windows {
            let view = View::new(shape, at(number));
            let [[ky0, ky1], [kx0, kx1]] = view.seen;
            for ky in ky0..ky1 {
                let start = view.start + (ky - ky0) * view.step;
                let seen = input.get(start..start + (kx1 - kx0) * channels).unwrap_or_default();
                let place = (ky * width + kx0) * channels;
                kernels::stage(seen, place, &mut tile, number, shape.zero);
            }
        }
        Some(tile)
    }
}

/// Copies bytes to where there is room for as many.
fn copy(from: &[i8], to: &mut [i8]) {
    if from.len() == to.len() {
        to.copy_from_slice(from);
    }
}

/// What a window sees of an image.
pub(super) struct View {
    /// The first and the end of its rows, and of its columns, that lie on the image.
    pub(super) seen: [[usize; 2]; 2],
    /// Where they begin in the image, and from a row to the next.
    pub(super) start: usize,
    pub(super) step: usize,
    /// True if all of the window lies on the image.
    pub(super) whole: bool,
}

impl View {
    pub(super) fn new(shape: &Shape, [y, x]: [usize; 2]) -> Self {
        let Shape { from: [height, width, channels], kernel, stride, pad, .. } = *shape;
        if kernel[0] * kernel[1] == 1 && pad[0] + pad[1] == 0 {
            let start = (y * stride[0] * width + x * stride[1]) * channels;
            return Self { seen: [[0, 1]; 2], start, step: width * channels, whole: true };
        }
        let [top, ky0, ky1] = taps(y, stride[0], pad[0], kernel[0], height);
        let [left, kx0, kx1] = taps(x, stride[1], pad[1], kernel[1], width);
        if ky0 >= ky1 || kx0 >= kx1 {
            return Self { seen: [[0; 2]; 2], start: 0, step: 0, whole: false };
        }
        let first = (top + ky0 - pad[0]) * width + left + kx0 - pad[1];
        let whole = ky0 == 0 && kx0 == 0 && ky1 == kernel[0] && kx1 == kernel[1];
        let seen = [[ky0, ky1], [kx0, kx1]];
        Self { seen, start: first * channels, step: width * channels, whole }
    }
}

/// Puts the bytes of a pixel's window together, and fills them up to quads.
fn gather<'b>(shape: &Shape, input: &[i8], at: [usize; 2], bytes: &'b mut [u8]) -> &'b [i8] {
    let Ok(bytes) = <[i8]>::mut_from_bytes(bytes) else { return &[] };
    let view = View::new(shape, at);
    let (channels, [height, width]) = (shape.from[2], shape.kernel);
    let (row, seen) = (width * channels, input.get(view.start..).unwrap_or_default());
    if view.whole && kernels::gather(seen, view.step, row, height, bytes) {
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

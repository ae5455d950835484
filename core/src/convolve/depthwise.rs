//! Convolutions in which each output channel sees one input channel.

use super::{Block, Head, Shape, taps};

/// Computes the output channels from number `first` on that `rows` are for.
pub(crate) fn depthwise(
    shape: &Shape,
    block: &Block<'_>,
    first: usize,
    input: &[i8],
    output: &mut [i8],
    staging: &mut [u8],
) {
    let row_bytes = block.row_bytes.max(1);
    let done = by_fours(shape, block, first, input, output, staging);
    let rows = block.rows.get(done * row_bytes..).unwrap_or_default();
    for (channel, row) in (first + done..).zip(rows.chunks_exact(row_bytes)) {
        one(shape, row, channel, input, output);
    }
}

/// Computes as many output channels as it can, four at a time; returns how many.
#[cfg(dsp)]
fn by_fours(
    shape: &Shape,
    block: &Block<'_>,
    first: usize,
    input: &[i8],
    output: &mut [i8],
    staging: &mut [u8],
) -> usize {
    let Some(mut fours) = fours::Fours::new(shape, staging) else { return 0 };
    let mut done = 0;
    for rows in block.rows.chunks_exact(4usize.saturating_mul(block.row_bytes).max(1)) {
        let four = Block { rows, ..*block };
        if !fours.run(shape, &four, first + done, input, output) {
            break;
        }
        done += 4;
    }
    done
}

#[cfg(not(dsp))]
fn by_fours(_: &Shape, _: &Block<'_>, _: usize, _: &[i8], _: &mut [i8], _: &mut [u8]) -> usize {
    0
}

impl Shape {
    /// Bytes that [`depthwise`] stages rows of an image in.
    pub(crate) fn depthwise_staging(&self) -> u64 {
        if self.by_fours() { STAGED + (self.seen_columns() * ROWS * 16) as u64 } else { 0 }
    }

    /// True if the image suits what computes four channels at once.
    fn by_fours(&self) -> bool {
        let few = self.pad.iter().all(|pad| *pad <= 2);
        let whole = self.kernel == [3, 3] && self.from[2] == self.to[2];
        whole && few && self.seen_columns() <= self.from[1] + 4
    }

    /// The columns of the image that are seen, with what is seen beside it.
    fn seen_columns(&self) -> usize {
        self.to[1].saturating_sub(1) * self.stride[1] + 3
    }
}

/// Rows of which two are kept together, for a kernel of 3 rows.
const ROWS: usize = 3;
/// Bytes of weights that are staged before them.
const STAGED: u64 = 4 * 44;

/// Computes one output channel.
fn one(shape: &Shape, row: &[u8], channel: usize, input: &[i8], output: &mut [i8]) {
    let Shape { from: [height, width, inputs], to: [rows, columns, outputs], .. } = *shape;
    let Some((head, weights)) = Head::split(row) else { return };
    let own = channel / (outputs / inputs.max(1)).max(1);
    for y in 0..rows {
        let [top, ky0, ky1] = taps(y, shape.stride[0], shape.pad[0], shape.kernel[0], height);
        for x in 0..columns {
            let [left, kx0, kx1] = taps(x, shape.stride[1], shape.pad[1], shape.kernel[1], width);
            let mut sum = head.bias;
            // A window that lies beside the image sees nothing of it.
            for ky in if kx0 < kx1 { ky0..ky1 } else { 0..0 } {
                let pixel = (top + ky - shape.pad[0]) * width + left + kx0 - shape.pad[1];
                let at = ky * shape.kernel[1];
                let seen = input.get(pixel * inputs + own..).unwrap_or_default();
                let weights = weights.get(at + kx0..at + kx1).unwrap_or_default();
                for (x, w) in seen.iter().step_by(inputs.max(1)).zip(weights) {
                    let number = i32::from(*x) - shape.zero;
                    sum = sum.wrapping_add(number * i32::from(w.cast_signed()));
                }
            }
            if let Some(out) = output.get_mut((y * columns + x) * outputs + channel) {
                *out = shape.rescale.byte(head, sum);
            }
        }
    }
}

/// Four channels at once, row by row: two rows of the image are kept together.
#[cfg(dsp)]
mod fours {
    use super::{Block, ROWS, STAGED, Shape};
    use crate::convolve::dsp::{self, Line, PACKED};
    use zerocopy::FromBytes;

    /// Weights, and pairs of rows of the image.
    pub(super) struct Fours<'s> {
        packed: &'s mut [u32; PACKED],
        pairs: &'s mut [[u32; 4]],
        columns: usize,
        /// Which rows of the image, counted from the padding on, each pair begins with.
        held: [Option<usize>; ROWS],
    }

    impl<'s> Fours<'s> {
        /// `None` where an image does not suit.
        pub(super) fn new(shape: &Shape, staging: &'s mut [u8]) -> Option<Self> {
            let staging = staging.get_mut(..shape.depthwise_staging() as usize)?;
            let (packed, pairs) = staging.split_at_mut_checked(STAGED as usize)?;
            let packed = <[u32; PACKED]>::mut_from_bytes(packed).ok()?;
            let pairs = <[[u32; 4]]>::mut_from_bytes(pairs).ok()?;
            Some(Self { packed, pairs, columns: shape.seen_columns(), held: [None; ROWS] })
        }

        /// Computes four output channels from number `channel` on; false where the rows don't suit.
        pub(super) fn run(
            &mut self,
            shape: &Shape,
            four: &Block<'_>,
            channel: usize,
            input: &[i8],
            output: &mut [i8],
        ) -> bool {
            let [rows, columns, channels] = shape.to;
            if !dsp::fits(four.rows, four.row_bytes) || channel + 4 > channels {
                return false;
            }
            dsp::pack(four.rows, four.row_bytes, self.packed);
            self.held = [None; ROWS];
            for y in 0..rows {
                let first = y * shape.stride[0];
                self.hold(shape, first, channel, input);
                self.hold(shape, first + 2, channel, input);
                let [upper, lower] = [first, first + 2].map(|row| self.pair(row));
                let start = y * columns * channels + channel;
                let out = output.get_mut(start..(y + 1) * columns * channels).unwrap_or_default();
                dsp::depthwise(
                    [upper, lower],
                    shape.stride[1],
                    self.packed,
                    (out, channels),
                    four.rescale,
                );
            }
            true
        }

        fn pair(&self, row: usize) -> &[[u32; 4]] {
            let start = row % ROWS * self.columns;
            self.pairs.get(start..start + self.columns).unwrap_or_default()
        }

        /// Has the pair that begins with a row, counted from the padding on.
        fn hold(&mut self, shape: &Shape, row: usize, channel: usize, input: &[i8]) {
            let Some(held) = self.held.get_mut(row % ROWS) else { return };
            if held.replace(row) == Some(row) {
                return;
            }
            let [height, width, channels] = shape.from;
            let beside = [shape.zero as i8; 4];
            let line = |row: usize| {
                let y = row.checked_sub(shape.pad[0]).filter(|y| *y < height);
                let bytes = y.and_then(|y| input.get(y * width * channels + channel..));
                bytes.map_or(Line { bytes: &beside, step: 0 }, |bytes| Line {
                    bytes,
                    step: channels,
                })
            };
            let start = row % ROWS * self.columns;
            let pair = self.pairs.get_mut(start..start + self.columns).unwrap_or_default();
            let left = shape.pad[1].min(pair.len());
            let (before, rest) = pair.split_at_mut_checked(left).unwrap_or_default();
            let most = width.min(rest.len());
            let (seen, behind) = rest.split_at_mut_checked(most).unwrap_or_default();
            before.fill([0; 4]);
            dsp::pair([line(row), line(row + 1)], shape.zero, seen);
            behind.fill([0; 4]);
        }
    }
}

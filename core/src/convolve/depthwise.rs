//! Convolutions in which each output channel sees one input channel.

use super::direct::one;
#[cfg(dsp)]
use super::dsp;
use super::{Block, Shape};
#[cfg(dsp)]
use zerocopy::FromBytes;

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
        one(shape, true, row, channel, input, output);
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
    let staging = staging.get_mut(..shape.depthwise_staging() as usize).unwrap_or_default();
    let Some((packed, ring)) = staging.split_at_mut_checked(PACKED as usize) else { return 0 };
    let (Ok(packed), Ok(ring)) = (FromBytes::mut_from_bytes(packed), <[_]>::mut_from_bytes(ring))
    else {
        return 0;
    };
    let mut done = 0;
    for rows in block.rows.chunks_exact(4usize.saturating_mul(block.row_bytes).max(1)) {
        if !dsp::fits(rows, block.row_bytes) {
            break;
        }
        dsp::pack(rows, block.row_bytes, packed);
        if !dsp::depthwise(shape, packed, ring, first + done, input, output) {
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
        if self.by_fours() { PACKED + (self.seen_columns() * PAIRS * 16) as u64 } else { 0 }
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

/// Pairs of rows that are kept, for a kernel of 3 rows.
const PAIRS: usize = 3;
/// Bytes of weights that are staged before them.
const PACKED: u64 = 4 * 40;

//! Convolutions of signed bytes: the numbers of a window, and rows of weights that they meet. Kernels know
//! no tensors; they multiply rows with what was staged for them.
//!
//! A window is staged as numbers of 16 bits, from which the zero point is taken off, so that what lies
//! beside the image is 0.

mod depthwise;
mod direct;
#[cfg(dsp)]
mod dsp;
#[cfg(dsp)]
use dsp as kernels;
mod matrix;
mod portable;
#[cfg(target_arch = "x86_64")]
mod wide;
#[cfg(not(dsp))]
use portable as kernels;

pub(crate) use depthwise::depthwise;
#[cfg(dsp)]
pub(crate) use dsp::{add_tables, sum};
pub(crate) use matrix::matrix;
#[cfg(target_arch = "x86_64")]
pub(crate) use wide::convolve;

use crate::fixed_point::multiply_by_quantized_multiplier;
use crate::quant::CHANNEL_HEAD;

/// The widest window of which four are staged at once; of others two, so that these take no more memory.
const WIDE: usize = 288;
/// Numbers of one window that the stack has room for.
const NEAR: usize = 640;

/// What a convolution does with an image.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Height, width and channels of the input and of the output.
    pub(crate) from: [usize; 3],
    pub(crate) to: [usize; 3],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    /// Rows above the image and columns left of it.
    pub(crate) pad: [usize; 2],
    /// The input's zero point.
    pub(crate) zero: i32,
    pub(crate) rescale: Rescale,
}

/// Windows that rows are multiplied with at once, as kernels want them.
struct Tile<'a> {
    numbers: &'a mut [i16],
    windows: usize,
}

/// Whole rows of weights, each behind its head.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    pub(crate) rows: &'a [u8],
    pub(crate) row_bytes: usize,
    pub(crate) rescale: Rescale,
}

impl<'a> Block<'a> {
    /// A row of weights with its head; nothing if there is no such row.
    fn row(&self, number: u16) -> &'a [u8] {
        let start = usize::from(number) * self.row_bytes;
        self.rows.get(start..start + self.row_bytes).unwrap_or_default()
    }
}

/// What a row begins with.
#[derive(Clone, Copy)]
struct Head {
    bias: i32,
    multiplier: i32,
    shift: i32,
}

impl Head {
    fn split(row: &[u8]) -> Option<(Self, &[u8])> {
        let (head, weights) = row.split_first_chunk::<CHANNEL_HEAD>()?;
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *head;
        let word = |bytes| i32::from_le_bytes(bytes);
        let (bias, multiplier) = (word([a, b, c, d]), word([e, f, g, h]));
        Some((Self { bias, multiplier, shift: word([i, j, k, l]) }, weights))
    }

    #[cfg(dsp)]
    fn of(row: &[u8]) -> Option<Self> {
        Self::split(row).map(|(head, _)| head)
    }
}

/// How sums become bytes, beside each row's own scale.
#[derive(Clone, Copy)]
pub(crate) struct Rescale {
    /// The output's zero point.
    pub(crate) zero: i32,
    /// The least and the largest output.
    pub(crate) low: i8,
    pub(crate) high: i8,
}

impl Rescale {
    fn byte(self, head: Head, sum: i32) -> i8 {
        let scaled = multiply_by_quantized_multiplier(sum, head.multiplier, head.shift);
        let value = scaled.saturating_add(self.zero);
        value.max(self.low.into()).min(self.high.into()) as i8
    }

    /// True if outputs keep away from the ends of what a byte holds.
    #[cfg(dsp)]
    fn clamps(self) -> bool {
        (self.low, self.high) != (i8::MIN, i8::MAX)
    }

    /// Cuts off what kernels leave that saturate to a byte.
    #[cfg(dsp)]
    pub(crate) fn clamp(self, values: &mut [i8]) {
        if self.clamps() {
            values.iter_mut().for_each(|value| *value = (*value).max(self.low).min(self.high));
        }
    }
}

/// The input rows or columns that output number `at` sees: where the kernel's first lies, counted from
/// `pad` before the image, and the first and the end of those that lie on the image.
pub(crate) fn taps(at: usize, stride: usize, pad: usize, kernel: usize, size: usize) -> [usize; 3] {
    let start = at * stride;
    let first = pad.saturating_sub(start).min(kernel);
    let end = (size + pad).saturating_sub(start).min(kernel);
    [start, first, end]
}

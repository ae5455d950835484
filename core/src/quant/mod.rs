//! Weight formats: how numbers lie in a block, and what they are worth.
//!
//! A matrix of `rows` outputs and `columns` inputs is cut into *panels* of [`PANEL`] rows, and a
//! panel into *blocks* of [`GROUP`] columns. Panels follow one another, and so do the blocks of a
//! panel, so a matrix is read front to back and may be cut at any block. Missing rows and columns
//! of the last panel and the last block are zero.
//!
//! Whatever the format, a row's sum runs over its groups in order: the dot product of a group
//! first, then one addition. SIMD lanes are rows, so every machine adds in the same order.

pub mod float16;
pub mod float32;
pub mod int4;
pub mod int8;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Rows of a panel.
pub const PANEL: usize = 8;
/// Columns of a block; the columns that share a scale.
pub const GROUP: usize = 32;
/// Bytes of the longest block.
pub const MAX_BLOCK_BYTES: usize = float32::BLOCK_BYTES;

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Format {
    /// A vector: 32-bit floats in order, not in panels.
    Vector = 0,
    /// A matrix of 32-bit floats.
    F32 = 1,
    /// A matrix of 16-bit floats.
    F16 = 2,
    /// A matrix of signed bytes with one f16 scale for each row of a group: 8.5 bits a weight.
    Int8 = 3,
    /// A matrix of 4-bit integers with one f16 scale for each row of a group: 4.5 bits a weight.
    Int4 = 4,
    /// A row for each output channel of an integer operation: bias, multiplier and shift (i32 each),
    /// then signed bytes, filled up with zeros to a multiple of 4.
    Channels = 5,
}

/// Bytes of a row of [`Format::Channels`] before its weights.
pub const CHANNEL_HEAD: usize = 12;

impl Format {
    /// The format with this number in a tensor table.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Vector,
            1 => Self::F32,
            2 => Self::F16,
            3 => Self::Int8,
            4 => Self::Int4,
            5 => Self::Channels,
            _ => return None,
        })
    }

    /// The format's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vector => "vector",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Channels => "channels",
        }
    }

    /// True if this build multiplies with weights of this format.
    #[must_use]
    pub const fn is_played(self) -> bool {
        match self {
            Self::Vector => true,
            Self::Int8 | Self::Int4 => cfg!(any(feature = "text", feature = "float")),
            Self::F32 | Self::F16 => cfg!(feature = "unquantized"),
            Self::Channels => cfg!(feature = "int8"),
        }
    }

    /// Bytes that can't be cut: a block, or one element of a vector. Of channels it is the row, which
    /// is as long as there are columns.
    #[must_use]
    pub const fn unit_bytes(self) -> usize {
        match self {
            Self::Vector | Self::Channels => 4,
            Self::F32 => float32::BLOCK_BYTES,
            Self::F16 => float16::BLOCK_BYTES,
            Self::Int8 => int8::BLOCK_BYTES,
            Self::Int4 => int4::BLOCK_BYTES,
        }
    }

    /// Bytes of a tensor of this shape; 2^64 - 1 if they are more than that.
    #[must_use]
    pub const fn tensor_bytes(self, rows: u32, columns: u32) -> u64 {
        let units = match self {
            Self::Vector => rows as u64 * columns as u64,
            Self::Channels => rows as u64 * channel_bytes(columns) / 4,
            _ => rows.div_ceil(PANEL as u32) as u64 * columns.div_ceil(GROUP as u32) as u64,
        };
        units.saturating_mul(self.unit_bytes() as u64)
    }

    /// True if activations are quantized before they meet weights of this format.
    #[must_use]
    pub const fn is_integer(self) -> bool {
        matches!(self, Self::Int8 | Self::Int4)
    }
}

/// Bytes of a row of [`Format::Channels`] with so many weights.
#[must_use]
pub const fn channel_bytes(columns: u32) -> u64 {
    CHANNEL_HEAD as u64 + (columns as u64).next_multiple_of(4)
}

/// A group of 32 activations as signed bytes in [-127, 127] with one scale.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct QuantizedGroup {
    /// The bytes, in quads of four consecutive columns.
    pub quads: [[i8; 4]; GROUP / 4],
    /// What one step is worth.
    pub scale: f32,
    /// Minus eight times the sum of the bytes: takes back what the offset of 8 in [`int4`] nibbles
    /// adds to a dot product.
    pub int4_offset: i32,
}

impl QuantizedGroup {
    /// A group of zeros.
    pub const ZERO: Self = Self { quads: [[0; 4]; GROUP / 4], scale: 0.0, int4_offset: 0 };
}

/// A group of 32 activations as floats.
pub type FloatGroup = [f32; GROUP];

/// Below this a group counts as zeros, since the reciprocal of its step would overflow.
const SMALLEST_GROUP: f32 = 1e-30;
/// The bits of the smallest absolute value that is not finite.
const INFINITE: u32 = 0x7f80_0000;

/// The step of a group whose largest absolute value has these bits, and its reciprocal.
///
/// An infinite or NaN activation makes the step NaN, so that it reaches the logits and is reported.
#[must_use]
pub fn activation_step(largest_bits: u32) -> (f32, f32) {
    let largest = f32::from_bits(largest_bits);
    if largest_bits >= INFINITE {
        (f32::NAN, 0.0)
    } else if largest < SMALLEST_GROUP {
        (0.0, 0.0)
    } else {
        (largest / 127.0, 127.0 / largest)
    }
}

/// Quantizes activations to a group: `x` is `[up to GROUP]`, missing ones at the end are zero. With an
/// infinite one or NaN, the group's scale is NaN.
#[must_use]
pub fn quantize_group(x: &[f32]) -> QuantizedGroup {
    let mut largest = 0u32;
    for v in x {
        largest = largest.max(v.to_bits() & 0x7fff_ffff);
    }
    let (scale, inverse) = activation_step(largest);
    let mut group = QuantizedGroup { scale, ..QuantizedGroup::ZERO };
    if inverse == 0.0 {
        return group;
    }
    let mut sum = 0;
    for (q, v) in group.quads.as_flattened_mut().iter_mut().zip(x) {
        let rounded = crate::math::round_ties_even(v * inverse);
        *q = rounded as i8;
        sum += rounded;
    }
    group.int4_offset = -8 * sum;
    group
}

/// Runs `dot` over the blocks of whole panels; the arguments are those of
/// [`PanelDot`](crate::simd::PanelDot).
#[inline(always)]
pub(crate) fn panel_dot<const BYTES: usize, X>(
    blocks: &[u8],
    x: &[X],
    columns: usize,
    sums: &mut [[f32; PANEL]],
    dot: impl Fn(&[u8; BYTES], &X) -> [f32; PANEL],
) {
    let columns = columns.max(1);
    let groups = (x.len() / columns).max(1);
    let panels = blocks.as_chunks::<BYTES>().0.chunks_exact(groups);
    for (panel, sums) in panels.zip(sums.chunks_exact_mut(columns)) {
        for (block, groups) in panel.iter().zip(x.chunks_exact(columns)) {
            for (group, sum) in groups.iter().zip(sums.iter_mut()) {
                for (s, d) in sum.iter_mut().zip(dot(block, group)) {
                    *s += d;
                }
            }
        }
    }
}

/// Reads row `lane` of a block, `[format.unit_bytes()]`, as floats; zeros if the block is too short
/// or has no such row.
pub fn dequantize_row(format: Format, block: &[u8], lane: usize, out: &mut FloatGroup) {
    out.fill(0.0);
    match format {
        Format::Vector | Format::Channels => {}
        Format::F32 => float32::dequantize_row(block, lane, out),
        Format::F16 => float16::dequantize_row(block, lane, out),
        Format::Int8 => int8::dequantize_row(block, lane, out),
        Format::Int4 => int4::dequantize_row(block, lane, out),
    }
}

/// The f16 scale of row `lane` at the front of an integer block.
fn scale(block: &[u8], lane: usize) -> f32 {
    let bits = block.as_chunks::<2>().0.get(lane).copied().unwrap_or_default();
    half::f16::from_le_bytes(bits).to_f32()
}

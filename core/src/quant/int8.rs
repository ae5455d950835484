//! 8-bit weights: a block is 8 f16 scales, then 8 vectors of 32 bytes.
//!
//! Byte `4 * r + j` of vector `i` holds column `4 * i + j` of row `r` as a signed `q`. A
//! weight is `q * scale`.

use super::{FloatGroup, GROUP, PANEL, QuantizedGroup, panel_dot, scale};

/// Bytes of a block: 8 scales and 256 bytes.
pub const BLOCK_BYTES: usize = 2 * PANEL + PANEL * GROUP;

/// A block of zeros.
pub const EMPTY: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// Adds the dot products of panels with activations to `sums`: a [`PanelDot`](crate::simd::PanelDot),
/// which says the shapes; blocks are of [`BLOCK_BYTES`].
pub fn dot(blocks: &[u8], x: &[QuantizedGroup], columns: usize, sums: &mut [[f32; PANEL]]) {
    panel_dot(blocks, x, columns, sums, block_dot);
}

fn block_dot(block: &[u8; BLOCK_BYTES], x: &QuantizedGroup) -> [f32; PANEL] {
    let (scales, bytes) = block.split_at(2 * PANEL);
    let mut integers = [0i32; PANEL];
    for (vector, x) in bytes.as_chunks::<{ 4 * PANEL }>().0.iter().zip(&x.quads) {
        // Written out, as firmware is compiled to be small.
        let [x0, x1, x2, x3] = x.map(i32::from);
        for (integer, quad) in integers.iter_mut().zip(vector.as_chunks::<4>().0) {
            let [a, b, c, d] = quad.map(|w| i32::from(w.cast_signed()));
            *integer += a * x0 + b * x1 + c * x2 + d * x3;
        }
    }
    let mut sums = [0.0; PANEL];
    for ((sum, integer), bits) in sums.iter_mut().zip(integers).zip(scales.as_chunks::<2>().0) {
        *sum = integer as f32 * (half::f16::from_le_bytes(*bits).to_f32() * x.scale);
    }
    sums
}

/// Reads row `lane` of a block as floats.
pub(super) fn dequantize_row(block: &[u8], lane: usize, out: &mut FloatGroup) {
    let step = scale(block, lane);
    let Some(bytes) = block.get(2 * PANEL..) else { return };
    for (vector, out) in bytes.as_chunks::<{ 4 * PANEL }>().0.iter().zip(out.chunks_mut(4)) {
        let quad = vector.as_chunks::<4>().0.get(lane).copied().unwrap_or_default();
        for (w, out) in quad.iter().zip(out) {
            *out = f32::from(w.cast_signed()) * step;
        }
    }
}

/// Writes row `lane` of a block, below [`PANEL`]: a scale and 32 integers. Another lane changes
/// nothing.
pub fn write_row(block: &mut [u8; BLOCK_BYTES], lane: usize, scale: half::f16, row: &[i8; GROUP]) {
    let (scales, bytes) = block.split_at_mut(2 * PANEL);
    if let Some(bits) = scales.as_chunks_mut::<2>().0.get_mut(lane) {
        *bits = scale.to_le_bytes();
    }
    for (vector, row) in
        bytes.as_chunks_mut::<{ 4 * PANEL }>().0.iter_mut().zip(row.as_chunks::<4>().0)
    {
        if let Some(quad) = vector.as_chunks_mut::<4>().0.get_mut(lane) {
            *quad = row.map(i8::cast_unsigned);
        }
    }
}

//! 4-bit weights: a block is 8 f16 scales, then 4 vectors of 32 bytes.
//!
//! Byte `4 * r + j` of vector `i` holds column `4 * i + j` of row `r` in its low nibble and column
//! `16 + 4 * i + j` in its high one, each as `q + 8` with `q` in [-8, 7]. A weight is `q * scale`.

use super::{FloatGroup, GROUP, PANEL, QuantizedGroup, panel_dot, scale};

/// Bytes of a block: 8 scales and 256 nibbles.
pub const BLOCK_BYTES: usize = 2 * PANEL + PANEL * GROUP / 2;

/// Adds the dot products of panels with activations to `sums`: a [`PanelDot`](crate::simd::PanelDot),
/// which says the shapes; blocks are of [`BLOCK_BYTES`].
pub fn dot(blocks: &[u8], x: &[QuantizedGroup], columns: usize, sums: &mut [[f32; PANEL]]) {
    panel_dot(blocks, x, columns, sums, block_dot);
}

fn block_dot(block: &[u8; BLOCK_BYTES], x: &QuantizedGroup) -> [f32; PANEL] {
    let (scales, nibbles) = block.split_at(2 * PANEL);
    let (low, high) = x.quads.split_at(GROUP / 8);
    let mut integers = [0i32; PANEL];
    for ((vector, low), high) in nibbles.as_chunks::<{ 4 * PANEL }>().0.iter().zip(low).zip(high) {
        // Written out, as firmware is compiled to be small.
        let [l0, l1, l2, l3] = low.map(i32::from);
        let [h0, h1, h2, h3] = high.map(i32::from);
        for (integer, quad) in integers.iter_mut().zip(vector.as_chunks::<4>().0) {
            let [a, b, c, d] = quad.map(i32::from);
            *integer += (a & 15) * l0 + (b & 15) * l1 + (c & 15) * l2 + (d & 15) * l3;
            *integer += (a >> 4) * h0 + (b >> 4) * h1 + (c >> 4) * h2 + (d >> 4) * h3;
        }
    }
    let mut sums = [0.0; PANEL];
    for ((sum, integer), bits) in sums.iter_mut().zip(integers).zip(scales.as_chunks::<2>().0) {
        let step = half::f16::from_le_bytes(*bits).to_f32() * x.scale;
        *sum = (integer + x.int4_offset) as f32 * step;
    }
    sums
}

/// Reads row `lane` of a block as floats.
pub(super) fn dequantize_row(block: &[u8], lane: usize, out: &mut FloatGroup) {
    let step = scale(block, lane);
    let Some(nibbles) = block.get(2 * PANEL..) else { return };
    let (low, high) = out.split_at_mut(GROUP / 2);
    let vectors = nibbles.as_chunks::<{ 4 * PANEL }>().0;
    for ((vector, low), high) in vectors.iter().zip(low.chunks_mut(4)).zip(high.chunks_mut(4)) {
        let quad = vector.as_chunks::<4>().0.get(lane).copied().unwrap_or_default();
        for ((w, l), h) in quad.iter().zip(low).zip(high) {
            *l = (i32::from(w & 15) - 8) as f32 * step;
            *h = (i32::from(w >> 4) - 8) as f32 * step;
        }
    }
}

/// Writes row `lane` of a block, below [`PANEL`]: a scale and 32 integers in [-8, 7]. Another lane
/// changes nothing.
///
/// A block is first filled with [`EMPTY`], so that missing rows are zero.
pub fn write_row(block: &mut [u8; BLOCK_BYTES], lane: usize, scale: half::f16, row: &[i8; GROUP]) {
    let (scales, nibbles) = block.split_at_mut(2 * PANEL);
    if let Some(bits) = scales.as_chunks_mut::<2>().0.get_mut(lane) {
        *bits = scale.to_le_bytes();
    }
    let (low, high) = row.split_at(GROUP / 2);
    let vectors = nibbles.as_chunks_mut::<{ 4 * PANEL }>().0;
    for ((vector, low), high) in vectors.iter_mut().zip(low.chunks(4)).zip(high.chunks(4)) {
        let Some(quad) = vector.as_chunks_mut::<4>().0.get_mut(lane) else { return };
        for ((w, l), h) in quad.iter_mut().zip(low).zip(high) {
            *w = (l + 8) as u8 & 15 | ((h + 8) as u8 & 15) << 4;
        }
    }
}

/// A block of zeros.
pub const EMPTY: [u8; BLOCK_BYTES] = {
    let mut block = [0x88; BLOCK_BYTES];
    let (scales, _) = block.split_at_mut(2 * PANEL);
    let mut i = 0;
    while i < scales.len() {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            scales[i] = 0;
        }
        i += 1;
    }
    block
};

//! 32-bit float weights: a block is 32 columns of 8 rows each.

use super::{FloatGroup, GROUP, PANEL, panel_dot};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 4 * PANEL * GROUP;

/// Adds the dot products of panels with activations to `sums`: a [`PanelDot`](crate::simd::PanelDot),
/// which says the shapes; blocks are of [`BLOCK_BYTES`].
pub fn dot(blocks: &[u8], x: &[FloatGroup], columns: usize, sums: &mut [[f32; PANEL]]) {
    panel_dot(blocks, x, columns, sums, block_dot);
}

fn block_dot(block: &[u8; BLOCK_BYTES], x: &FloatGroup) -> [f32; PANEL] {
    let mut sums = [0.0; PANEL];
    for (column, x) in block.as_chunks::<{ 4 * PANEL }>().0.iter().zip(x) {
        for (sum, bits) in sums.iter_mut().zip(column.as_chunks::<4>().0) {
            *sum += f32::from_le_bytes(*bits) * x;
        }
    }
    sums
}

/// Reads row `lane` of a block as floats.
pub(super) fn dequantize_row(block: &[u8], lane: usize, out: &mut FloatGroup) {
    for (column, out) in block.as_chunks::<{ 4 * PANEL }>().0.iter().zip(out) {
        let bits = column.as_chunks::<4>().0.get(lane).copied().unwrap_or_default();
        *out = f32::from_le_bytes(bits);
    }
}

/// Writes row `lane` of a block, below [`PANEL`]; another lane changes nothing.
pub fn write_row(block: &mut [u8; BLOCK_BYTES], lane: usize, row: &FloatGroup) {
    for (column, value) in block.as_chunks_mut::<{ 4 * PANEL }>().0.iter_mut().zip(row) {
        if let Some(bits) = column.as_chunks_mut::<4>().0.get_mut(lane) {
            *bits = value.to_le_bytes();
        }
    }
}

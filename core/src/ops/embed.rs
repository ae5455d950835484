//! Token embedding: rows of a matrix in the kernels' layout.

use super::ColumnsMut;
use crate::page::{Pages, Stream};
use crate::pass::{Input, Inputs};
use crate::program::Tensor;
use crate::quant::{GROUP, PANEL, dequantize_row};
use omex_hal::PageError;

/// `output` column `c` = row number token `c` of the matrix.
pub(crate) fn embed(
    matrix: &Tensor,
    pages: &mut Pages<'_>,
    carry: &mut [u8],
    inputs: &Inputs<'_>,
    mut output: ColumnsMut<'_>,
) -> Result<(), PageError> {
    let unit = matrix.format.unit_bytes();
    let panel_bytes = matrix.format.tensor_bytes(PANEL as u32, matrix.columns);
    for (c, Input { token, .. }) in inputs.iter().enumerate() {
        let panel = matrix.address + u64::from(token / PANEL as u32) * panel_bytes;
        let mut stream = Stream::new(pages, carry, panel, panel_bytes, unit);
        let mut groups = output.column(c).chunks_mut(GROUP);
        while let Some(blocks) = stream.next_units()? {
            for (block, out) in blocks.chunks_exact(unit.max(1)).zip(&mut groups) {
                let mut group = [0.0; GROUP];
                dequantize_row(matrix.format, block, token as usize % PANEL, &mut group);
                for (out, x) in out.iter_mut().zip(group) {
                    *out = x;
                }
            }
        }
    }
    Ok(())
}

//! RMSNorm (arXiv:1910.07467).

use super::{Columns, ColumnsMut};
use crate::math::{sqrt, sum_lanes};
use crate::page::Stream;
use omex_hal::PageError;

/// `output` = `input` / sqrt(mean(`input`²) + `epsilon`) * `weight`, column by column.
pub(crate) fn rms_norm(
    mut weight: Stream<'_, '_>,
    epsilon: f32,
    input: Columns<'_>,
    mut output: ColumnsMut<'_>,
    columns: usize,
) -> Result<(), PageError> {
    for c in 0..columns {
        let x = input.column(c);
        let factor = 1.0 / sqrt(mean_square(x) + epsilon);
        for (y, x) in output.column(c).iter_mut().zip(x) {
            *y = x * factor;
        }
    }
    let mut done = 0;
    while let Some(bytes) = weight.next_units()? {
        let (weights, _) = bytes.as_chunks::<4>();
        for c in 0..columns {
            let y = output.column(c).get_mut(done..).unwrap_or_default();
            for (y, w) in y.iter_mut().zip(weights) {
                *y *= f32::from_le_bytes(*w);
            }
        }
        done += weights.len();
    }
    Ok(())
}

/// The squares are added in eight lanes, then the lanes as a tree.
fn mean_square(x: &[f32]) -> f32 {
    let mut lanes = [0.0; 8];
    for eight in x.chunks(8) {
        for (lane, x) in lanes.iter_mut().zip(eight) {
            *lane += x * x;
        }
    }
    sum_lanes(lanes) / x.len() as f32
}

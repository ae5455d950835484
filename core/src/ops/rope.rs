//! Rotary position embedding (RoPE, arXiv:2104.09864).

use super::{Columns, ColumnsMut};
use crate::kv::Window;
use crate::math::{cos, sin};
use crate::page::Stream;
use crate::pass::{Input, Inputs};
use omex_hal::PageError;

/// Cosines and sines of each column's angles: for its position, then for what a query is turned
/// back by before it meets the attention sinks.
pub(crate) fn rotary_angles(
    mut frequencies: Stream<'_, '_>,
    window: Window,
    inputs: &Inputs<'_>,
    mut output: ColumnsMut<'_>,
) -> Result<(), PageError> {
    let count = output.width / 4;
    let mut done = 0;
    while let Some(bytes) = frequencies.next_units()? {
        let (frequencies, _) = bytes.as_chunks::<4>();
        for (c, Input { position, .. }) in inputs.iter().enumerate() {
            let turns = [position as f32, -(window.sink_shift(position) as f32)];
            let column = output.column(c);
            for (part, turn) in column.chunks_mut((2 * count).max(1)).zip(turns) {
                let Some((cosines, sines)) = part.split_at_mut_checked(count) else { continue };
                let both = cosines.iter_mut().zip(sines).skip(done);
                for ((cosine, sine), frequency) in both.zip(frequencies) {
                    let angle = turn * f32::from_le_bytes(*frequency);
                    (*cosine, *sine) = (cos(angle), sin(angle));
                }
            }
        }
        done += frequencies.len();
    }
    Ok(())
}

/// Turns each head of each column by the angles of its position.
pub(crate) fn rotary(
    angles: Columns<'_>,
    head_width: usize,
    mut heads: ColumnsMut<'_>,
    columns: usize,
) {
    for c in 0..columns {
        let Some((angles, _)) = angles.column(c).split_at_checked(head_width) else { return };
        for head in heads.column(c).chunks_exact_mut(head_width.max(1)) {
            rotate(head, angles);
        }
    }
}

/// Turns the pairs (i, i + width / 2) of a head; `angles` are all cosines, then all sines.
pub(crate) fn rotate(head: &mut [f32], angles: &[f32]) {
    let middle = head.len() / 2;
    let (low, high) = head.split_at_mut(middle);
    let Some((cosines, sines)) = angles.split_at_checked(middle) else { return };
    for ((a, b), (cosine, sine)) in low.iter_mut().zip(high).zip(cosines.iter().zip(sines)) {
        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
    }
}

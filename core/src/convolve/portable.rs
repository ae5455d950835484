//! Kernels for every machine: windows one after the other, sums of four at a time.

use super::{Block, Head};

/// True if rows can be multiplied here: always.
#[cfg(not(dsp))]
pub(super) fn all_fit(_block: &Block<'_>, _live: &[u16]) -> bool {
    true
}

/// As [`all_fit`], of all rows.
#[cfg(not(dsp))]
pub(super) fn fits(_rows: &[u8], _row_bytes: usize) -> bool {
    true
}

/// Writes zeros for so many quads of a window, from number `place` of the window on.
pub(super) fn blank(quads: usize, place: usize, pair: &mut [i16], window: usize) {
    part(pair, place, window, 4 * quads).fill(0);
}

/// Writes numbers of one window of a pair, from number `place` of the window on.
pub(super) fn stage(bytes: &[i8], place: usize, pair: &mut [i16], window: usize, zero: i32) {
    for (number, byte) in part(pair, place, window, bytes.len()).iter_mut().zip(bytes) {
        *number = i16::from(*byte).wrapping_sub(zero as i16);
    }
}

fn part(pair: &mut [i16], place: usize, window: usize, length: usize) -> &mut [i16] {
    let start = window * (pair.len() / 2) + place;
    pair.get_mut(start..start.saturating_add(length)).unwrap_or_default()
}

/// Puts parts of rows of an image behind one another: `length` bytes at each `step`; false if these are
/// not there.
#[cfg(not(dsp))]
pub(super) fn gather(from: &[i8], step: usize, length: usize, lines: usize, to: &mut [i8]) -> bool {
    let length = length.max(1);
    for (line, to) in to.chunks_exact_mut(length).take(lines).enumerate() {
        let Some(from) = from.get(line * step..line * step + length) else { return false };
        to.copy_from_slice(from);
    }
    true
}

/// Multiplies rows with both windows of a pair: those whose numbers are listed.
pub(super) fn multiply(
    block: &Block<'_>,
    live: &[u16],
    pair: &[i16],
    [first, second]: [&mut [i8]; 2],
) {
    let (x0, x1) = pair.split_at_checked(pair.len() / 2).unwrap_or_default();
    let mut put = |number: u16, head: Head, [sum_0, sum_1]: [i32; 2]| {
        let place = usize::from(number);
        if let (Some(a), Some(b)) = (first.get_mut(place), second.get_mut(place)) {
            (*a, *b) = (block.rescale.byte(head, sum_0), block.rescale.byte(head, sum_1));
        }
    };
    let (twos, rest) = live.as_chunks::<2>();
    for [a, b] in twos {
        let (Some((head_a, a_row)), Some((head_b, b_row))) =
            (Head::split(block.row(*a)), Head::split(block.row(*b)))
        else {
            return;
        };
        let (mut sums_a, mut sums_b) = ([head_a.bias; 2], [head_b.bias; 2]);
        for (((w_a, w_b), x0), x1) in a_row.iter().zip(b_row).zip(x0).zip(x1) {
            add(&mut sums_a, *w_a, *x0, *x1);
            add(&mut sums_b, *w_b, *x0, *x1);
        }
        put(*a, head_a, sums_a);
        put(*b, head_b, sums_b);
    }
    for number in rest {
        let Some((head, weights)) = Head::split(block.row(*number)) else { return };
        let mut sums = [head.bias; 2];
        for ((w, x0), x1) in weights.iter().zip(x0).zip(x1) {
            add(&mut sums, *w, *x0, *x1);
        }
        put(*number, head, sums);
    }
}

#[inline(always)]
fn add([sum_0, sum_1]: &mut [i32; 2], weight: u8, x0: i16, x1: i16) {
    let weight = i32::from(weight.cast_signed());
    *sum_0 = sum_0.wrapping_add(weight * i32::from(x0));
    *sum_1 = sum_1.wrapping_add(weight * i32::from(x1));
}

/// Multiplies rows with bytes; returns how many rows.
pub(super) fn multiply_vector(block: &Block<'_>, x: &[i8], zero: i32, out: &mut [i8]) -> usize {
    let rows = block.rows.chunks_exact(block.row_bytes.max(1));
    for (row, out) in rows.zip(out.iter_mut()) {
        let Some((head, weights)) = Head::split(row) else { break };
        let mut sum = head.bias;
        for (w, x) in weights.iter().zip(x) {
            sum = sum.wrapping_add(i32::from(w.cast_signed()) * (i32::from(*x) - zero));
        }
        *out = block.rescale.byte(head, sum);
    }
    out.len()
}

//! Kernels for every machine: two windows after one another, sums of four at a time.

#[cfg(not(dsp))]
use super::Tile;
use super::{Block, Head};

/// True if rows can be multiplied here: always.
#[cfg(not(dsp))]
pub(super) fn all_fit(_block: &Block<'_>, _live: &[u16]) -> bool {
    true
}

/// Windows of the next tile.
#[cfg(not(dsp))]
pub(super) fn windows(_left: usize, _window: usize, _all_live: bool) -> usize {
    2
}

/// Writes numbers of one window of a tile, from number `place` of the window on.
#[cfg(not(dsp))]
pub(super) fn stage(bytes: &[i8], place: usize, tile: &mut Tile<'_>, window: usize, zero: i32) {
    let start = window * (tile.numbers.len() / tile.windows.max(1)) + place;
    let numbers = tile.numbers.get_mut(start..).unwrap_or_default();
    for (number, byte) in numbers.iter_mut().zip(bytes) {
        *number = i16::from(*byte).wrapping_sub(zero as i16);
    }
}

/// No tile has four windows here.
#[cfg(not(dsp))]
pub(super) fn stage_four(_: &[i8], _: usize, _: [usize; 3], _: &mut Tile<'_>, _: i32) -> bool {
    false
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

/// Multiplies rows with both windows of a tile: those whose numbers are listed. `out` has a byte for each row at
/// each step.
#[cfg(not(dsp))]
pub(super) fn multiply(
    block: &Block<'_>,
    live: &[u16],
    tile: &Tile<'_>,
    (out, out_step): (&mut [i8], usize),
) {
    let numbers = &*tile.numbers;
    let (x0, x1) = numbers.split_at_checked(numbers.len() / 2).unwrap_or_default();
    let (first, second) = out.split_at_mut_checked(out_step).unwrap_or_default();
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

#[cfg(not(dsp))]
#[inline(always)]
fn add([sum_0, sum_1]: &mut [i32; 2], weight: u8, x0: i16, x1: i16) {
    let weight = i32::from(weight.cast_signed());
    *sum_0 = sum_0.wrapping_add(weight * i32::from(x0));
    *sum_1 = sum_1.wrapping_add(weight * i32::from(x1));
}

/// Multiplies rows with the bytes of one window.
pub(super) fn multiply_vector(
    block: &Block<'_>,
    x: &[i8],
    zero: i32,
    _room: &mut [u8],
    out: &mut [i8],
) -> bool {
    let rows = block.rows.chunks_exact(block.row_bytes.max(1));
    for (row, out) in rows.zip(out.iter_mut()) {
        let Some((head, weights)) = Head::split(row) else { break };
        let mut sum = head.bias;
        for (w, x) in weights.iter().zip(x) {
            sum = sum.wrapping_add(i32::from(w.cast_signed()) * (i32::from(*x) - zero));
        }
        *out = block.rescale.byte(head, sum);
    }
    true
}

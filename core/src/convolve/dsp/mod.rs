//! Kernels for ARMv7E-M, in its assembly: two products of 16 bits an instruction (SMLAD), bytes that are
//! widened and shifted by the zero point in pairs (SXTAB16).
//!
//! A quad of bytes a, b, c, d becomes two words, (a, c) and (b, d), wherever it meets another.
#![expect(
    unsafe_code,
    reason = "functions of assembly only, behind functions that check what they read and write"
)]

/// An instruction.
macro_rules! op {
    ($name:literal, $first:literal $(, $more:literal)*) => {
        concat!($name, " ", $first $(, ", ", $more)*, "\n")
    };
}

/// A sum times `multiplier`, shifted to the right by one at least, rounded twice; `zero` is added, and the
/// rest is cut off.
macro_rules! rescale {
    ($sum:literal, $multiplier:literal, $shift:literal, $zero:literal) => {
        concat!(
            op!("lsl", $sum, $sum, "#1"),
            op!("smmulr", $sum, $sum, $multiplier),
            // Half away from zero: the last bit that is shifted out rounds up, but for negative halves.
            op!("add", $sum, $sum, $sum, "asr #31"),
            op!("asrs", $sum, $sum, $shift),
            op!("adc", $sum, $sum, $zero),
            op!("ssat", $sum, "#8", $sum),
        )
    };
}

/// The same with a shift to the left before, which is one more than the row's, and none to the right.
macro_rules! rescale_left {
    ($sum:literal, $multiplier:literal, $shift:literal, $zero:literal) => {
        concat!(
            op!("lsl", $sum, $sum, $shift),
            op!("smmulr", $sum, $sum, $multiplier),
            op!("add", $sum, $sum, $zero),
            op!("ssat", $sum, "#8", $sum),
        )
    };
}

/// The same with both shifts.
macro_rules! rescale_any {
    ($sum:literal, $multiplier:literal, $left:literal, $right:literal, $zero:literal) => {
        concat!(
            op!("lsl", $sum, $sum, $left),
            op!("smmulr", $sum, $sum, $multiplier),
            // What this takes off, its carry gives back where nothing is shifted out.
            op!("adds", $sum, $sum, $sum, "asr #31"),
            op!("asrs", $sum, $sum, $right),
            op!("adc", $sum, $sum, $zero),
            op!("ssat", $sum, "#8", $sum),
        )
    };
}

mod add;
mod depthwise;
mod gather;
mod stage;
mod sum;
mod tile;
mod vector;

pub(crate) use add::add_tables;
pub(super) use depthwise::{depthwise, pack};
pub(super) use gather::gather;
pub(super) use stage::{stage, stage_four};
pub(crate) use sum::sum;
pub(super) use tile::{multiply, windows};
pub(super) use vector::multiply_vector;

use super::{Block, Head};

/// Sums stay below this, so that twice a sum is a number.
const LARGEST_SUM: u64 = 1 << 30;
/// A weight times a number from which a zero point was taken.
const LARGEST_PRODUCT: u64 = 128 * 255;

/// True if rows can be multiplied here: sums can't overflow, and words lie on multiples of 4.
pub(super) fn fits(rows: &[u8], row_bytes: usize) -> bool {
    let aligned = rows.as_ptr().addr().is_multiple_of(4) && row_bytes.is_multiple_of(4);
    let products = row_bytes as u64 * LARGEST_PRODUCT;
    let Some(room) = LARGEST_SUM.checked_sub(products) else { return false };
    let fits = |row: &[u8]| {
        Head::of(row).is_some_and(|head| {
            let sum = u64::from(head.bias.unsigned_abs());
            let left = head.shift.clamp(0, 31);
            sum < room && (left == 0 || (sum + products) << left < LARGEST_SUM)
        })
    };
    aligned && rows.chunks_exact(row_bytes.max(1)).all(fits)
}

/// As [`fits`], of rows that are multiplied.
pub(super) fn all_fit(block: &Block<'_>, live: &[u16]) -> bool {
    live.iter().all(|row| fits(block.row(*row), block.row_bytes))
}

/// What takes `zero` off both halves of a word.
fn minus(zero: i32) -> u32 {
    (zero.wrapping_neg().cast_unsigned() & 0xffff) * 0x1_0001
}

//! Rows times one window.

use super::stage::stage;
use crate::convolve::{Block, NEAR, Tile};
use crate::quant::CHANNEL_HEAD;
use core::arch::naked_asm;
use zerocopy::{FromBytes, IntoBytes};

/// What [`multiply_fours`] works on, as it lays it on the stack.
#[repr(C)]
struct Fours {
    rows: *const u8,
    row_bytes: usize,
    x: *const i16,
    odd: usize,
    even: usize,
    out: *mut i8,
    zero: i32,
    /// Fours of rows.
    count: usize,
}

/// Multiplies all rows, four at least, with one window of bytes, which `room` has a place for if it is wide.
/// False if they can't be multiplied here.
#[inline(never)]
pub(in crate::convolve) fn multiply_vector(
    block: &Block<'_>,
    x: &[i8],
    zero: i32,
    room: &mut [u8],
    out: &mut [i8],
) -> bool {
    let mut near = [0u32; NEAR / 2];
    let room = if x.len() > NEAR { room } else { near.as_mut_bytes() };
    let Ok(numbers) = <[i16]>::mut_from_bytes(room) else { return false };
    let quads = block.row_bytes.saturating_sub(CHANNEL_HEAD) / 4;
    let aligned = block.rows.as_ptr().addr().is_multiple_of(4) && block.row_bytes.is_multiple_of(4);
    if !aligned || numbers.len() < 4 * quads || x.len() < 4 * quads {
        return false;
    }
    let mut tile = Tile { numbers, windows: 1 };
    stage(x, 0, &mut tile, 0, zero);
    multiply_rows(block, tile.numbers, out)
}

/// Multiplies all rows, four at least, with one window; false if there are fewer, or if a sum was too large.
pub(super) fn multiply_rows(block: &Block<'_>, x: &[i16], out: &mut [i8]) -> bool {
    let Block { rows, row_bytes, rescale } = *block;
    let quads = row_bytes.saturating_sub(CHANNEL_HEAD) / 4;
    let count = rows.len() / row_bytes.max(1);
    if quads == 0 || x.len() < 4 * quads || count < 4 || out.len() < count {
        return false;
    }
    let run = |first: usize, count: usize| {
        let fours = Fours {
            rows: rows.as_ptr().wrapping_add(first * row_bytes),
            row_bytes,
            x: x.as_ptr(),
            odd: 8 * (quads % 4),
            even: 8 * (quads / 4 * 4),
            out: out.as_ptr().cast_mut().wrapping_add(first),
            zero: rescale.zero,
            count,
        };
        // SAFETY: from the first on there are `4 * count` rows of `row_bytes` bytes, which end behind their quads,
        // as many bytes in the output, and a number in `x` for each weight of a row.
        unsafe { multiply_fours(&raw const fours) < 0x8000_0000 }
    };
    // The last four rows may overlap with those before.
    let small = run(0, count / 4) && (count.is_multiple_of(4) || run(count - 4, 1));
    rescale.clamp(out.get_mut(..count).unwrap_or_default());
    small
}

/// The products of a quad of a row.
macro_rules! quad_of_row {
    ($at:literal, $sum:literal) => {
        concat!(
            op!("ldr", "r10", $at),
            op!("sxtb16", "r11", "r10"),
            op!("sxtb16", "r10", "r10", "ror #8"),
            op!("smlad", $sum, "r11", "r8", $sum),
            op!("smlad", $sum, "r10", "r9", $sum),
        )
    };
}

/// A quad of four rows with a quad of one window.
macro_rules! quads_4x1 {
    () => {
        concat!(
            "ldrd r8, r9, [r2], #8\n",
            quad_of_row!("[r0, r3]", "r5"),
            quad_of_row!("[r1, r3]", "r7"),
            quad_of_row!("[r0], #4", "r4"),
            quad_of_row!("[r1], #4", "r6"),
        )
    };
}

/// One of four sums, whose row begins at r1 and the next one r3 bytes behind. The highest bit of lr is set for
/// good if twice the sum, or what is shifted to the left, is no number of 32 bits.
macro_rules! rescale_row {
    ($sum:literal, $left:literal, $done:literal) => {
        concat!(
            "ldrd r8, r9, [r1, #4]\n",
            "add r1, r3\n",
            "rsbs r9, r9, #0\n",
            concat!("ble ", $left, "f\n"),
            op!("eor", "r10", $sum, $sum, "lsl #1"),
            op!("orr", "lr", "lr", "r10"),
            rescale!($sum, "r8", "r9", "r12"),
            concat!($done, ":\n"),
            op!("strb", $sum, "[r2]", "#1"),
        )
    };
}

/// The same where its shift is to the left.
macro_rules! rescale_row_left {
    ($sum:literal, $left:literal, $done:literal) => {
        concat!(
            concat!($left, ":\n"),
            "rsb r9, r9, #1\n",
            op!("lsl", "r10", $sum, "r9"),
            op!("asr", "r10", "r10", "r9"),
            op!("cmp", "r10", $sum),
            "it ne\n",
            "orrne lr, lr, #0x80000000\n",
            rescale_left!($sum, "r8", "r9", "r12"),
            concat!("b ", $done, "b\n"),
        )
    };
}

/// Four rows with one window, `count` times; the highest bit of what it returns is set if a sum was too large.
#[unsafe(naked)]
unsafe extern "C" fn multiply_fours(fours: *const Fours) -> u32 {
    naked_asm!(
        dsp_core!(),
        "push {{r4-r11, lr}}",
        "ldmia r0, {{r0-r7}}",
        "push {{r0-r7}}",
        "mov lr, #0",
        "2:",
        "ldrd r0, r3, [sp]",
        "ldrd r2, r12, [sp, #8]",
        "add r1, r0, r3, lsl #1",
        "ldr r5, [r0, r3]",
        "ldr r7, [r1, r3]",
        "ldr r4, [r0], #12",
        "ldr r6, [r1], #12",
        "add r12, r2",
        "b 4f",
        "3:",
        quads_4x1!(),
        "4:",
        "cmp r2, r12",
        "bne 3b",
        "ldr r8, [sp, #16]",
        "add r12, r8",
        "b 6f",
        "5:",
        quads_4x1!(),
        quads_4x1!(),
        quads_4x1!(),
        quads_4x1!(),
        "6:",
        "cmp r2, r12",
        "bne 5b",
        "ldr r1, [sp]",
        "ldrd r2, r12, [sp, #20]",
        rescale_row!("r4", "21", "31"),
        rescale_row!("r5", "22", "32"),
        rescale_row!("r6", "23", "33"),
        rescale_row!("r7", "24", "34"),
        "str r1, [sp]",
        "str r2, [sp, #20]",
        "ldr r0, [sp, #28]",
        "subs r0, #1",
        "str r0, [sp, #28]",
        "bne 2b",
        "mov r0, lr",
        "add sp, #32",
        "pop {{r4-r11, pc}}",
        rescale_row_left!("r4", "21", "31"),
        rescale_row_left!("r5", "22", "32"),
        rescale_row_left!("r6", "23", "33"),
        rescale_row_left!("r7", "24", "34"),
    )
}

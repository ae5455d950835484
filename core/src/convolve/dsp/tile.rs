//! Rows times the windows of a tile.

use super::minus;
use super::vector::multiply_rows;
use crate::convolve::matrix::Tile;
use crate::convolve::{Block, WIDE};
use crate::quant::CHANNEL_HEAD;
use core::arch::naked_asm;

/// Windows of the next tile, where pixels are left, as wide as there is room for: four if they are not wide, one
/// only for rows of which all are live.
pub(in crate::convolve) fn windows(left: usize, window: usize, all_live: bool) -> usize {
    match left {
        1 if all_live => 1,
        4.. if window <= WIDE => 4,
        _ => 2,
    }
}

/// Numbers of a window of a tile, quad by quad: (a, c) of all windows, then (b, d) of all.
pub(in crate::convolve) fn stage(
    bytes: &[i8],
    place: usize,
    tile: &mut Tile<'_>,
    window: usize,
    zero: i32,
) {
    let (quads, windows) = (bytes.len() / 4, tile.windows);
    let Some(out) = tile.numbers.get_mut(windows * place..) else { return };
    if quads == 0 || window >= windows || out.len() < 4 * windows * quads {
        return;
    }
    let out = out.as_mut_ptr().cast::<u32>().wrapping_add(window);
    // SAFETY: `bytes` has `quads` quads, and the tile two words for each and for each window, of which
    // those of one window are written.
    unsafe { widen(bytes.as_ptr(), quads, out, minus(zero), 4 * windows) }
}

/// `bytes`, `quads`, where to write, what to add to both halves of a word, bytes from a word to the next.
#[unsafe(naked)]
unsafe extern "C" fn widen(
    bytes: *const i8,
    quads: usize,
    out: *mut u32,
    minus_zero: u32,
    step: usize,
) {
    naked_asm!(
        "push {{r4-r6, lr}}",
        "ldr r4, [sp, #16]",
        "2:",
        "ldr r5, [r0], #4",
        "sxtab16 r6, r3, r5",
        "sxtab16 r5, r3, r5, ror #8",
        "str r6, [r2]",
        "str r5, [r2, r4]",
        "add r2, r2, r4, lsl #1",
        "subs r1, #1",
        "bne 2b",
        "pop {{r4-r6, pc}}",
    )
}

/// What [`widen_four`] works on, as it lays it on the stack.
#[repr(C)]
struct FourLines {
    from: *const i8,
    /// From a window to the next.
    step: usize,
    to: *mut i16,
    minus_zero: u32,
    /// Bytes of a line, and from its end to the next one.
    line: usize,
    gap: usize,
    count: usize,
}

/// All windows of a tile of four, `step` bytes from a window to the next: `count` lines of `length` bytes for each,
/// `line_step` bytes from a line to the next. False if these are not there.
pub(in crate::convolve) fn stage_four(
    from: &[i8],
    step: usize,
    [length, count, line_step]: [usize; 3],
    tile: &mut Tile<'_>,
    zero: i32,
) -> bool {
    let Some(last) = count.checked_sub(1) else { return false };
    let there = from.len() >= 3 * step + last * line_step + length;
    let room = tile.windows == 4 && tile.numbers.len() >= 4 * count * length;
    if !there || !room || length == 0 || !length.is_multiple_of(4) {
        return false;
    }
    let (from, to) = (from.as_ptr(), tile.numbers.as_mut_ptr());
    let gap = line_step.wrapping_sub(length);
    let lines = FourLines { from, step, to, minus_zero: minus(zero), line: length, gap, count };
    // SAFETY: each of four windows has `count` lines of `length` bytes, in quads, and the tile a number for each.
    unsafe { widen_four(&raw const lines) }
    true
}

#[unsafe(naked)]
unsafe extern "C" fn widen_four(lines: *const FourLines) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "ldmia r0, {{r0-r6}}",
        "push {{r4-r6}}",
        "mov r4, r3",
        "add r5, r1, r1, lsl #1",
        "2:",
        "ldr r3, [sp]",
        "add r3, r0",
        "3:",
        "ldr r7, [r0, r1]",
        "ldr r8, [r0, r1, lsl #1]",
        "ldr r9, [r0, r5]",
        "ldr r6, [r0], #4",
        "sxtab16 r10, r4, r6",
        "sxtab16 r11, r4, r7",
        "sxtab16 r12, r4, r8",
        "sxtab16 lr, r4, r9",
        "sxtab16 r6, r4, r6, ror #8",
        "sxtab16 r7, r4, r7, ror #8",
        "sxtab16 r8, r4, r8, ror #8",
        "sxtab16 r9, r4, r9, ror #8",
        "stmia r2!, {{r10, r11, r12, lr}}",
        "stmia r2!, {{r6-r9}}",
        "cmp r0, r3",
        "bne 3b",
        "ldrd r6, r7, [sp, #4]",
        "add r0, r6",
        "subs r7, #1",
        "str r7, [sp, #8]",
        "bne 2b",
        "add sp, #12",
        "pop {{r4-r11, pc}}",
    )
}

/// What kernels of a tile work on, as they lay it on the stack.
#[repr(C)]
struct Product {
    rows: *const u8,
    row_bytes: usize,
    /// The windows.
    x: *const i16,
    /// Bytes of a row's quads that are no multiple of four quads, and of the others.
    odd: usize,
    even: usize,
    /// The first window's output, and from a window's to the next.
    out: *mut i8,
    out_step: usize,
    zero: i32,
    /// The numbers of the rows, from the first on to their end.
    live: *const u16,
    end: *const u16,
}

/// Multiplies rows with the windows of a tile: those whose numbers are listed, or all with a tile of one.
/// `out` has a byte for each row at each step.
pub(in crate::convolve) fn multiply(
    block: &Block<'_>,
    live: &[u16],
    tile: &Tile<'_>,
    (out, out_step): (&mut [i8], usize),
) {
    let Block { rows, row_bytes, rescale } = *block;
    let (count, windows) = (rows.len() / row_bytes.max(1), tile.windows);
    let quads = row_bytes.saturating_sub(CHANNEL_HEAD) / 4;
    // They ascend, as `Rows` lists them.
    let there = live.last().is_some_and(|row| usize::from(*row) < count);
    let room = out.len() >= windows.saturating_sub(1) * out_step + count;
    if quads == 0 || tile.numbers.len() < 4 * windows * quads || !there || !room {
        return;
    }
    let kernel = match windows {
        4 => multiply_by_four,
        2 => multiply_by_two,
        _ => {
            multiply_rows(block, tile.numbers, out);
            return;
        }
    };
    let product = Product {
        rows: rows.as_ptr(),
        row_bytes,
        x: tile.numbers.as_ptr(),
        odd: 4 * (quads % 4),
        even: 4 * (quads / 4 * 4),
        out: out.as_mut_ptr(),
        out_step,
        zero: rescale.zero,
        live: live.as_ptr(),
        end: live.as_ptr_range().end,
    };
    // SAFETY: rows of these numbers are there, of `row_bytes` bytes, which end behind their quads; the output has
    // a byte for each at each step; and each window has 2 words for each quad.
    unsafe { kernel(&raw const product) }
    if rescale.clamps() {
        for out in out.chunks_mut(out_step.max(1)).take(windows) {
            rescale.clamp(out.get_mut(..count).unwrap_or_default());
        }
    }
}

/// A row's quad with that of four windows.
macro_rules! quad_by_four {
    () => {
        "ldr r12, [r0], #4
        ldmia r2!, {{r8-r11}}
        sxtb16 lr, r12
        sxtb16 r12, r12, ror #8
        smlad r4, lr, r8, r4
        smlad r5, lr, r9, r5
        smlad r6, lr, r10, r6
        smlad r7, lr, r11, r7
        ldmia r2!, {{r8-r11}}
        smlad r4, r12, r8, r4
        smlad r5, r12, r9, r5
        smlad r6, r12, r10, r6
        smlad r7, r12, r11, r7"
    };
}

/// A row's quad with that of two windows.
macro_rules! quad_by_two {
    () => {
        "ldr r12, [r0], #4
        ldmia r2!, {{r8-r11}}
        sxtb16 lr, r12
        sxtb16 r12, r12, ror #8
        smlad r4, lr, r8, r4
        smlad r5, lr, r9, r5
        smlad r4, r12, r10, r4
        smlad r5, r12, r11, r5"
    };
}

/// A row from its bias on with all windows of a tile, quad by quad: leaves r0 at the row's end.
macro_rules! row_by_windows {
    ($quad:ident, $biases:literal) => {
        concat!(
            "ldrh r4, [r1], #2
            ldrd r5, r6, [sp]
            mla r0, r4, r6, r5
            ldrd r2, r3, [sp, #8]
            ldr r4, [r0], #12\n",
            $biases,
            "cbz r3, 4f
            add r3, r0
            3:\n",
            $quad!(),
            "\ncmp r0, r3
            bne 3b
            4:
            ldr r3, [sp, #16]
            cmp r3, #0
            beq 6f
            add r3, r0
            5:\n",
            $quad!(),
            "\n",
            $quad!(),
            "\n",
            $quad!(),
            "\n",
            $quad!(),
            "\ncmp r0, r3
            bne 5b
            6:
            ldr r2, [sp, #4]
            sub r0, r2
            ldrd r8, r9, [r0, #4]
            ldrd r2, r3, [sp, #20]
            ldrh r10, [r1, #-2]
            ldr r0, [sp, #28]
            add r2, r10
            rsbs r9, r9, #0\n",
        )
    };
}

/// Each listed row with four windows.
#[unsafe(naked)]
unsafe extern "C" fn multiply_by_four(product: *const Product) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "ldmia r0, {{r0-r9}}",
        "push {{r0-r9}}",
        "mov r1, r8",
        "2:",
        row_by_windows!(quad_by_four, "mov r5, r4\nmov r6, r4\nmov r7, r4\n"),
        "ble 8f",
        rescale!("r4", "r8", "r9", "r0"),
        rescale!("r5", "r8", "r9", "r0"),
        rescale!("r6", "r8", "r9", "r0"),
        rescale!("r7", "r8", "r9", "r0"),
        "7:",
        "strb r4, [r2]",
        "strb r5, [r2, r3]",
        "strb r6, [r2, r3, lsl #1]",
        "add r2, r3",
        "strb r7, [r2, r3, lsl #1]",
        "ldr r0, [sp, #36]",
        "cmp r1, r0",
        "bne 2b",
        "add sp, #40",
        "pop {{r4-r11, pc}}",
        "8:",
        "rsb r9, r9, #1",
        rescale_left!("r4", "r8", "r9", "r0"),
        rescale_left!("r5", "r8", "r9", "r0"),
        rescale_left!("r6", "r8", "r9", "r0"),
        rescale_left!("r7", "r8", "r9", "r0"),
        "b 7b",
    )
}

/// Each listed row with two windows.
#[unsafe(naked)]
unsafe extern "C" fn multiply_by_two(product: *const Product) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "ldmia r0, {{r0-r9}}",
        "push {{r0-r9}}",
        "mov r1, r8",
        "2:",
        row_by_windows!(quad_by_two, "mov r5, r4\n"),
        "ble 8f",
        rescale!("r4", "r8", "r9", "r0"),
        rescale!("r5", "r8", "r9", "r0"),
        "7:",
        "strb r4, [r2]",
        "strb r5, [r2, r3]",
        "ldr r0, [sp, #36]",
        "cmp r1, r0",
        "bne 2b",
        "add sp, #40",
        "pop {{r4-r11, pc}}",
        "8:",
        "rsb r9, r9, #1",
        rescale_left!("r4", "r8", "r9", "r0"),
        rescale_left!("r5", "r8", "r9", "r0"),
        "b 7b",
    )
}

//! Rows times the windows of a tile.

use super::vector::multiply_rows;
use crate::convolve::{Block, Tile, WIDE};
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
        dsp_core!(),
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
        dsp_core!(),
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

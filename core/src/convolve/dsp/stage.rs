//! The numbers of windows, put into a tile.

use super::minus;
use crate::convolve::Tile;
use core::arch::naked_asm;

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
        dsp_core!(),
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
        dsp_core!(),
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

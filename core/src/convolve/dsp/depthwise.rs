//! Four channels of a depthwise convolution, row by row.

use super::minus;
use crate::convolve::{Head, Shape};
use core::arch::naked_asm;

/// Pixels of the widest window of [`depthwise`], and its rows.
pub(in crate::convolve) const DEPTHWISE: usize = 3;
/// Words of what [`pack`] makes.
pub(in crate::convolve) const PACKED: usize = 4 + 4 * 2 * DEPTHWISE + 12;

/// The rows of four channels as [`depthwise`] reads them: biases, weights of one column and two rows at a
/// time (the third has no other), then of each channel the multiplier, one more than the shift to the left, and the
/// shift to the right.
pub(in crate::convolve) fn pack(rows: &[u8], row_bytes: usize, packed: &mut [u32; PACKED]) {
    for (channel, row) in rows.chunks_exact(row_bytes.max(1)).take(4).enumerate() {
        let Some((head, weights)) = Head::split(row) else { return };
        let weight = |ky: usize, kx: usize| {
            let at = if ky < DEPTHWISE { weights.get(ky * DEPTHWISE + kx) } else { None };
            at.map_or(0, |byte| i32::from(byte.cast_signed()).cast_unsigned())
        };
        let mut put = |at: usize, word: u32| {
            if let Some(place) = packed.get_mut(at) {
                *place = word;
            }
        };
        put(channel, head.bias.cast_unsigned());
        for tap in 0..2 * DEPTHWISE {
            let (ky, kx) = (tap / DEPTHWISE * 2, tap % DEPTHWISE);
            put(4 + 4 * tap + channel, weight(ky, kx) & 0xffff | weight(ky + 1, kx) << 16);
        }
        let right = head.shift.saturating_neg().clamp(0, 31);
        let scale = [head.multiplier, head.shift.clamp(0, 31) + 1, right];
        for (place, word) in (4 + 8 * DEPTHWISE + 3 * channel..).zip(scale) {
            put(place, word.cast_unsigned());
        }
    }
}

/// What [`pair_lines`] works on.
#[repr(C)]
struct PairLines {
    first: *const i8,
    first_step: usize,
    second: *const i8,
    second_step: usize,
    out: *mut [u32; 4],
    count: usize,
    minus_zero: u32,
}

/// Makes of two rows of an image a word for each of four channels: a number of the first row, and the one below.
#[unsafe(naked)]
unsafe extern "C" fn pair_lines(lines: *const PairLines) {
    naked_asm!(
        dsp_core!(),
        "push {{r4-r11, lr}}",
        "ldmia r0, {{r0-r6}}",
        "2:",
        "ldr r7, [r0]",
        "add r0, r1",
        "ldr r9, [r2]",
        "add r2, r3",
        "sxtab16 r8, r6, r7",
        "sxtab16 r7, r6, r7, ror #8",
        "sxtab16 r10, r6, r9",
        "sxtab16 r9, r6, r9, ror #8",
        "pkhtb r11, r10, r8, asr #16",
        "pkhbt r8, r8, r10, lsl #16",
        "pkhtb r12, r9, r7, asr #16",
        "pkhbt r9, r7, r9, lsl #16",
        "stmia r4!, {{r8, r9, r11, r12}}",
        "subs r5, #1",
        "bne 2b",
        "pop {{r4-r11, pc}}",
    )
}

/// What [`depthwise_pixels`] works on, as it lays it on the stack.
#[repr(C)]
struct Pixels {
    /// Where the window begins in the first two rows.
    x: *const [u32; 4],
    /// Bytes to the next pixel's window.
    step: usize,
    /// Bytes from behind the window in the first two rows to the window in the next two.
    gap: usize,
    packed: *const u32,
    out: *mut i8,
    zero: i32,
    out_step: usize,
    /// Where the window behind the last one begins.
    end: *const [u32; 4],
}

/// Computes four channels from number `channel` on. `ring` keeps pairs of rows, as many as the kernel has rows, each of
/// which has what is beside the image on its left and on its right. False if something is not as long as it should be.
pub(in crate::convolve) fn depthwise(
    shape: &Shape,
    packed: &[u32; PACKED],
    ring: &mut [[u32; 4]],
    channel: usize,
    input: &[i8],
    output: &mut [i8],
) -> bool {
    let Shape { from, to, stride, pad, zero, rescale, .. } = *shape;
    let ([height, width, channels], [rows, columns, outputs]) = (from, to);
    let pair = ring.len() / DEPTHWISE;
    // Columns of the image that are seen.
    let count = width.min(pair.saturating_sub(pad[1]));
    let size = |image: [usize; 3]| image.iter().map(|side| *side as u64).product::<u64>();
    let there = input.len() as u64 >= size(from) && output.len() as u64 >= size(to);
    let seen = columns.saturating_sub(1) * stride[1] + DEPTHWISE;
    let suits = channels == outputs && channel + 4 <= channels && pair >= seen;
    if !there || !suits || size(from) == 0 || size(to) == 0 || count == 0 {
        return false;
    }
    ring.fill([0; 4]);
    let ring = ring.as_mut_ptr();
    let beside = [zero as i8; 4];
    let (row_bytes, input) = (width * channels, input.as_ptr().wrapping_add(channel));
    // Rows are counted from the padding on.
    let line = |row: usize| {
        let y = row.wrapping_sub(pad[0]);
        let there = y < height;
        if there { (input.wrapping_add(y * row_bytes), channels) } else { (beside.as_ptr(), 0) }
    };
    let mut lines = PairLines {
        first: input,
        first_step: 0,
        second: input,
        second_step: 0,
        out: ring,
        count,
        minus_zero: minus(zero),
    };
    let mut pixels = Pixels {
        x: ring,
        step: 16 * stride[1],
        gap: 0,
        packed: packed.as_ptr(),
        out: output.as_mut_ptr().wrapping_add(channel),
        zero: rescale.zero,
        out_step: channels,
        end: ring,
    };
    // The next pair to make, and to the one behind it: every other one is seen at even strides.
    let (mut next, step) = (0, 2 - stride[0] % 2);
    for y in 0..rows {
        let first = y * stride[0];
        next = first.max(next);
        while next <= first + 2 {
            lines.out = ring.wrapping_add(next % DEPTHWISE * pair + pad[1]);
            (lines.first, lines.first_step) = line(next);
            (lines.second, lines.second_step) = line(next + 1);
            // SAFETY: each row has four bytes at each of `count` steps, and the pair as many places behind those of
            // the padding.
            unsafe { pair_lines(&raw const lines) }
            next += step;
        }
        // The pair with the third row lies two places on in the ring, or one before.
        let place = first % DEPTHWISE;
        let pairs_on = if place == 0 { 32 } else { 0usize.wrapping_sub(16) };
        pixels.gap = pair.wrapping_mul(pairs_on).wrapping_sub(16 * DEPTHWISE);
        pixels.x = ring.wrapping_add(place * pair);
        pixels.end = pixels.x.wrapping_add(columns * stride[1]);
        // SAFETY: at each of `columns` strides, both pairs have a window, and a row of the output has room for
        // four bytes at each of its pixels.
        unsafe { depthwise_pixels(&raw const pixels) }
        pixels.out = pixels.out.wrapping_add(columns * channels);
    }
    if rescale.clamps() {
        for pixel in output.chunks_exact_mut(channels.max(1)) {
            rescale.clamp(pixel.get_mut(channel..channel + 4).unwrap_or_default());
        }
    }
    true
}

/// Two taps of four channels.
macro_rules! taps_of_four {
    () => {
        "ldmia r0!, {{r8-r11}}
        ldmia r1!, {{r2, r3, r12, lr}}
        smlad r4, r8, r2, r4
        smlad r5, r9, r3, r5
        smlad r6, r10, r12, r6
        smlad r7, r11, lr, r7"
    };
}

#[unsafe(naked)]
unsafe extern "C" fn depthwise_pixels(pixels: *const Pixels) {
    naked_asm!(
        dsp_core!(),
        "push {{r4-r11, lr}}",
        "ldmia r0, {{r0-r7}}",
        "push {{r0-r7}}",
        "2:",
        "ldr r1, [sp, #12]",
        "ldmia r1!, {{r4-r7}}",
        taps_of_four!(),
        taps_of_four!(),
        taps_of_four!(),
        "ldr r2, [sp, #8]",
        "add r0, r2",
        taps_of_four!(),
        taps_of_four!(),
        taps_of_four!(),
        "ldrd r8, r9, [sp, #16]",
        "ldmia r1!, {{r2, r3, r10, r11, r12, lr}}",
        rescale_any!("r4", "r2", "r3", "r10", "r9"),
        rescale_any!("r5", "r11", "r12", "lr", "r9"),
        "ldmia r1!, {{r2, r3, r10, r11, r12, lr}}",
        rescale_any!("r6", "r2", "r3", "r10", "r9"),
        rescale_any!("r7", "r11", "r12", "lr", "r9"),
        "ldrd r2, r3, [sp, #24]",
        "strb r5, [r8, #1]",
        "strb r6, [r8, #2]",
        "strb r7, [r8, #3]",
        "strb r4, [r8]",
        "add r8, r2",
        "str r8, [sp, #16]",
        "ldrd r0, r2, [sp]",
        "add r0, r2",
        "str r0, [sp]",
        "cmp r0, r3",
        "bne 2b",
        "add sp, #32",
        "pop {{r4-r11, pc}}",
    )
}

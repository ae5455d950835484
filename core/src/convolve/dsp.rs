//! Kernels for ARMv7E-M, in its assembly: two products of 16 bits an instruction (SMLAD), bytes that are
//! widened and shifted by the zero point in pairs (SXTAB16).
//!
//! A quad of bytes a, b, c, d becomes two words, (a, c) and (b, d), wherever it meets another.
#![expect(
    unsafe_code,
    reason = "functions of assembly only, behind functions that check what they read and write"
)]

use super::{Block, CHANNEL_HEAD, Head, Rescale};
use core::arch::naked_asm;

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

/// Writes zeros for so many quads of a window, from number `place` of the window on.
pub(super) fn blank(quads: usize, place: usize, pair: &mut [i16], window: usize) {
    if quads == 0 {
        return;
    }
    for quad in pair.chunks_exact_mut(8).skip(place / 4).take(quads) {
        for half in quad.chunks_exact_mut(4) {
            half.chunks_exact_mut(2).skip(window).take(1).for_each(|word| word.fill(0));
        }
    }
}

/// Both windows of a pair, quad by quad: (a, c) of both, then (b, d) of both.
pub(super) fn stage(bytes: &[i8], place: usize, pair: &mut [i16], window: usize, zero: i32) {
    let quads = bytes.len() / 4;
    let Some(pair) = pair.get_mut(2 * place..).filter(|pair| pair.len() >= 8 * quads) else {
        return;
    };
    if quads == 0 || window > 1 {
        return;
    }
    // SAFETY: `bytes` has `quads` quads, and `pair` 4 words for each, of which the first and the third
    // from `window` on are written.
    unsafe {
        widen(
            bytes.as_ptr(),
            quads,
            pair.as_mut_ptr().cast::<u32>().wrapping_add(window),
            minus(zero),
        )
    }
}

/// `bytes`, `quads`, where to write, what to add to both halves of a word.
#[unsafe(naked)]
unsafe extern "C" fn widen(bytes: *const i8, quads: usize, out: *mut u32, minus_zero: u32) {
    naked_asm!(
        "push {{r4, lr}}",
        "lsrs lr, r1, #1",
        "beq 3f",
        "2:",
        "ldr r12, [r0], #4",
        "sxtab16 r4, r3, r12",
        "sxtab16 r12, r3, r12, ror #8",
        "str r12, [r2, #8]",
        "str r4, [r2], #16",
        "ldr r12, [r0], #4",
        "sxtab16 r4, r3, r12",
        "sxtab16 r12, r3, r12, ror #8",
        "str r12, [r2, #8]",
        "str r4, [r2], #16",
        "subs lr, #1",
        "bne 2b",
        "3:",
        "lsls r1, r1, #31",
        "beq 4f",
        "ldr r12, [r0]",
        "sxtab16 r4, r3, r12",
        "sxtab16 r12, r3, r12, ror #8",
        "str r12, [r2, #8]",
        "str r4, [r2]",
        "4:",
        "pop {{r4, pc}}",
    )
}

/// What [`multiply_pairs`] works on, as it lays it on the stack.
#[repr(C)]
struct Pairs {
    rows: *const u8,
    row_bytes: usize,
    /// The windows.
    x: *const i16,
    /// Bytes of a row's quads that are no multiple of four quads, and of the others.
    odd: usize,
    even: usize,
    out: [*mut i8; 2],
    zero: i32,
    /// The numbers of the rows, and how many pairs of them there are.
    live: *const [u16; 2],
    count: usize,
}

/// Multiplies rows with both windows of a pair: those whose numbers are listed.
pub(super) fn multiply(
    block: &Block<'_>,
    live: &[u16],
    pair: &[i16],
    [first, second]: [&mut [i8]; 2],
) {
    let Block { rows, row_bytes, rescale } = *block;
    let quads = row_bytes.saturating_sub(CHANNEL_HEAD) / 4;
    let given = first.len().min(second.len());
    let given = if rows.len() >= given.saturating_mul(row_bytes) { given } else { 0 };
    // They ascend, as `Rows` lists them.
    let there = live.last().is_some_and(|row| usize::from(*row) < given);
    if quads == 0 || pair.len() < 8 * quads || !there {
        return;
    }
    let (twos, rest) = live.as_chunks::<2>();
    let run = |live: &[[u16; 2]], out: [*mut i8; 2]| {
        let pairs = Pairs {
            rows: rows.as_ptr(),
            row_bytes,
            x: pair.as_ptr(),
            odd: 4 * (quads % 4),
            even: 4 * (quads / 4 * 4),
            out,
            zero: rescale.zero,
            live: live.as_ptr(),
            count: live.len(),
        };
        if pairs.count > 0 {
            // SAFETY: rows of these numbers are there, of `row_bytes` bytes, which end behind their quads;
            // either output has a byte for each; and the windows have 4 words for each quad.
            unsafe { multiply_pairs(&raw const pairs) }
        }
    };
    let out = [first.as_mut_ptr(), second.as_mut_ptr()];
    run(twos, out);
    // The last row is its own neighbour.
    rest.iter().for_each(|row| run(&[[*row; 2]], out));
    rescale.clamp(first);
    rescale.clamp(second);
}

/// Four products of a quad of two rows with a quad of two windows.
macro_rules! quads_2x2 {
    () => {
        "ldmia r2!, {{r8-r11}}
        ldr r12, [r0], #4
        sxtb16 lr, r12
        sxtb16 r12, r12, ror #8
        smlad r4, lr, r8, r4
        smlad r5, lr, r9, r5
        smlad r4, r12, r10, r4
        smlad r5, r12, r11, r5
        ldr r12, [r1], #4
        sxtb16 lr, r12
        sxtb16 r12, r12, ror #8
        smlad r6, lr, r8, r6
        smlad r7, lr, r9, r7
        smlad r6, r12, r10, r6
        smlad r7, r12, r11, r7"
    };
}

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

/// The same with both shifts; `round` is -1, but 0 where nothing is shifted to the right, and is lost.
macro_rules! rescale_any {
    ($sum:literal, $multiplier:literal, $left:literal, $right:literal, $round:literal, $zero:literal) => {
        concat!(
            op!("lsl", $sum, $sum, $left),
            op!("smmulr", $sum, $sum, $multiplier),
            op!("and", $round, $round, $sum, "asr #31"),
            // Clears the carry where the shift by 0 leaves it.
            op!("adds", $sum, $sum, $round),
            op!("asrs", $sum, $sum, $right),
            op!("adc", $sum, $sum, $zero),
            op!("ssat", $sum, "#8", $sum),
        )
    };
}

/// Two rows with two windows, `count` times.
#[unsafe(naked)]
unsafe extern "C" fn multiply_pairs(pairs: *const Pairs) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "ldmia r0, {{r0-r9}}",
        "push {{r0-r9}}",
        "2:",
        "ldr r7, [sp, #32]",
        "ldrd r4, r5, [sp]",
        "ldrd r2, r3, [sp, #8]",
        "ldrh r6, [r7], #2",
        "mla r0, r5, r6, r4",
        "ldrh r6, [r7], #2",
        "mla r1, r5, r6, r4",
        "str r7, [sp, #32]",
        "ldr r4, [r0], #12",
        "ldr r6, [r1], #12",
        "mov r5, r4",
        "mov r7, r6",
        "add r3, r0",
        "b 4f",
        "3:",
        quads_2x2!(),
        "4:",
        "cmp r0, r3",
        "bne 3b",
        "ldr r8, [sp, #16]",
        "add r3, r8",
        "b 6f",
        "5:",
        quads_2x2!(),
        quads_2x2!(),
        quads_2x2!(),
        quads_2x2!(),
        "6:",
        "cmp r0, r3",
        "bne 5b",
        // Both rows' heads, as far in front of where the rows end as they are long.
        "ldr r2, [sp, #4]",
        "sub r0, r2",
        "sub r1, r2",
        "ldrd r8, r9, [r0, #4]",
        "ldrd r10, r11, [r1, #4]",
        "ldrd r2, r3, [sp, #20]",
        "ldr r0, [sp, #28]",
        "rsbs r9, r9, #0",
        "ble 8f",
        rescale!("r4", "r8", "r9", "r0"),
        rescale!("r5", "r8", "r9", "r0"),
        "7:",
        "rsbs r11, r11, #0",
        "ble 11f",
        rescale!("r6", "r10", "r11", "r0"),
        rescale!("r7", "r10", "r11", "r0"),
        "9:",
        "ldr r0, [sp, #32]",
        "ldrh r1, [r0, #-4]",
        "ldrh r0, [r0, #-2]",
        "strb r4, [r2, r1]",
        "strb r5, [r3, r1]",
        "strb r6, [r2, r0]",
        "strb r7, [r3, r0]",
        "ldr r0, [sp, #36]",
        "subs r0, #1",
        "str r0, [sp, #36]",
        "bne 2b",
        "add sp, #40",
        "pop {{r4-r11, pc}}",
        "8:",
        "rsb r9, r9, #1",
        rescale_left!("r4", "r8", "r9", "r0"),
        rescale_left!("r5", "r8", "r9", "r0"),
        "b 7b",
        "11:",
        "rsb r11, r11, #1",
        rescale_left!("r6", "r10", "r11", "r0"),
        rescale_left!("r7", "r10", "r11", "r0"),
        "b 9b",
    )
}

/// What [`multiply_fours`] works on, as it lays it on the stack.
#[repr(C)]
struct Fours {
    rows: *const u8,
    row_bytes: usize,
    x: *const i8,
    odd: usize,
    even: usize,
    out: *mut i8,
    zero: i32,
    /// Fours of rows.
    count: usize,
    minus_zero: u32,
}

/// Multiplies rows with bytes, as long as there are four; returns how many rows.
pub(super) fn multiply_vector(block: &Block<'_>, x: &[i8], zero: i32, out: &mut [i8]) -> usize {
    let Block { rows, row_bytes, rescale } = *block;
    let quads = row_bytes.saturating_sub(CHANNEL_HEAD) / 4;
    let count = (rows.len() / row_bytes.max(1)).min(out.len()) / 4;
    if quads == 0 || x.len() < 4 * quads || count == 0 {
        return 0;
    }
    let fours = Fours {
        rows: rows.as_ptr(),
        row_bytes,
        x: x.as_ptr(),
        odd: 4 * (quads % 4),
        even: 4 * (quads / 4 * 4),
        out: out.as_mut_ptr(),
        zero: rescale.zero,
        count,
        minus_zero: minus(zero),
    };
    // SAFETY: there are `4 * count` rows of `row_bytes` bytes, which end behind their quads, as many bytes
    // in the output, and as many quads in `x`.
    unsafe { multiply_fours(&raw const fours) }
    rescale.clamp(out.get_mut(..4 * count).unwrap_or_default());
    4 * count
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

/// A quad of four rows with a quad of bytes.
macro_rules! quads_4x1 {
    () => {
        concat!(
            "ldr r9, [r2], #4\n",
            "sxtab16 r8, lr, r9\n",
            "sxtab16 r9, lr, r9, ror #8\n",
            quad_of_row!("[r0, r3]", "r5"),
            quad_of_row!("[r1, r3]", "r7"),
            quad_of_row!("[r0], #4", "r4"),
            quad_of_row!("[r1], #4", "r6"),
        )
    };
}

/// One of four sums, whose row begins at r1 and the next one r3 bytes behind.
macro_rules! rescale_row {
    ($sum:literal, $left:literal, $done:literal) => {
        concat!(
            "ldrd r8, r9, [r1, #4]\n",
            "add r1, r3\n",
            "rsbs r9, r9, #0\n",
            concat!("ble ", $left, "f\n"),
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
            rescale_left!($sum, "r8", "r9", "r12"),
            concat!("b ", $done, "b\n"),
        )
    };
}

/// Four rows with bytes, `count` times.
#[unsafe(naked)]
unsafe extern "C" fn multiply_fours(fours: *const Fours) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "ldmia r0, {{r0-r8}}",
        "push {{r0-r8}}",
        "2:",
        "ldrd r0, r3, [sp]",
        "ldrd r2, r12, [sp, #8]",
        "ldr lr, [sp, #32]",
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
        "ldr r2, [sp, #20]",
        "ldr r12, [sp, #24]",
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
        "add sp, #36",
        "pop {{r4-r11, pc}}",
        rescale_row_left!("r4", "21", "31"),
        rescale_row_left!("r5", "22", "32"),
        rescale_row_left!("r6", "23", "33"),
        rescale_row_left!("r7", "24", "34"),
    )
}

/// Pixels of the widest window of [`depthwise`], and its rows.
pub(super) const DEPTHWISE: usize = 3;
/// Words of what [`pack`] makes.
pub(super) const PACKED: usize = 4 + 4 * 2 * DEPTHWISE + 16;

/// The rows of four channels as [`depthwise`] reads them: biases, weights of one column and two rows at a
/// time (the third has no other), then of each channel the multiplier, one more than the shift to the left, the
/// shift to the right, and -1 if there is one.
pub(super) fn pack(rows: &[u8], row_bytes: usize, packed: &mut [u32; PACKED]) {
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
        let scale = [head.multiplier, head.shift.clamp(0, 31) + 1, right, -i32::from(right > 0)];
        for (place, word) in (4 + 8 * DEPTHWISE + 4 * channel..).zip(scale) {
            put(place, word.cast_unsigned());
        }
    }
}

/// Four channels of a row of an image, or what stands for a row beside it.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    /// From the first pixel's channels on.
    pub(super) bytes: &'a [i8],
    /// From a pixel to the next.
    pub(super) step: usize,
}

/// What [`pair_lines`] works on.
#[repr(C)]
struct Lines {
    first: *const i8,
    first_step: usize,
    second: *const i8,
    second_step: usize,
    out: *mut [u32; 4],
    count: usize,
    minus_zero: u32,
}

/// Makes of two rows of an image a word for each channel: a number of the first row, and the one below.
pub(super) fn pair([first, second]: [Line<'_>; 2], zero: i32, out: &mut [[u32; 4]]) {
    let count = out.len();
    let fits = |line: Line<'_>| line.bytes.len() >= count.saturating_sub(1) * line.step + 4;
    if count == 0 || !fits(first) || !fits(second) {
        return;
    }
    let lines = Lines {
        first: first.bytes.as_ptr(),
        first_step: first.step,
        second: second.bytes.as_ptr(),
        second_step: second.step,
        out: out.as_mut_ptr(),
        count,
        minus_zero: minus(zero),
    };
    // SAFETY: each row has four bytes at each of `count` steps, and `out` has room for as many words.
    unsafe { pair_lines(&raw const lines) }
}

#[unsafe(naked)]
unsafe extern "C" fn pair_lines(lines: *const Lines) {
    naked_asm!(
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
    gap: isize,
    packed: *const u32,
    out: *mut i8,
    zero: i32,
    out_step: usize,
    /// Where the window behind the last one begins.
    end: *const [u32; 4],
}

/// Four channels of a row of the output: `upper` and `lower` are the pairs of rows that it sees, of which
/// `stride` more pixels are seen for each pixel. Writes four bytes at each `out_step`.
pub(super) fn depthwise(
    [upper, lower]: [&[[u32; 4]]; 2],
    stride: usize,
    packed: &[u32; PACKED],
    (out, out_step): (&mut [i8], usize),
    rescale: Rescale,
) {
    let seen = upper.len().min(lower.len()).saturating_sub(DEPTHWISE);
    let there = out.len().saturating_sub(4).checked_div(out_step);
    let count = (seen / stride.max(1) + 1).min(there.map_or(0, |n| n + 1));
    if count == 0 || stride == 0 || upper.len() < DEPTHWISE || out.len() < 4 {
        return;
    }
    let (x, below) = (upper.as_ptr(), lower.as_ptr());
    let pixels = Pixels {
        x,
        step: 16 * stride,
        gap: below
            .addr()
            .wrapping_sub(x.addr())
            .cast_signed()
            .wrapping_sub(16 * DEPTHWISE as isize),
        packed: packed.as_ptr(),
        out: out.as_mut_ptr(),
        zero: rescale.zero,
        out_step,
        end: x.wrapping_add(count * stride),
    };
    // SAFETY: at each of `count` strides, both pairs of rows have a window, and at each `out_step` there
    // is room for four bytes; the packed words are as many as are read.
    unsafe { depthwise_pixels(&raw const pixels) }
    if rescale.clamps() {
        for four in out.chunks_mut(out_step.max(1)).take(count) {
            rescale.clamp(four.get_mut(..4).unwrap_or_default());
        }
    }
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
        "push {{r4-r11, lr}}",
        "ldmia r0, {{r0-r7}}",
        "push {{r0-r7}}",
        "2:",
        "ldr r1, [sp, #12]",
        "ldr r0, [sp]",
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
        "ldr r10, [sp, #24]",
        "ldmia r1!, {{r2, r3, r11, r12}}",
        rescale_any!("r4", "r2", "r3", "r11", "r12", "r9"),
        "ldmia r1!, {{r2, r3, r11, r12}}",
        rescale_any!("r5", "r2", "r3", "r11", "r12", "r9"),
        "ldmia r1!, {{r2, r3, r11, r12}}",
        rescale_any!("r6", "r2", "r3", "r11", "r12", "r9"),
        "ldmia r1!, {{r2, r3, r11, r12}}",
        rescale_any!("r7", "r2", "r3", "r11", "r12", "r9"),
        "strb r5, [r8, #1]",
        "strb r6, [r8, #2]",
        "strb r7, [r8, #3]",
        "strb r4, [r8]",
        "add r8, r10",
        "str r8, [sp, #16]",
        "ldrd r0, r2, [sp]",
        "ldr r3, [sp, #28]",
        "add r0, r2",
        "str r0, [sp]",
        "cmp r0, r3",
        "bne 2b",
        "add sp, #32",
        "pop {{r4-r11, pc}}",
    )
}

/// What takes `zero` off both halves of a word.
fn minus(zero: i32) -> u32 {
    (zero.wrapping_neg().cast_unsigned() & 0xffff) * 0x1_0001
}

/// What [`copy_lines`] works on.
#[repr(C)]
struct Copies {
    from: *const i8,
    step: usize,
    to: *mut i8,
    length: usize,
    lines: usize,
}

/// Puts parts of rows of an image behind one another: `length` bytes, 4 at least, at each `step`; false if these
/// are not there.
pub(super) fn gather(from: &[i8], step: usize, length: usize, lines: usize, to: &mut [i8]) -> bool {
    let last = lines.saturating_sub(1).saturating_mul(step);
    let there = from.len() >= last.saturating_add(length) && to.len() >= lines * length;
    if !there || length < 4 || lines == 0 {
        return false;
    }
    let copies = Copies { from: from.as_ptr(), step, to: to.as_mut_ptr(), length, lines };
    // SAFETY: both have as many lines of as many bytes, of which no word is outside.
    unsafe { copy_lines(&raw const copies) }
    true
}

/// Word by word; the last word of a line overlaps with the one before.
#[unsafe(naked)]
unsafe extern "C" fn copy_lines(copies: *const Copies) {
    naked_asm!(
        "push {{r4-r7, lr}}",
        "ldmia r0, {{r0-r4}}",
        "2:",
        "add r5, r2, r3",
        "subs r5, #4",
        "mov r6, r0",
        "b 4f",
        "3:",
        "ldr r7, [r6], #4",
        "str r7, [r2], #4",
        "4:",
        "cmp r2, r5",
        "blo 3b",
        // What is left of the line is 1 to 4 bytes.
        "subs r7, r5, r2",
        "ldr r7, [r6, r7]",
        "str r7, [r5]",
        "adds r2, r5, #4",
        "add r0, r1",
        "subs r4, #1",
        "bne 2b",
        "pop {{r4-r7, pc}}",
    )
}

/// What [`add_scaled`] works on.
#[repr(C)]
struct Sums {
    first: *const i8,
    second: *const i8,
    tables: [*const i32; 2],
    out: *mut i8,
    count: usize,
    multiplier: i32,
    right: i32,
    zero: i32,
}

/// Adds what tables have for the bytes of two values, [`u8`] by [`u8`], and scales each sum: times `multiplier`,
/// shifted to the right by `right`, 1 at least. Sums are below 2^30.
pub(crate) fn add_tables(
    [first, second]: [&[i8]; 2],
    [table_1, table_2]: [&[i32; 256]; 2],
    out: &mut [i8],
    [multiplier, right, zero]: [i32; 3],
) {
    let count = out.len().min(first.len()).min(second.len());
    if count == 0 || !(1..=31).contains(&right) {
        return;
    }
    let (first, second) = (first.as_ptr(), second.as_ptr());
    let tables = [table_1.as_ptr(), table_2.as_ptr()];
    let sums =
        Sums { first, second, tables, out: out.as_mut_ptr(), count, multiplier, right, zero };
    // SAFETY: both values and the output have `count` bytes, and tables a word for each byte that there is.
    unsafe { add_scaled(&raw const sums) }
}

#[unsafe(naked)]
unsafe extern "C" fn add_scaled(sums: *const Sums) {
    naked_asm!(
        "push {{r4-r10, lr}}",
        "ldmia r0, {{r0-r8}}",
        "add r5, r4",
        "2:",
        "ldrb r9, [r0], #1",
        "ldrb r10, [r1], #1",
        "ldr r9, [r2, r9, lsl #2]",
        "ldr r10, [r3, r10, lsl #2]",
        "add r9, r10",
        rescale!("r9", "r6", "r7", "r8"),
        "strb r9, [r4], #1",
        "cmp r4, r5",
        "bne 2b",
        "pop {{r4-r10, pc}}",
    )
}

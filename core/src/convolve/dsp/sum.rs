//! Sums over pixels.

use core::arch::naked_asm;

/// Sums of four channels over pixels of so many channels, in 16 bits each; `None` where there are too many pixels for
/// that, or fewer.
pub(crate) fn sum(from: &[i8], channels: usize, pixels: usize) -> Option<[i32; 4]> {
    // So many times -128 are a number of 16 bits.
    if !(1..=256).contains(&pixels) || from.len() < (pixels - 1) * channels + 4 {
        return None;
    }
    // SAFETY: there are four bytes at each of `pixels` steps.
    let sums = unsafe { sum_words(from.as_ptr(), channels, pixels) };
    let half = |number: u32| i32::from((sums >> (16 * number)) as i16);
    Some([half(0), half(2), half(1), half(3)])
}

/// Words at each `step`, byte by byte: the sums of the first, the third, the second and the fourth bytes.
#[unsafe(naked)]
unsafe extern "C" fn sum_words(from: *const i8, step: usize, count: usize) -> u64 {
    naked_asm!(
        dsp_core!(),
        "push {{r4, lr}}",
        "movs r3, #0",
        "mov r12, #0",
        "2:",
        "ldr r4, [r0]",
        "add r0, r1",
        "sxtab16 r3, r3, r4",
        "sxtab16 r12, r12, r4, ror #8",
        "subs r2, #1",
        "bne 2b",
        "mov r0, r3",
        "mov r1, r12",
        "pop {{r4, pc}}",
    )
}

//! Parts of rows of an image, put behind one another.

use core::arch::naked_asm;

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
pub(in crate::convolve) fn gather(
    from: &[i8],
    step: usize,
    length: usize,
    lines: usize,
    to: &mut [i8],
) -> bool {
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
        dsp_core!(),
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

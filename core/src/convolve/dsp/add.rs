//! Sums of two values, byte by byte.

use core::arch::naked_asm;

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
        dsp_core!(),
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

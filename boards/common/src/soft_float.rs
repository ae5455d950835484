//! Sums and products of floats for Arm cores without a floating point unit, in place of the compiler's, which take
//! more than twice as many instructions. The same bits: whatever is not an everyday case is left to the compiler's own
//! (`__addsf3`, `__mulsf3`).
#![expect(unsafe_code, reason = "functions of assembly, which the compiler calls")]

use core::arch::naked_asm;

/// A mantissa in r4, with its highest bit set, becomes a float: r0 has its sign, and $exponent is one less than its
/// exponent. Ties are rounded to even: up, and then the last bit is cleared.
macro_rules! round {
    ($exponent:literal) => {
        concat!(
            "and r0, r0, #0x80000000\n",
            concat!("add r0, r0, ", $exponent, ", lsl #23\n"),
            "lsrs r1, r4, #8\n",
            "adc r0, r0, r1\n",
            "lsls r4, r4, #24\n",
            "cmp r4, #0x80000000\n",
            "it eq\n",
            "biceq r0, r0, #1\n",
        )
    };
}

/// The difference of two floats.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn __aeabi_fsub(a: u32, b: u32) -> u32 {
    naked_asm!("eor r1, r1, #0x80000000", "b __aeabi_fadd")
}

/// The sum of two floats: both finite, and neither subnormal; or one of them 0.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn __aeabi_fadd(a: u32, b: u32) -> u32 {
    naked_asm!(
        "lsls r2, r0, #1",
        "beq 7f",
        "lsls r3, r1, #1",
        "beq 8f",
        // The larger one comes first.
        "cmp r2, r3",
        "bhs 2f",
        "mov r12, r0",
        "mov r0, r1",
        "mov r1, r12",
        "2:",
        "ubfx r2, r0, #23, #8",
        "ubfx r3, r1, #23, #8",
        "cmp r2, #255",
        "it ne",
        "cmpne r3, #0",
        "beq 9f",
        "sub r3, r2, r3",
        // The other one is less than a quarter of the last bit.
        "cmp r3, #25",
        "bhi 6f",
        "push {{r0, r1, r4, lr}}",
        // Mantissas from bit 30 on, and what is shifted out of the smaller one in its last bit.
        "lsl r4, r0, #8",
        "orr r4, r4, #0x80000000",
        "lsr r4, r4, #1",
        "lsl r12, r1, #8",
        "orr r12, r12, #0x80000000",
        "lsr r12, r12, #1",
        "lsr lr, r12, r3",
        "rsb r3, r3, #32",
        "lsls r12, r12, r3",
        "it ne",
        "orrne lr, lr, #1",
        "teq r0, r1",
        "bmi 4f",
        "add r4, r4, lr",
        "3:",
        "clz r3, r4",
        "lsl r4, r4, r3",
        "subs r2, r2, r3",
        "cmp r2, #254",
        "bhs 5f",
        round!("r2"),
        "pop {{r2, r3, r4, pc}}",
        "4:",
        "subs r4, r4, lr",
        "bne 3b",
        "mov r0, #0",
        "pop {{r2, r3, r4, pc}}",
        // Too small or too large.
        "5:",
        "pop {{r0, r1, r4, lr}}",
        "b 9f",
        "6:",
        "bx lr",
        // The first one is 0: the sum is the second one, unless that is 0, infinite or NaN.
        "7:",
        "lsls r2, r1, #1",
        "beq 9f",
        "cmp r2, #0xff000000",
        "bhs 9f",
        "mov r0, r1",
        "bx lr",
        "8:",
        "cmp r2, #0xff000000",
        "it lo",
        "bxlo lr",
        "9:",
        "b __addsf3",
    )
}

/// The product of two floats that are neither 0 nor subnormal, as the product is not, and finite.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn __aeabi_fmul(a: u32, b: u32) -> u32 {
    naked_asm!(
        "ubfx r2, r0, #23, #8",
        "ubfx r3, r1, #23, #8",
        "subs r2, #1",
        "subs r3, #1",
        "cmp r2, #254",
        "it lo",
        "cmplo r3, #254",
        "bhs 9f",
        // One less than the product's exponent, or two.
        "add r2, r3",
        "subs r2, #126",
        "cmp r2, #253",
        "bhs 9f",
        "push {{r4, lr}}",
        "eor r12, r0, r1",
        "lsl r0, r0, #8",
        "orr r0, r0, #0x80000000",
        "lsl r1, r1, #8",
        "orr r1, r1, #0x80000000",
        "umull r3, r4, r0, r1",
        "mov r0, r12",
        "cmp r4, #0",
        "it mi",
        "addmi r2, r2, #1",
        "bmi 2f",
        "adds r3, r3, r3",
        "adc r4, r4, r4",
        "2:",
        "cmp r3, #0",
        "it ne",
        "orrne r4, r4, #1",
        round!("r2"),
        "pop {{r4, pc}}",
        "9:",
        "b __mulsf3",
    )
}

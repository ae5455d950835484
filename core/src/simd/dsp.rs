//! Panels of integers and attention on Arm cores with the DSP extension and a floating point unit: two
//! products of 16 bits an instruction (SMLAD), sums in registers, 16-bit floats that are widened in one.
//!
//! A quad of bytes a, b, c, d becomes two words, (a, c) and (b, d), wherever it meets another. Weights and keys may
//! lie anywhere: only activations are read by instructions that need an address of a multiple of 4.

use super::attend::attend_singly;
use super::lanes::{KvNumber, LANES, Lanes};
use super::{Kernels, PORTABLE};
use crate::quant::{Format, PANEL, QuantizedGroup, int4, int8};
use core::arch::naked_asm;

/// For cores with both.
pub static KERNELS: Kernels = Kernels {
    name: "dsp",
    int4: if Format::Int4.is_played() { int4 } else { PORTABLE.int4 },
    int8: if Format::Int8.is_played() { int8 } else { PORTABLE.int8 },
    // SAFETY: this is compiled for cores with a floating point unit alone; so it is for the other.
    attend_half: |head, places, scale, queries| unsafe {
        if cfg!(feature = "text") {
            attend_singly::<Eight, _>(head, places, scale, queries);
        }
    },
    // SAFETY: as above.
    attend_int8: |head, places, scale, queries| unsafe {
        if cfg!(feature = "text") {
            attend_singly::<Eight, _>(head, places, scale, queries);
        }
    },
    ..PORTABLE
};

/// A column of a panel, as its kernel takes it.
#[repr(C)]
struct Column {
    blocks: *const u8,
    x: *const QuantizedGroup,
    /// Bytes from a group of the column to its next one.
    step: usize,
    groups: usize,
    sums: *mut [f32; PANEL],
}

fn int4(blocks: &[u8], x: &[QuantizedGroup], columns: usize, sums: &mut [[f32; PANEL]]) {
    for_columns::<{ int4::BLOCK_BYTES }>(blocks, x, columns, sums, |column| {
        // SAFETY: a block is as long as one of nibbles.
        unsafe { add_nibbles(&raw const column) }
    });
}

fn int8(blocks: &[u8], x: &[QuantizedGroup], columns: usize, sums: &mut [[f32; PANEL]]) {
    for_columns::<{ int8::BLOCK_BYTES }>(blocks, x, columns, sums, |column| {
        // SAFETY: a block is as long as one of bytes.
        unsafe { add_bytes(&raw const column) }
    });
}

/// Calls `kernel` for each column of each whole panel, one group at least: `groups` blocks of `BYTES` are there,
/// as many groups of activations, one at each step, and sums of the panel's rows.
#[inline(always)]
fn for_columns<const BYTES: usize>(
    blocks: &[u8],
    x: &[QuantizedGroup],
    columns: usize,
    sums: &mut [[f32; PANEL]],
    kernel: impl Fn(Column),
) {
    let columns = columns.max(1);
    let groups = x.len() / columns;
    if groups == 0 {
        return;
    }
    let panels = blocks.as_chunks::<BYTES>().0.chunks_exact(groups);
    let step = columns * size_of::<QuantizedGroup>();
    for (panel, sums) in panels.zip(sums.chunks_exact_mut(columns)) {
        for (x, sums) in x.iter().zip(sums) {
            let blocks = panel.as_ptr().cast();
            kernel(Column { blocks, x: &raw const *x, step, groups, sums: &raw mut *sums });
        }
    }
}

/// Several instructions of the same form.
macro_rules! each {
    ($($instruction:literal),+) => {
        concat!($($instruction, "\n"),+)
    };
}

/// Adds four rows' sums of products, in r4 to r7, to their floats: each times the row's scale, of which two words
/// with two each are in r2 and r3, and the activations' scale, which is in s16.
macro_rules! add_scaled {
    ($a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            each!(
                "vmov s8, s9, r4, r5",
                "vmov s10, s11, r6, r7",
                "vmov s12, s13, r2, r3",
                "vcvt.f32.s32 s8, s8",
                "vcvt.f32.s32 s9, s9",
                "vcvt.f32.s32 s10, s10",
                "vcvt.f32.s32 s11, s11",
                "vcvtb.f32.f16 s14, s12",
                "vcvtt.f32.f16 s12, s12",
                "vcvtb.f32.f16 s15, s13",
                "vcvtt.f32.f16 s13, s13",
                "vmul.f32 s14, s14, s16",
                "vmul.f32 s12, s12, s16",
                "vmul.f32 s15, s15, s16",
                "vmul.f32 s13, s13, s16",
                "vmul.f32 s8, s8, s14",
                "vmul.f32 s9, s9, s12",
                "vmul.f32 s10, s10, s15",
                "vmul.f32 s11, s11, s13"
            ),
            concat!("vadd.f32 ", $a, ", ", $a, ", s8\n"),
            concat!("vadd.f32 ", $b, ", ", $b, ", s9\n"),
            concat!("vadd.f32 ", $c, ", ", $c, ", s10\n"),
            concat!("vadd.f32 ", $d, ", ", $d, ", s11\n"),
        )
    };
}

/// A row's quad of bytes with an activation's, which is in r2 and r3.
macro_rules! quad_of_bytes {
    ($sum:literal) => {
        concat!(
            "ldr r12, [r0], #4\n",
            "sxtb16 lr, r12\n",
            "sxtb16 r12, r12, ror #8\n",
            concat!("smlad ", $sum, ", lr, r2, ", $sum, "\n"),
            concat!("smlad ", $sum, ", r12, r3, ", $sum, "\n"),
        )
    };
}

/// A quad of eight rows.
macro_rules! vector_of_bytes {
    () => {
        concat!(
            each!("ldr r3, [r1], #4", "sxtb16 r2, r3", "sxtb16 r3, r3, ror #8"),
            quad_of_bytes!("r4"),
            quad_of_bytes!("r5"),
            quad_of_bytes!("r6"),
            quad_of_bytes!("r7"),
            quad_of_bytes!("r8"),
            quad_of_bytes!("r9"),
            quad_of_bytes!("r10"),
            quad_of_bytes!("r11"),
        )
    };
}

#[unsafe(naked)]
unsafe extern "C" fn add_bytes(column: *const Column) {
    naked_asm!(
        dsp_core!(),
        "push {{r4-r11, lr}}",
        "vpush {{s16, s17}}",
        "ldmia r0, {{r0-r4}}",
        "vldmia r4, {{s0-s7}}",
        // From the stack's top: where the activations end, their step, groups, sums.
        "push {{r1-r4}}",
        "2:",
        "add r2, r1, #32",
        "str r2, [sp]",
        "adds r0, #16",
        each!("mov r4, #0", "mov r5, #0", "mov r6, #0", "mov r7, #0"),
        each!("mov r8, #0", "mov r9, #0", "mov r10, #0", "mov r11, #0"),
        "3:",
        vector_of_bytes!(),
        vector_of_bytes!(),
        "ldr r2, [sp]",
        "cmp r1, r2",
        "bne 3b",
        "vldr s16, [r1]",
        "sub r12, r0, #272",
        "ldr r2, [r12]",
        "ldr r3, [r12, #4]",
        add_scaled!("s0", "s1", "s2", "s3"),
        "ldr r2, [r12, #8]",
        "ldr r3, [r12, #12]",
        each!("mov r4, r8", "mov r5, r9", "mov r6, r10", "mov r7, r11"),
        add_scaled!("s4", "s5", "s6", "s7"),
        "ldrd r2, r3, [sp, #4]",
        "subs r1, #32",
        "add r1, r2",
        "subs r3, #1",
        "str r3, [sp, #8]",
        "bne 2b",
        "ldr r4, [sp, #12]",
        "vstmia r4, {{s0-s7}}",
        "add sp, #16",
        "vpop {{s16, s17}}",
        "pop {{r4-r11, pc}}",
    )
}

/// A row's byte quad of nibbles with those of two activations, which are in r8 to r11.
macro_rules! quad_of_nibbles {
    ($sum:literal) => {
        concat!(
            "ldr r12, [r0], #4\n",
            "and lr, r3, r12\n",
            concat!("smlad ", $sum, ", lr, r8, ", $sum, "\n"),
            "and lr, r3, r12, lsr #8\n",
            concat!("smlad ", $sum, ", lr, r9, ", $sum, "\n"),
            "and lr, r3, r12, lsr #4\n",
            concat!("smlad ", $sum, ", lr, r10, ", $sum, "\n"),
            "and lr, r3, r12, lsr #12\n",
            concat!("smlad ", $sum, ", lr, r11, ", $sum, "\n"),
        )
    };
}

/// Four rows, whose first quads r0 is at, with the group at r1, which it leaves at its middle.
macro_rules! four_rows_of_nibbles {
    ($loop:literal) => {
        concat!(
            // What the activations' sum has too much.
            each!("ldr r4, [r1, #36]", "mov r5, r4", "mov r6, r4", "mov r7, r4"),
            each!("mov r3, #0x000f000f", "add r2, r1, #16"),
            concat!($loop, ":\n"),
            each!(
                "ldr r11, [r1, #16]",
                "ldr r9, [r1], #4",
                "sxtb16 r10, r11",
                "sxtb16 r11, r11, ror #8",
                "sxtb16 r8, r9",
                "sxtb16 r9, r9, ror #8"
            ),
            quad_of_nibbles!("r4"),
            quad_of_nibbles!("r5"),
            quad_of_nibbles!("r6"),
            quad_of_nibbles!("r7"),
            each!("add r0, #16", "cmp r1, r2"),
            concat!("bne ", $loop, "b\n"),
        )
    };
}

#[unsafe(naked)]
unsafe extern "C" fn add_nibbles(column: *const Column) {
    naked_asm!(
        dsp_core!(),
        "push {{r4-r11, lr}}",
        "vpush {{s16, s17}}",
        "ldmia r0, {{r0-r4}}",
        "vldmia r4, {{s0-s7}}",
        // From the stack's top: the step, groups, sums.
        "push {{r2-r4}}",
        "2:",
        "vldr s16, [r1, #32]",
        "adds r0, #16",
        four_rows_of_nibbles!("3"),
        "subs r0, #144",
        "ldr r2, [r0]",
        "ldr r3, [r0, #4]",
        add_scaled!("s0", "s1", "s2", "s3"),
        "adds r0, #32",
        "subs r1, #16",
        four_rows_of_nibbles!("4"),
        "sub r12, r0, #160",
        "ldr r2, [r12, #8]",
        "ldr r3, [r12, #12]",
        add_scaled!("s4", "s5", "s6", "s7"),
        "subs r0, #16",
        "ldrd r2, r3, [sp]",
        "subs r1, #16",
        "add r1, r2",
        "subs r3, #1",
        "str r3, [sp, #4]",
        "bne 2b",
        "ldr r4, [sp, #8]",
        "vstmia r4, {{s0-s7}}",
        "add sp, #12",
        "vpop {{s16, s17}}",
        "pop {{r4-r11, pc}}",
    )
}

/// Eight floats, and products with them in assembly.
#[derive(Clone, Copy)]
struct Eight([f32; LANES]);

impl Lanes for Eight {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; LANES])
    }

    #[inline(always)]
    unsafe fn load(x: &[f32; LANES]) -> Self {
        Self(*x)
    }

    #[inline(always)]
    unsafe fn store(self, x: &mut [f32; LANES]) {
        *x = self.0;
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: arrays need no instruction set; so it is for all of these.
        unsafe { Self(self.0.add_product(a.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn product(self, by: Self) -> Self {
        // SAFETY: as above.
        unsafe { Self(self.0.product(by.0)) }
    }

    #[inline(always)]
    unsafe fn halves(x: &[u16; LANES]) -> Self {
        // SAFETY: as above.
        unsafe { Self(Lanes::halves(x)) }
    }

    #[inline(always)]
    unsafe fn bytes(x: &[i8; LANES]) -> Self {
        // SAFETY: as above.
        unsafe { Self(Lanes::bytes(x)) }
    }

    #[inline(always)]
    unsafe fn add_products<T: KvNumber>(mut self, x: &[f32], numbers: &[T], step: usize) -> Self {
        let eights = (numbers.len() + step).saturating_sub(LANES) / step.max(1);
        let count = x.len().min(eights);
        let bytes = step * size_of::<T>();
        let words = numbers.as_ptr().addr().is_multiple_of(4) && bytes.is_multiple_of(4);
        let kernel = match size_of::<T>() {
            _ if count == 0 => return self,
            1 => add_products_of_bytes as unsafe extern "C" fn(*const Products),
            2 if words => add_products_of_halves,
            _ => {
                // SAFETY: as above.
                return unsafe { Self(self.0.add_products(x, numbers, step)) };
            }
        };
        let products = Products {
            numbers: numbers.as_ptr().cast(),
            step: bytes,
            x: x.as_ptr(),
            end: x.as_ptr().wrapping_add(count),
            sums: &raw mut self.0,
        };
        // SAFETY: at each step there are eight numbers, of the size of those of the kernel, and one in `x`.
        unsafe { kernel(&raw const products) }
        self
    }
}

/// What eights are multiplied with: each of the numbers from `x` to `end`, one at least.
#[repr(C)]
struct Products {
    numbers: *const u8,
    /// Bytes from eight to eight.
    step: usize,
    x: *const f32,
    end: *const f32,
    sums: *mut [f32; LANES],
}

/// Two of eight halves, in a register of which $b is made, too, with the number in s12.
macro_rules! two_halves {
    ($pair:literal, $a:literal, $b:literal) => {
        concat!(
            concat!("vcvtb.f32.f16 s13, ", $pair, "\n"),
            concat!("vcvtt.f32.f16 s14, ", $pair, "\n"),
            "vmul.f32 s13, s12, s13\n",
            "vmul.f32 s14, s12, s14\n",
            concat!("vadd.f32 ", $a, ", ", $a, ", s13\n"),
            concat!("vadd.f32 ", $b, ", ", $b, ", s14\n"),
        )
    };
}

/// Words lie on multiples of 4.
#[unsafe(naked)]
unsafe extern "C" fn add_products_of_halves(products: *const Products) {
    naked_asm!(
        dsp_core!(),
        "push {{r4, lr}}",
        "ldmia r0, {{r0-r4}}",
        "vldmia r4, {{s0-s7}}",
        "2:",
        "vldmia r0, {{s8-s11}}",
        "vldmia r2!, {{s12}}",
        "add r0, r1",
        two_halves!("s8", "s0", "s1"),
        two_halves!("s9", "s2", "s3"),
        two_halves!("s10", "s4", "s5"),
        two_halves!("s11", "s6", "s7"),
        "cmp r2, r3",
        "bne 2b",
        "vstmia r4, {{s0-s7}}",
        "pop {{r4, pc}}",
    )
}

/// Four bytes in a register, with the number in s12.
macro_rules! four_bytes {
    ($word:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            concat!("sxtb r6, ", $word, "\n"),
            concat!("sxtb r7, ", $word, ", ror #8\n"),
            "vmov s8, s9, r6, r7\n",
            concat!("sxtb r6, ", $word, ", ror #16\n"),
            concat!("asr r7, ", $word, ", #24\n"),
            each!(
                "vmov s10, s11, r6, r7",
                "vcvt.f32.s32 s8, s8",
                "vcvt.f32.s32 s9, s9",
                "vcvt.f32.s32 s10, s10",
                "vcvt.f32.s32 s11, s11",
                "vmul.f32 s8, s12, s8",
                "vmul.f32 s9, s12, s9",
                "vmul.f32 s10, s12, s10",
                "vmul.f32 s11, s12, s11"
            ),
            concat!("vadd.f32 ", $a, ", ", $a, ", s8\n"),
            concat!("vadd.f32 ", $b, ", ", $b, ", s9\n"),
            concat!("vadd.f32 ", $c, ", ", $c, ", s10\n"),
            concat!("vadd.f32 ", $d, ", ", $d, ", s11\n"),
        )
    };
}

#[unsafe(naked)]
unsafe extern "C" fn add_products_of_bytes(products: *const Products) {
    naked_asm!(
        dsp_core!(),
        "push {{r4-r7, lr}}",
        "ldmia r0, {{r0-r4}}",
        "vldmia r4, {{s0-s7}}",
        "2:",
        "ldr r5, [r0]",
        "ldr r12, [r0, #4]",
        "vldmia r2!, {{s12}}",
        "add r0, r1",
        four_bytes!("r5", "s0", "s1", "s2", "s3"),
        four_bytes!("r12", "s4", "s5", "s6", "s7"),
        "cmp r2, r3",
        "bne 2b",
        "vstmia r4, {{s0-s7}}",
        "pop {{r4-r7, pc}}",
    )
}

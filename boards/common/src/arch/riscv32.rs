//! 32-bit RISC-V in machine mode: calls of the debugger, the end of the stack, faults.

use core::arch::{asm, naked_asm};

/// What the stack is painted with at reset.
pub const PAINT: u32 = 0xcccc_cccc;

/// Calls the debugger.
///
/// # Safety
/// `parameter` is what `operation` takes.
pub unsafe fn call_debugger(operation: usize, parameter: usize) -> usize {
    let result;
    // SAFETY: the caller's; what the debugger reads and writes is memory, which is not said to stay as it is.
    // The breakpoint is a call because of the instructions around it, all of them in one page.
    unsafe {
        asm!(
            ".balign 16",
            ".option push",
            ".option norvc",
            "slli x0, x0, 0x1f",
            "ebreak",
            "srai x0, x0, 7",
            ".option pop",
            inout("a0") operation => result,
            in("a1") parameter,
            options(nostack),
        );
    }
    result
}

/// Waits for what never comes.
pub fn wait() {
    // SAFETY: waiting changes nothing.
    unsafe { asm!("wfi", options(nomem, nostack)) }
}

/// Makes a stack overflow a fault: the 4 KB below `end`, which nothing uses, can't be accessed.
pub fn guard_stack(end: usize) {
    /// In a range of a power of two: that of 4 KB ends with these ones.
    const RANGE_4_KB: usize = (4 << 10 >> 3) - 1;
    /// A range of a power of two, no access, for machine mode, too.
    const ATTRIBUTES: usize = 1 << 7 | 0b11 << 3;
    let range = end.wrapping_sub(4 << 10) >> 2 | RANGE_4_KB;
    // SAFETY: these registers forbid access to addresses which nothing uses, and change nothing else.
    unsafe {
        asm!("csrw pmpaddr0, {}", "csrw pmpcfg0, {}", in(reg) range, in(reg) ATTRIBUTES, options(nostack));
    }
}

/// Where the core begins: gives variables their values, paints the stack, and calls the board's `main`.
///
/// All that it is given by the linker script is aligned to words.
#[unsafe(naked)]
#[unsafe(export_name = "_start")]
#[unsafe(link_section = ".init")]
unsafe extern "C" fn start() -> ! {
    naked_asm!(
        "la sp, _stack_start",
        "la t0, {trap}",
        "csrw mtvec, t0",
        "la t0, __sdata",
        "la t1, __edata",
        "la t2, __sidata",
        "2: bgeu t0, t1, 3f",
        "lw t3, 0(t2)",
        "sw t3, 0(t0)",
        "addi t0, t0, 4",
        "addi t2, t2, 4",
        "j 2b",
        "3: la t0, __sbss",
        "la t1, __ebss",
        "4: bgeu t0, t1, 5f",
        "sw zero, 0(t0)",
        "addi t0, t0, 4",
        "j 4b",
        "5: la t0, _stack_end",
        "li t1, {paint}",
        "6: sw t1, 0(t0)",
        "addi t0, t0, 4",
        "bltu t0, sp, 6b",
        "j main",
        trap = sym trap,
        paint = const PAINT,
    )
}

/// A stack overflow comes here with a stack pointer that is of no use: the stack begins anew.
#[unsafe(naked)]
#[unsafe(link_section = ".trap")]
unsafe extern "C" fn trap() -> ! {
    naked_asm!("la sp, _stack_start", "j {report}", report = sym crate::debugger::report_fault)
}

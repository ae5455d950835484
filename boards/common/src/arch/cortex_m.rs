//! Cortex-M: calls of the debugger, the end of the stack, faults.

use core::arch::{asm, naked_asm};

/// What the stack is painted with at reset.
pub use cortex_m_rt::STACK_PAINT_VALUE as PAINT;

/// Calls the debugger.
///
/// # Safety
/// `parameter` is what `operation` takes.
pub unsafe fn call_debugger(operation: usize, parameter: usize) -> usize {
    let result;
    // SAFETY: the caller's; what the debugger reads and writes is memory, which is not said to stay as it is.
    unsafe {
        asm!("bkpt #0xab", inout("r0") operation => result, in("r1") parameter, options(nostack));
    }
    result
}

/// Waits for what never comes.
pub fn wait() {
    cortex_m::asm::wfi();
}

/// Makes a stack overflow a fault: the runtime has done so with the core's register for it.
#[cfg(feature = "stack-limit")]
pub fn guard_stack(_: usize) {}

/// Makes a stack overflow a fault: the 4 KB below `end`, where the board has no memory, can't be accessed.
#[cfg(not(feature = "stack-limit"))]
pub fn guard_stack(end: usize) {
    const CONTROL: usize = 0xe000_ed94;
    const ENABLE_WITH_DEFAULTS: u32 = 0b101;
    const REGION_BASE: usize = 0xe000_ed9c;
    const REGION_ATTRIBUTES: usize = 0xe000_eda0;
    /// The guard is region 0.
    const NUMBER: usize = 1 << 4;
    const BYTES: usize = 4 << 10;
    /// 4 KB, no access.
    const ATTRIBUTES: u32 = 1 << 28 | 11 << 1 | 1;
    let registers = [
        (REGION_BASE, (end.wrapping_sub(BYTES) | NUMBER) as u32),
        (REGION_ATTRIBUTES, ATTRIBUTES),
        (CONTROL, ENABLE_WITH_DEFAULTS),
    ];
    for (register, value) in registers {
        // SAFETY: these registers of the memory protection unit forbid access to addresses at
        // which the board has no memory, and change nothing else.
        unsafe { (register as *mut u32).write_volatile(value) }
    }
    cortex_m::asm::dsb();
    cortex_m::asm::isb();
}

/// A stack overflow comes here with a stack pointer that is of no use: the stack begins anew.
#[unsafe(naked)]
#[unsafe(export_name = "HardFault")]
unsafe extern "C" fn hard_fault() -> ! {
    naked_asm!("ldr r0, =_stack_start", "mov sp, r0", "b {report}", report = sym crate::debugger::report_fault)
}

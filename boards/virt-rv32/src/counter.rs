//! The core's counter of instructions.

use core::arch::asm;
use omex_board::Counter;

/// An instruction counts one.
pub const COUNTER: Counter = Counter { ticks, instructions: 1, of_ticks: 1 };

fn ticks() -> u32 {
    let count;
    // SAFETY: reading the counter changes nothing.
    unsafe { asm!("csrr {}, minstret", out(reg) count, options(nomem, nostack)) }
    count
}

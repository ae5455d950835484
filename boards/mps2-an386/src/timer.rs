//! The CMSDK's timer 0, which counts instructions where time is instructions: QEMU with `-icount shift=6`.

use omex_board::Counter;

const CONTROL: *mut u32 = 0x4000_0000 as *mut u32;
const VALUE: *mut u32 = 0x4000_0004 as *mut u32;
const RELOAD: *mut u32 = 0x4000_0008 as *mut u32;
const ENABLE: u32 = 1;

/// An instruction takes 2^6 ns, 1.6 periods of the timer's 25 MHz.
pub const COUNTER: Counter = Counter { ticks, instructions: 5, of_ticks: 8 };

/// Has the timer count down from its largest value, over and over.
pub fn start() {
    let values = [(CONTROL, 0), (RELOAD, u32::MAX), (VALUE, u32::MAX), (CONTROL, ENABLE)];
    for (register, value) in values {
        // SAFETY: these registers are the timer's, which touches no memory and raises no interrupt.
        unsafe { register.write_volatile(value) }
    }
}

fn ticks() -> u32 {
    // SAFETY: reading the timer's value changes nothing.
    !unsafe { VALUE.read_volatile() }
}

//! The core's SysTick timer, which counts instructions where time is instructions: QEMU with `-icount shift=7`.

use core::sync::atomic::{AtomicU32, Ordering};
use cortex_m::Peripherals;
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;
use omex_board::Counter;

/// The timer counts down from here, over and over.
const LARGEST: u32 = (1 << 24) - 1;

/// How often it began anew.
static WRAPS: AtomicU32 = AtomicU32::new(0);

/// An instruction takes 2^7 ns, 1.6 periods of the timer's 12.5 MHz.
pub const COUNTER: Counter = Counter { ticks, instructions: 5, of_ticks: 8 };

/// Has the timer count.
pub fn start() {
    // SAFETY: nobody else uses the timer. To find that out would take memory that the arena is short of.
    let mut timer = unsafe { Peripherals::steal() }.SYST;
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(LARGEST);
    timer.clear_current();
    timer.enable_interrupt();
    timer.enable_counter();
}

#[exception]
fn SysTick() {
    // There are no atomic additions on smaller cores, and nobody else writes.
    WRAPS.store(WRAPS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

fn ticks() -> u32 {
    loop {
        let (wraps, value) = (WRAPS.load(Ordering::Relaxed), SYST::get_current());
        // Otherwise the timer began anew between the two.
        if WRAPS.load(Ordering::Relaxed) == wraps {
            return (wraps << 24).wrapping_add(LARGEST - value);
        }
    }
}

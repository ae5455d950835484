//! OMEX on a Nordic nRF52840: a model in flash is played where it lies, and answers over the serial port that the
//! development kit has on USB (P0.06 sends, P0.08 receives, 115,200 baud).
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use defmt_rtt as _;
use embassy_nrf::uarte::{Config, InterruptHandler, Uarte};
use embassy_nrf::{bind_interrupts, peripherals};
use embassy_time::Instant;
use omex_board::{Arena, Console, Flash, serve};
use omex_hal::Serial;
use panic_probe as _;

/// What is left of 256 KB: the stack has 12, other variables 4.
const ARENA_BYTES: usize = 240 << 10;

bind_interrupts!(struct Interrupts {
    UARTE0 => InterruptHandler<peripherals::UARTE0>;
});

unsafe extern "C" {
    static _image_start: u8;
    static _image_end: u8;
}

#[entry]
fn main() -> ! {
    // `entry` makes this a `&'static mut`: there is only one.
    static mut ARENA: Arena<ARENA_BYTES> = Arena([0; ARENA_BYTES]);
    let chip = embassy_nrf::init(Default::default());
    let config = Config::default();
    let port = Uarte::new(chip.UARTE0, chip.P0_08, chip.P0_06, Interrupts, config);
    let (mut tx, mut rx) = port.split();
    defmt::info!("omex: the console is on UARTE0, P0.06 and P0.08");
    let console = Console {
        read: &mut || {
            let mut byte = [0];
            // Line noise is no byte.
            while rx.blocking_read(&mut byte).is_err() {}
            let [byte] = byte;
            byte
        },
        write: &mut |bytes| _ = tx.blocking_write(bytes),
        micros: &|| Instant::now().as_micros(),
    };
    serve(&image(), &mut ARENA.0, &Serial, console)
}

/// The flash behind the firmware.
fn image() -> Flash {
    let (start, end) = (&raw const _image_start, &raw const _image_end);
    // SAFETY: these addresses are flash, which is always readable, and which nothing writes to.
    Flash(unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) })
}

//! OMEX on a Raspberry Pi Pico 2: a model in flash is played where it lies, on both cores, and answers over the
//! serial port UART0 (GP0 sends, GP1 receives, 115,200 baud).
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use defmt_rtt as _;
use embassy_rp::multicore::{Stack, spawn_core1};
use embassy_rp::uart::{Config, Uart};
use embassy_time::Instant;
use omex_board::{Arena, Console, Flash, serve};
use omex_hal_adapters::TwoCores;
use panic_probe as _;

/// What is left of 512 KB: the first core's stack has 12, the second's 8, other variables 4.
const ARENA_BYTES: usize = 488 << 10;

static CORES: TwoCores = TwoCores::new();

unsafe extern "C" {
    static _image_start: u8;
    static _image_end: u8;
}

#[entry]
fn main() -> ! {
    // `entry` makes these `&'static mut`: there is only one of each.
    static mut ARENA: Arena<ARENA_BYTES> = Arena([0; ARENA_BYTES]);
    static mut HELPER: Stack<{ 8 << 10 }> = Stack::new();
    let chip = embassy_rp::init(Default::default());
    spawn_core1(chip.CORE1, HELPER, || CORES.help());
    let port = Uart::new_blocking(chip.UART0, chip.PIN_0, chip.PIN_1, Config::default());
    let (mut tx, mut rx) = port.split();
    defmt::info!("omex: the console is on UART0, GP0 and GP1");
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
    serve(&image(), &mut ARENA.0, &CORES, console)
}

/// The flash behind the firmware.
fn image() -> Flash {
    let (start, end) = (&raw const _image_start, &raw const _image_end);
    // SAFETY: these addresses are flash, which is always readable, and which nothing writes to.
    Flash(unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) })
}

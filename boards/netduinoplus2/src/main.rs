//! OMEX on the Netduino Plus 2, an STM32F405: a model in flash is played where it lies.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use omex_board::{Arena, Failure, Flash};

/// What the stack leaves of the 128 KB that are not tied to the core.
const ARENA_BYTES: usize = 118 << 10;

/// How images for this board are packed.
const PACK: &str = "--ram 128K --reserve 11K";

unsafe extern "C" {
    static _image_start: u8;
    static _image_end: u8;
}

#[entry]
fn main() -> ! {
    // `entry` makes this a `&'static mut`: there is only one.
    static mut ARENA: Arena<ARENA_BYTES> = Arena([0; ARENA_BYTES]);
    omex_board::run(image, &mut ARENA.0, PACK)
}

/// The flash behind the firmware.
fn image() -> Result<Flash, Failure> {
    let (start, end) = (&raw const _image_start, &raw const _image_end);
    // SAFETY: these addresses are flash, which is always readable, and which nothing writes to.
    Ok(Flash(unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }))
}

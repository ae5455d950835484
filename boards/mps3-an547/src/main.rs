//! OMEX on Arm's MPS3 with the Cortex-M55 of application note AN547: a model is played where it lies.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use omex_board::{Arena, Failure, Flash};

/// What the stack leaves of the 512 KB that are tightly coupled.
const ARENA_BYTES: usize = 502 << 10;

/// How images for this board are packed.
const PACK: &str = "--ram 512K --reserve 11K";

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

/// The board's SRAM.
fn image() -> Result<Flash, Failure> {
    let (start, end) = (&raw const _image_start, &raw const _image_end);
    // SAFETY: these addresses are memory, which is always readable, and which nothing writes to.
    Ok(Flash(unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }))
}

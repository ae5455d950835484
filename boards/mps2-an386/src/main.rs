//! OMEX on Arm's MPS2 with the Cortex-M4 of application note AN386: a model is played where it lies, and in
//! QEMU every instruction of it is counted.
#![no_std]
#![no_main]

mod timer;

use cortex_m_rt::entry;
use omex_board::{Arena, Counted, Failure, Flash};

/// What the stack leaves of the 4 MB of the second memory.
const ARENA_BYTES: usize = 4086 << 10;

/// How images for this board are packed.
const PACK: &str = "--ram 4M --reserve 11K";

unsafe extern "C" {
    static _image_start: u8;
    static _image_end: u8;
}

#[entry]
fn main() -> ! {
    // `entry` makes this a `&'static mut`: there is only one.
    static mut ARENA: Arena<ARENA_BYTES> = Arena([0; ARENA_BYTES]);
    timer::start();
    omex_board::run(image, &mut ARENA.0, PACK)
}

/// The memory behind the firmware.
fn image() -> Result<Counted<Flash>, Failure> {
    let (start, end) = (&raw const _image_start, &raw const _image_end);
    // SAFETY: these addresses are memory, which is always readable, and which nothing writes to.
    let flash = Flash(unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) });
    Ok(Counted(flash, timer::COUNTER))
}

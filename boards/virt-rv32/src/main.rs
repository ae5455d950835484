//! OMEX on a 32-bit RISC-V core, QEMU's `virt`: a model is played where it lies, and every instruction of it is
//! counted.
#![no_std]
#![no_main]

mod counter;

use omex_board::{Arena, Counted, Failure, Flash};

/// What the stack leaves of 384 KB.
const ARENA_BYTES: usize = 374 << 10;

/// How images for this board are packed.
const PACK: &str = "--ram 384K --reserve 11K";

unsafe extern "C" {
    static _image_start: u8;
    static _image_end: u8;
}

/// `omex-board` begins here.
#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    static mut ARENA: Arena<ARENA_BYTES> = Arena([0; ARENA_BYTES]);
    // SAFETY: `main` is called once, and nobody else knows the arena.
    let arena = unsafe { &mut *(&raw mut ARENA) };
    omex_board::run(image, &mut arena.0, PACK)
}

/// The memory behind the firmware.
fn image() -> Result<Counted<Flash>, Failure> {
    let (start, end) = (&raw const _image_start, &raw const _image_end);
    // SAFETY: these addresses are memory, which is always readable, and which nothing writes to.
    let flash = Flash(unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) });
    Ok(Counted(flash, counter::COUNTER))
}

//! OMEX on a 32-bit RISC-V core, QEMU's `virt`: a model is played where it lies, and every instruction of it is
//! counted.
#![no_std]
#![no_main]

mod counter;
mod image;

use omex_board::{Arena, Counted, Failure, Flash};

/// What the stack leaves of 384 KB.
const ARENA_BYTES: usize = 374 << 10;

/// How images for this board are packed.
const PACK: &str = "--ram 384K --reserve 11K";

/// `omex-board` begins here.
#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    static mut ARENA: Arena<ARENA_BYTES> = Arena([0; ARENA_BYTES]);
    // SAFETY: `main` is called once, and nobody else knows the arena.
    let arena = unsafe { &mut *(&raw mut ARENA) };
    omex_board::run(counted, &mut arena.0, PACK)
}

fn counted() -> Result<Counted<Flash>, Failure> {
    Ok(Counted(image::image(), counter::COUNTER))
}

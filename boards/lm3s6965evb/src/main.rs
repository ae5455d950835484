//! OMEX on the LM3S6965 evaluation board: a language model on an SD card talks through 64 KB.
//!
//! The flash image begins with the card. `generate` is the main path: `command` says what is
//! wanted, `card` and `spi` read, `text` knows the tokenizer, `report` prints, `memory` knows what
//! was used, and `host` is the computer at the other end of the debugger.
#![no_std]
#![no_main]

mod card;
mod command;
mod failure;
mod generate;
mod host;
mod memory;
mod report;
mod spi;
mod text;

use core::fmt::Write;
use core::panic::PanicInfo;
use cortex_m_rt::{ExceptionFrame, entry, exception};
use host::Output;
use memory::{ARENA_BYTES, Arena};

#[entry]
fn main() -> ! {
    // `entry` makes this a `&'static mut`: there is only one.
    static mut ARENA: Arena = Arena([0; ARENA_BYTES]);
    let mut output = Output::open();
    let result = generate::run(&mut ARENA.0, &mut output);
    if let Err(failure) = &result {
        let _ = writeln!(output, "error {failure}");
    }
    host::exit(result.is_ok())
}

#[exception]
unsafe fn HardFault(_: &ExceptionFrame) -> ! {
    Output::open().write(b"error hard fault\n");
    host::exit(false)
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    #[cfg(feature = "assert-no-panic")]
    {
        unsafe extern "C" {
            /// Does not exist: if the linker asks for it, some code can panic.
            fn omex_panic_is_reachable() -> !;
        }
        // SAFETY: never called, since it never links.
        unsafe { omex_panic_is_reachable() }
    }
    #[cfg(not(feature = "assert-no-panic"))]
    {
        Output::open().write(b"error panic\n");
        host::exit(false)
    }
}

//! OMEX on the LM3S6965 evaluation board: a model on an SD card is played in 64 KB.
//!
//! The flash image begins with the card. `play` opens it; `generate` makes text of a language model,
//! `infer` outputs of inputs. `command` says what text is wanted, `card` and `spi` read, `text` knows
//! the tokenizer, `report` prints, `memory` knows what was used, and `host` is the computer at the
//! other end of the debugger.
#![no_std]
#![no_main]

mod card;
#[cfg(feature = "text")]
mod command;
mod failure;
#[cfg(feature = "text")]
mod generate;
mod host;
#[cfg(feature = "int8")]
mod infer;
mod memory;
mod play;
mod report;
mod spi;
#[cfg(feature = "text")]
mod text;

use core::arch::naked_asm;
use core::fmt::Write;
use core::panic::PanicInfo;
use cortex_m_rt::entry;
use host::Output;
use memory::{ARENA_BYTES, Arena};

#[entry]
fn main() -> ! {
    // `entry` makes this a `&'static mut`: there is only one.
    static mut ARENA: Arena = Arena([0; ARENA_BYTES]);
    memory::guard_stack();
    let mut output = Output::open();
    let result = play::run(&mut ARENA.0, &mut output);
    if let Err(failure) = &result {
        let _ = writeln!(output, "error {failure}");
    }
    host::exit(result.is_ok())
}

/// A stack overflow comes here with a stack pointer that is of no use: the stack begins anew.
#[unsafe(naked)]
#[unsafe(export_name = "HardFault")]
unsafe extern "C" fn hard_fault() -> ! {
    naked_asm!("ldr r0, =_stack_start", "mov sp, r0", "b {report}", report = sym report_fault)
}

extern "C" fn report_fault() -> ! {
    Output::open().write(b"error hard fault: the stack is too small, or a device is missing\n");
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

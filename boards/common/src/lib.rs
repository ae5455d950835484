//! What firmware of every board has in common. A board says where its image lies ([`Card`], [`Flash`], or a
//! [`Medium`] of its own) and gives an arena to [`run`].
//!
//! `play` is the main path: it opens the image. `generate` makes text of a language model, `infer` outputs of
//! inputs. `command` says what text is wanted, `text` knows the tokenizer, `report` prints, `memory` knows what
//! was used, `counter` counts instructions, `host` is the computer at the other end of the debugger, and `arch` what
//! differs from core to core.
#![no_std]

#[cfg_attr(target_arch = "arm", path = "arch/cortex_m.rs")]
#[cfg_attr(target_arch = "riscv32", path = "arch/riscv32.rs")]
mod arch;
#[cfg(feature = "text")]
mod command;
mod counter;
mod failure;
#[cfg(feature = "text")]
mod generate;
mod host;
mod image;
#[cfg(feature = "int8")]
mod infer;
mod medium;
mod memory;
mod play;
mod report;
#[cfg(feature = "text")]
mod text;

pub use counter::Counter;
pub use failure::Failure;
pub use medium::{Card, Counted, Flash, Medium};
pub use memory::Arena;

use core::fmt::Write;
use core::panic::PanicInfo;
use host::Output;
use omex_core::error::LoadError;

/// Plays the image that `open` finds within `arena`, as the command line asks, prints what comes of it, and
/// ends the program. `pack` are the options of `omex pack` for this board.
pub fn run<M: Medium>(
    open: impl FnOnce() -> Result<M, Failure>,
    arena: &mut [u8],
    pack: &str,
) -> ! {
    memory::guard_stack();
    let mut output = Output::open();
    let result = open().and_then(|medium| play::run(&medium, arena, &mut output));
    if let Err(failure) = &result {
        let _ = write!(output, "error {failure}");
        if let Failure::Load(LoadError::Memory { .. }, _) = failure {
            let _ = write!(output, "; pack the image with {pack}");
        }
        output.write(b"\n");
    }
    host::exit(result.is_ok())
}

/// What a fault ends in.
extern "C" fn report_fault() -> ! {
    Output::open().write(b"error hard fault: the stack is too small, or no such device\n");
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

//! Firmware that a debugger is attached to: what it does, and how it ends.

use crate::failure::Failure;
use crate::host::{self, Output};
use crate::medium::Medium;
use crate::{memory, play};
use core::fmt::{Debug, Write};
use core::panic::PanicInfo;
use omex_core::error::LoadError;

/// Plays the image that `open` finds within `arena`, as the command line asks, prints what comes of it, and
/// ends the program. `pack` are the options of `omex pack` for this board.
pub fn run<M: Medium>(
    open: impl FnOnce() -> Result<M, Failure>,
    arena: &mut [u8],
    pack: &str,
) -> ! {
    attended(pack, |output| open().and_then(|medium| play::run(&medium, arena, output)))
}

/// Has `application` print what it does, prints why it fails, and ends the program. `pack` are the options of
/// `omex pack` for this board.
pub fn attended(pack: &str, application: impl FnOnce(&mut Output) -> Result<(), Failure>) -> ! {
    memory::guard_stack();
    let mut output = Output::open();
    let result = application(&mut output);
    if let Err(failure) = &result {
        let _ = write!(output, "error {failure}");
        if let Failure::Load(LoadError::Memory { .. }, _) = failure {
            let _ = write!(output, "; pack the image with {pack}");
        }
        output.write(b"\n");
    }
    host::exit(result.is_ok())
}

/// Ends a test, and says what went wrong, if anything did.
pub fn end(result: Result<(), impl Debug>) -> ! {
    if let Err(error) = &result {
        let _ = writeln!(Output::open(), "error {error:?}");
    }
    host::exit(result.is_ok())
}

/// What a fault ends in.
pub(crate) extern "C" fn report_fault() -> ! {
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

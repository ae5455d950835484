//! The computer at the other end of the debugger, reached through semihosting.

use core::fmt;
use cortex_m_semihosting::hio::{self, HostStream};
use cortex_m_semihosting::{debug, syscall1};

const GET_COMMAND_LINE: usize = 0x15;

/// Standard output; what can't be written is lost.
pub struct Output(Option<HostStream>);

impl Output {
    /// Opens it.
    pub fn open() -> Self {
        Self(hio::hstdout().ok())
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        if let Some(stream) = &mut self.0 {
            let _ = stream.write_all(bytes);
        }
    }
}

impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}

/// The command line that the debugger was given; `None` if it does not fit.
pub fn command_line(buffer: &mut [u8]) -> Option<&[u8]> {
    let mut block = [buffer.as_mut_ptr().expose_provenance(), buffer.len()];
    // SAFETY: the call writes at most `buffer.len()` bytes to the buffer, and the length to the
    // block; both are borrowed mutably.
    let status = unsafe { syscall1(GET_COMMAND_LINE, (&raw mut block).expose_provenance()) };
    let [_, length] = block;
    buffer.get(..length).filter(|_| status == 0)
}

/// Ends the program.
pub fn exit(success: bool) -> ! {
    debug::exit(if success { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    // Only a debugger that ignores the call gets here.
    loop {
        cortex_m::asm::wfi();
    }
}

//! The computer at the other end of the debugger, reached through semihosting.

use core::ffi::CStr;
use core::fmt;
use cortex_m_semihosting::hio::{self, HostStream};
#[cfg(feature = "int8")]
use cortex_m_semihosting::nr;
use cortex_m_semihosting::{debug, syscall1};

const GET_COMMAND_LINE: usize = 0x15;
#[cfg(feature = "int8")]
const OPEN_BINARY: usize = 1;

/// The longest command line, in bytes, with the zero that ends it.
pub const COMMAND_BYTES: usize = 512;

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
pub fn command_line(buffer: &mut [u8]) -> Option<&CStr> {
    let mut block = [buffer.as_mut_ptr().expose_provenance(), buffer.len()];
    // SAFETY: the call writes at most `buffer.len()` bytes to the buffer, and the length to the
    // block; both are borrowed mutably.
    let status = unsafe { syscall1(GET_COMMAND_LINE, (&raw mut block).expose_provenance()) };
    CStr::from_bytes_until_nul(buffer).ok().filter(|_| status == 0)
}

/// A file of the other computer.
#[cfg(feature = "int8")]
pub struct File(usize);

#[cfg(feature = "int8")]
impl File {
    /// Opens a file for reading.
    pub fn open(path: &CStr) -> Option<Self> {
        let (name, length) = (path.as_ptr().expose_provenance(), path.count_bytes());
        let block = [name, OPEN_BINARY, length];
        // SAFETY: the call reads the path, which ends with a zero behind `length` bytes.
        let handle = unsafe { syscall1(nr::OPEN, (&raw const block).expose_provenance()) };
        (handle != usize::MAX).then_some(Self(handle))
    }

    /// Goes back to the beginning.
    pub fn rewind(&mut self) {
        let block = [self.0, 0];
        // SAFETY: the call only reads the block.
        unsafe { syscall1(nr::SEEK, (&raw const block).expose_provenance()) };
    }

    /// Fills `out` as far as the file goes, and returns how far that is.
    pub fn read(&mut self, out: &mut [u8]) -> Option<usize> {
        let length = out.len();
        let mut block = [self.0, out.as_mut_ptr().expose_provenance(), length];
        // SAFETY: the call writes at most `length` bytes to `out`, which is borrowed mutably.
        let missing = unsafe { syscall1(nr::READ, (&raw mut block).expose_provenance()) };
        length.checked_sub(missing)
    }
}

/// Ends the program.
pub fn exit(success: bool) -> ! {
    debug::exit(if success { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    // Only a debugger that ignores the call gets here.
    loop {
        cortex_m::asm::wfi();
    }
}

//! The computer at the other end of the debugger, reached through semihosting.

use crate::arch::{call_debugger, wait};
use core::ffi::CStr;
use core::fmt;

const OPEN: usize = 0x01;
const WRITE: usize = 0x05;
#[cfg(feature = "int8")]
const READ: usize = 0x06;
#[cfg(feature = "int8")]
const SEEK: usize = 0x0a;
const GET_COMMAND_LINE: usize = 0x15;
const EXIT: usize = 0x18;

/// How files are opened.
#[cfg(feature = "int8")]
const TO_READ_BYTES: usize = 1;
const TO_WRITE: usize = 4;
/// What opens standard output.
const CONSOLE: &CStr = c":tt";

/// Why a program ends, in `EXIT`'s terms.
const DONE: usize = 0x2_0026;
const FAILED: usize = 0x2_0023;

/// The longest command line, in bytes, with the zero that ends it.
pub const COMMAND_BYTES: usize = 512;

/// Standard output; what can't be written is lost.
pub struct Output(Option<usize>);

impl Output {
    /// Opens it.
    pub fn open() -> Self {
        Self(open(CONSOLE, TO_WRITE))
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        let Some(handle) = self.0 else { return };
        let block = [handle, bytes.as_ptr().expose_provenance(), bytes.len()];
        // SAFETY: the call reads `bytes`.
        unsafe { call_debugger(WRITE, (&raw const block).expose_provenance()) };
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
    let status = unsafe { call_debugger(GET_COMMAND_LINE, (&raw mut block).expose_provenance()) };
    CStr::from_bytes_until_nul(buffer).ok().filter(|_| status == 0)
}

/// What the debugger's command line says behind the program's name; `None` if it says nothing, or too much.
#[cfg(feature = "int8")]
pub fn argument(buffer: &mut [u8; COMMAND_BYTES]) -> Option<&CStr> {
    let line = command_line(buffer)?.to_bytes_with_nul();
    let space = line.iter().position(|byte| *byte == b' ')?;
    CStr::from_bytes_with_nul(line.get(space + 1..)?).ok()
}

/// The handle of a file of the other computer.
fn open(path: &CStr, mode: usize) -> Option<usize> {
    let block = [path.as_ptr().expose_provenance(), mode, path.count_bytes()];
    // SAFETY: the call reads the path, which ends with a zero behind its length.
    let handle = unsafe { call_debugger(OPEN, (&raw const block).expose_provenance()) };
    (handle != usize::MAX).then_some(handle)
}

/// A file of the other computer.
#[cfg(feature = "int8")]
pub struct File(usize);

#[cfg(feature = "int8")]
impl File {
    /// Opens a file for reading.
    pub fn open(path: &CStr) -> Option<Self> {
        open(path, TO_READ_BYTES).map(Self)
    }

    /// Goes back to the beginning.
    pub fn rewind(&mut self) {
        let block = [self.0, 0];
        // SAFETY: the call only reads the block.
        unsafe { call_debugger(SEEK, (&raw const block).expose_provenance()) };
    }

    /// Fills `out` as far as the file goes, and returns how far that is.
    pub fn read(&mut self, out: &mut [u8]) -> Option<usize> {
        let length = out.len();
        let mut block = [self.0, out.as_mut_ptr().expose_provenance(), length];
        // SAFETY: the call writes at most `length` bytes to `out`, which is borrowed mutably.
        let missing = unsafe { call_debugger(READ, (&raw mut block).expose_provenance()) };
        length.checked_sub(missing)
    }
}

/// Ends the program.
pub fn exit(success: bool) -> ! {
    // SAFETY: this call takes a number.
    unsafe { call_debugger(EXIT, if success { DONE } else { FAILED }) };
    // Only a debugger that ignores the call gets here.
    loop {
        wait();
    }
}

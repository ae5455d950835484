//! A model that answers whoever types at the other end of a serial port.
//!
//! To a language model, a line is a prompt, or token ids with commas between them, and the answer is text. To a graph over arrays, a line says what its
//! inputs are: `zero`, `seeded` for bytes that look random, or `bytes`, and then the bytes of all inputs as they
//! are, in the program's order; the answer are its outputs.

#[cfg(feature = "int8")]
mod arrays;
#[cfg(feature = "text")]
mod talk;

use crate::failure::Failure;
use crate::image::{Image, header, split};
use crate::medium::Medium;
use core::convert::Infallible;
use core::fmt::{self, Write};
use omex_hal::Parallel;

/// The longest line, in bytes.
const LINE_BYTES: usize = 256;
const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;

/// A serial port, and a clock.
pub struct Console<'c> {
    /// Waits for a byte.
    pub read: &'c mut dyn FnMut() -> u8,
    /// Writes bytes.
    pub write: &'c mut dyn FnMut(&[u8]),
    /// Microseconds since the start.
    pub micros: &'c dyn Fn() -> u64,
}

impl Write for Console<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        (self.write)(text.as_bytes());
        Ok(())
    }
}

impl Console<'_> {
    /// The next line, without what ends it; what is typed is written back, and what does not fit is lost.
    fn line<'l>(&mut self, buffer: &'l mut [u8; LINE_BYTES]) -> &'l [u8] {
        (self.write)(b"> ");
        let mut length = 0;
        loop {
            match (self.read)() {
                b'\r' | b'\n' if length > 0 => break,
                BACKSPACE | DELETE if length > 0 => {
                    length -= 1;
                    (self.write)(b"\x08 \x08");
                }
                byte @ b' '.. if byte != DELETE => {
                    if let Some(place) = buffer.get_mut(length) {
                        *place = byte;
                        length += 1;
                        (self.write)(&[byte]);
                    }
                }
                _ => {}
            }
        }
        (self.write)(b"\r\n");
        buffer.get(..length).unwrap_or_default()
    }

    /// Says what an engine has for itself and for pages.
    fn greet(&mut self, [engine, pages]: [usize; 2]) {
        let _ = write!(self, "{engine} bytes of the engine, {pages} left for pages\r\n");
    }

    fn fail(&mut self, failure: &Failure) {
        let _ = write!(self, "error: {failure}\r\n");
    }
}

/// Answers for ever, with the image on `medium` within `arena`, on these cores.
///
/// After a failure that concerns more than one answer, the image is opened again when a line comes.
pub fn serve(
    medium: &impl Medium,
    arena: &mut [u8],
    cores: &dyn Parallel,
    mut console: Console<'_>,
) -> ! {
    loop {
        let Err(failure) = answer(medium, arena, cores, &mut console);
        console.fail(&failure);
        console.line(&mut [0; LINE_BYTES]);
    }
}

fn answer(
    medium: &impl Medium,
    arena: &mut [u8],
    cores: &dyn Parallel,
    console: &mut Console<'_>,
) -> Result<Infallible, Failure> {
    let image = Image { header: header(medium, arena)?, medium };
    let (tables, rest) = split(arena, image.header.resident_bytes()).map_err(|e| image.load(e))?;
    let bytes = tables.len();
    let model = image.open(tables, rest)?;
    let _ = write!(console, "\r\nOMEX: {bytes} bytes of tables, cores: {}\r\n", cores.cores());
    match model.program.header().vocab_size > 0 {
        #[cfg(feature = "text")]
        true => talk::run(&image, &model, rest, cores, console),
        #[cfg(feature = "int8")]
        false => arrays::run(&image, &model, rest, cores, console),
        #[cfg(not(all(feature = "text", feature = "int8")))]
        _ => Err(Failure::Task(crate::failure::OTHER_KIND)),
    }
}

//! Outputs from a model that takes arrays.
//!
//! The command line is `omex FILE`: the file, at the other end of the debugger, holds the bytes of all
//! inputs, in the program's order, once for each time that the model is to be played.

use crate::failure::Failure;
use crate::host::{self, File};
use crate::image::Image;
use crate::medium::Medium;
use crate::report::Report;
use core::ffi::CStr;
use omex_core::engine::{Engine, Model};
use omex_core::program::Dtype;

const EXPECTED: Failure = Failure::Task("expected the name of a file with inputs");
const UNREADABLE: Failure = Failure::Task("the file with inputs can't be read");
const CUT: Failure = Failure::Task("the file ends before all inputs are whole");

/// Plays the model for all inputs in the file, and prints its outputs.
///
/// # Errors
/// A file that can't be read or ends too early, or a device or an image that is damaged, or does not
/// fit the board.
#[inline(never)]
pub fn run<M: Medium>(
    image: &Image<'_, M>,
    model: &Model<'_>,
    memory: &mut [u8],
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let mut file = open()?;
    image.with_engine(model, memory, report, |engine, report| {
        while read(engine, &mut file)? {
            engine.infer().map_err(|error| Failure::run(error, image.header.page_size))?;
            print(engine, image.medium.bytes_read(), report);
        }
        report.summary(["outputs_checksum", "sd_bytes_per_pass"], image.medium.bytes_read());
        Ok(())
    })
}

/// Opens the file that the command line names.
#[inline(never)]
fn open() -> Result<File, Failure> {
    let mut line = [0; host::COMMAND_BYTES];
    let line = host::command_line(&mut line).ok_or(EXPECTED)?.to_bytes_with_nul();
    let space = line.iter().position(|byte| *byte == b' ').ok_or(EXPECTED)?;
    let path = line.get(space + 1..).and_then(|path| CStr::from_bytes_with_nul(path).ok());
    File::open(path.ok_or(EXPECTED)?).ok_or(UNREADABLE)
}

/// Sets all inputs; false where the file has no more.
fn read(engine: &mut Engine<'_>, file: &mut File) -> Result<bool, Failure> {
    let mut begun = false;
    for port in engine.program().inputs() {
        let input = engine.input_mut(port.name);
        match file.read(input).ok_or(UNREADABLE)? {
            0 if !begun => return Ok(false),
            length if length == input.len() => begun = true,
            _ => return Err(CUT),
        }
    }
    Ok(begun)
}

/// Prints all outputs.
fn print(engine: &Engine<'_>, bytes_read: Option<u64>, report: &mut Report<'_>) {
    report.count(bytes_read);
    let program = engine.program();
    for port in program.outputs() {
        if program.slot(port.value.slot).is_some_and(|slot| slot.dtype == Dtype::I8) {
            let values = engine.output_i8(&port, 0).iter().map(|value| value.to_le_bytes());
            report.output(port.name, "i8", values);
        } else {
            let values = engine.output(&port, 0).iter().map(|value| value.to_le_bytes());
            report.output(port.name, "f32", values);
        }
    }
}

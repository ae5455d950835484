//! Outputs from a model that takes arrays.
//!
//! The command line is `omex INPUTS`: `zero`, `seeded` for bytes that look random, or a file at the other end
//! of the debugger, which holds the bytes of all inputs, in the program's order, once for each time that the
//! model is to be played.

use crate::failure::Failure;
use crate::host::{self, File};
use crate::image::Image;
use crate::inputs;
use crate::medium::Medium;
use crate::report::Report;
use omex_core::engine::{Engine, Model};
use omex_core::program::Dtype;
use omex_hal::Serial;

const EXPECTED: Failure = Failure::Task("expected the name of a file with inputs, zero or seeded");
const UNREADABLE: Failure = Failure::Task("the file with inputs can't be read");
const CUT: Failure = Failure::Task("the file ends before all inputs are whole");

/// Plays the model for all inputs, and prints its outputs.
///
/// Where instructions are counted, the first inputs are played once more before: that inference also checks
/// the weights against their checksums, which those after it need not.
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
    let mut source = Source::open()?;
    let counter = image.medium.counter();
    image.with_engine(model, memory, &Serial, |engine, [used, ring]| {
        report.memory(used, ring);
        let mut again = counter.is_some();
        while source.read(engine)? {
            let start = counter.map(|counter| (counter.ticks)());
            engine.infer().map_err(|error| Failure::run(error, image.header.page_size))?;
            if let Some((counter, start)) = counter.zip(start) {
                report.inference(counter.since(start));
            }
            match core::mem::take(&mut again) {
                true => source.rewind(),
                false => print(engine, image.medium.bytes_read(), report),
            }
        }
        report.summary(["outputs_checksum", "sd_bytes_per_pass"], image.medium.bytes_read());
        Ok(())
    })
}

/// Where inputs come from.
enum Source {
    File(File),
    /// Bytes of xorshift32 with this state, which begins anew for each time; 0 gives zeros. And whether
    /// there is one more time.
    Made(u32, bool),
}

impl Source {
    /// What the command line names.
    #[inline(never)]
    fn open() -> Result<Self, Failure> {
        let mut line = [0; host::COMMAND_BYTES];
        let argument = host::argument(&mut line).ok_or(EXPECTED)?;
        match argument.to_bytes() {
            b"zero" => Ok(Self::Made(0, true)),
            b"seeded" => Ok(Self::Made(inputs::SEED, true)),
            _ => File::open(argument).ok_or(UNREADABLE).map(Self::File),
        }
    }

    /// Begins anew.
    fn rewind(&mut self) {
        match self {
            Self::File(file) => file.rewind(),
            Self::Made(_, more) => *more = true,
        }
    }

    /// Sets all inputs; false where there are no more.
    fn read(&mut self, engine: &mut Engine<'_>) -> Result<bool, Failure> {
        match self {
            Self::File(file) => read(engine, file),
            Self::Made(seed, more) => {
                inputs::make(engine, *seed);
                Ok(core::mem::take(more))
            }
        }
    }
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

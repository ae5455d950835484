//! Inputs, and what a graph over arrays makes of them.

use super::{Console, LINE_BYTES};
use crate::failure::Failure;
use crate::image::Image;
use crate::inputs;
use crate::medium::Medium;
use core::convert::Infallible;
use core::fmt::Write;
use omex_core::engine::{Engine, Model};
use omex_core::program::Dtype;
use omex_hal::Parallel;

const EXPECTED: Failure =
    Failure::Task("expected zero, seeded, or bytes and then the inputs' bytes");

/// Answers inputs for ever.
///
/// # Errors
/// A device or an image that is damaged, or does not fit the board.
pub fn run<M: Medium>(
    image: &Image<'_, M>,
    model: &Model<'_>,
    memory: &mut [u8],
    cores: &dyn Parallel,
    console: &mut Console<'_>,
) -> Result<Infallible, Failure> {
    image.with_engine(model, memory, cores, |engine, bytes| {
        console.greet(bytes);
        loop {
            if let Err(failure) = answer(engine, image.header.page_size, console) {
                console.fail(&failure);
            }
        }
    })
}

/// Reads a line and the inputs, and writes the outputs, and how long it took.
fn answer(
    engine: &mut Engine<'_>,
    page_size: u32,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match console.line(&mut [0; LINE_BYTES]) {
        b"zero" => inputs::make(engine, 0),
        b"seeded" => inputs::make(engine, inputs::SEED),
        b"bytes" => {
            for port in engine.program().inputs() {
                engine.input_mut(port.name).fill_with(|| (console.read)());
            }
        }
        _ => return Err(EXPECTED),
    }
    let start = (console.micros)();
    engine.infer().map_err(|error| Failure::run(error, page_size))?;
    let end = (console.micros)();
    let program = engine.program();
    for port in program.outputs() {
        let _ = write!(console, "{}:", port.name);
        if program.slot(port.value.slot).is_some_and(|slot| slot.dtype == Dtype::I8) {
            for value in engine.output_i8(&port, 0) {
                let _ = write!(console, " {value}");
            }
        } else {
            for value in engine.output(&port, 0) {
                let _ = write!(console, " {value}");
            }
        }
        (console.write)(b"\r\n");
    }
    let _ = write!(console, "{} us\r\n", end.saturating_sub(start));
    Ok(())
}

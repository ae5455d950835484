//! Says how unusual a machine sounds. A sensor gives a spectrum of 128 bands every 32 ms, here from a file of floats
//! through the debugger; a model that was trained on sound machines draws the last five anew, and what it
//! can't draw is unusual.
#![no_std]
#![no_main]

mod board;

use board::{ARENA_BYTES, COUNTER, PACK};
use core::fmt::{self, Display, Formatter, Write};
use cortex_m_rt::entry;
use omex_board::{Arena, Failure, File, quantized, real, with_model};
use omex_core::engine::Engine;

const BANDS: usize = 128;
/// Numbers that the model sees at once: five spectra.
const WINDOW: usize = 5 * BANDS;

#[entry]
fn main() -> ! {
    // `entry` makes these `&'static mut`: there is only one of each.
    static mut ARENA: Arena<ARENA_BYTES> = Arena([0; ARENA_BYTES]);
    static mut SEEN: [f32; WINDOW] = [0.0; WINDOW];
    board::start_counter();
    omex_board::attended(PACK, |output| {
        let mut sensor = board::sensor()?;
        with_model(&board::image(), &mut ARENA.0, |engine| {
            let (mut spectra, mut sum, mut instructions) = (0, 0.0, 0);
            while measure(&mut sensor, SEEN)? {
                spectra += 1;
                if spectra * BANDS >= WINDOW {
                    let start = (COUNTER.ticks)();
                    let found = surprise(engine, SEEN)?;
                    instructions = COUNTER.since(start);
                    sum += found;
                    let _ = writeln!(output, "spectrum {spectra}: {}", Decimal(found));
                }
            }
            let mean = sum / (spectra.saturating_sub(4).max(1)) as f32;
            let _ =
                writeln!(output, "on average {}; {instructions} instructions each", Decimal(mean));
            Ok(())
        })
    })
}

/// Puts the next spectrum behind those seen; false where there is no more.
fn measure(sensor: &mut File, seen: &mut [f32; WINDOW]) -> Result<bool, Failure> {
    let mut bytes = [0; BANDS * 4];
    match sensor.read(&mut bytes).ok_or(Failure::Task("the file can't be read"))? {
        0 => return Ok(false),
        length if length == bytes.len() => {}
        _ => return Err(Failure::Task("the file ends before a spectrum is whole")),
    }
    seen.copy_within(BANDS.., 0);
    let newest = seen.iter_mut().skip(WINDOW - BANDS);
    newest.zip(bytes.as_chunks().0).for_each(|(band, bytes)| *band = f32::from_le_bytes(*bytes));
    Ok(true)
}

/// The mean square of what the model can't draw.
fn surprise(engine: &mut Engine<'_>, seen: &[f32; WINDOW]) -> Result<f32, Failure> {
    const OTHER: Failure = Failure::Task("expected a model of one input and one output");
    let program = engine.program();
    let (input, output) = program.inputs().next().zip(program.outputs().next()).ok_or(OTHER)?;
    for (byte, number) in engine.input_mut(input.name).iter_mut().zip(seen) {
        *byte = quantized(&input, *number).cast_unsigned();
    }
    engine.infer().map_err(|error| Failure::Run(error, None))?;
    let drawn = engine.output_i8(&output, 0).iter().map(|byte| real(&output, *byte));
    let squares = drawn.zip(seen).map(|(drawn, seen)| (drawn - seen) * (drawn - seen));
    Ok(squares.sum::<f32>() / WINDOW as f32)
}

/// A number that is not negative, with three decimals: what formats all floats is large, and can panic.
struct Decimal(f32);

impl Display for Decimal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let thousandths = (self.0 * 1000.0 + 0.5) as u32;
        write!(f, "{}.{:03}", thousandths / 1000, thousandths % 1000)
    }
}

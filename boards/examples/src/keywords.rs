//! Says which of ten words it hears in each second of sound, which comes as a WAV file through the debugger, as if
//! from a microphone: coefficients frame by frame, then the model, and the instructions of both.
#![no_std]
#![no_main]

mod board;

use board::{ARENA_BYTES, COUNTER, PACK};
use core::fmt::Write;
use cortex_m_rt::entry;
use omex_audio::KEYWORDS;
use omex_board::{Arena, Failure, File, Output, quantized, real, with_model};
use omex_core::engine::Engine;

/// What the model's outputs stand for, in their order.
const WORDS: [&str; 12] =
    ["down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown"];

/// The board's clock, in instructions a millisecond if each takes one period.
const A_MILLISECOND: u64 = 25_000;

const SECOND: usize = 16_000;
/// Samples of a frame, and from one to the next.
const FRAME: usize = 480;
const STRIDE: usize = 320;

/// What a WAV file begins with, and where in it its form is told: PCM, one channel, its rate, 16 bits.
const HEADER_BYTES: usize = 44;
const FORM: [(usize, u32); 3] = [(20, 0x0001_0001), (24, SECOND as u32), (32, 0x0010_0002)];
const NO_WAV: Failure = Failure::Task("expected a WAV file of one channel, 16 kHz and 16 bits");

#[entry]
fn main() -> ! {
    // `entry` makes these `&'static mut`: there is only one of each.
    static mut ARENA: Arena<ARENA_BYTES> = Arena([0; ARENA_BYTES]);
    static mut SOUND: [i16; SECOND] = [0; SECOND];
    board::start_counter();
    omex_board::attended(PACK, |output| {
        let mut microphone = microphone()?;
        with_model(&board::image(), &mut ARENA.0, |engine| {
            while record(&mut microphone, SOUND)? {
                listen(engine, SOUND, output)?;
            }
            Ok(())
        })
    })
}

/// The file, behind its header.
fn microphone() -> Result<File, Failure> {
    let mut file = board::sensor()?;
    let mut header = [0; HEADER_BYTES];
    file.read(&mut header).filter(|length| *length == HEADER_BYTES).ok_or(NO_WAV)?;
    let word = |place: usize| header.get(place..)?.first_chunk().map(|w| u32::from_le_bytes(*w));
    match FORM.iter().all(|(place, expected)| word(*place) == Some(*expected)) {
        true => Ok(file),
        false => Err(NO_WAV),
    }
}

/// The next second, with silence behind its end; false where there is no more.
fn record(microphone: &mut File, sound: &mut [i16; SECOND]) -> Result<bool, Failure> {
    sound.fill(0);
    let mut length = 0;
    for samples in sound.chunks_mut(STRIDE) {
        let mut bytes = [0; STRIDE * 2];
        length += microphone.read(&mut bytes).ok_or(Failure::Task("the file can't be read"))?;
        for (sample, bytes) in samples.iter_mut().zip(bytes.as_chunks().0) {
            *sample = i16::from_le_bytes(*bytes);
        }
    }
    Ok(length > 0)
}

/// Says what is heard.
fn listen(engine: &mut Engine<'_>, sound: &[i16], output: &mut Output) -> Result<(), Failure> {
    let start = (COUNTER.ticks)();
    hear(engine, sound);
    let hearing = COUNTER.since(start);
    engine.infer().map_err(|error| Failure::Run(error, None))?;
    let all = COUNTER.since(start);
    let port = engine.program().outputs().next().ok_or(Failure::Task("a model without outputs"))?;
    let scores = engine.output_i8(&port, 0).iter().zip(WORDS);
    let (score, word) = scores.max_by_key(|(score, _)| **score).unwrap_or((&0, "nothing"));
    let percent = (real(&port, *score) * 100.0) as u32;
    let model = all.saturating_sub(hearing);
    let busy = all.div_ceil(A_MILLISECOND);
    let _ = writeln!(
        output,
        "{word} {percent} %: {hearing} instructions to hear, {model} to understand, {busy} ms of 1000"
    );
    Ok(())
}

/// Sets the model's input to the coefficients of all frames.
fn hear(engine: &mut Engine<'_>, sound: &[i16]) {
    let program = engine.program();
    let Some(port) = program.inputs().next() else { return };
    let input = engine.input_mut(port.name).chunks_exact_mut(10);
    let gain = 1.0 / omex_audio::peak(sound);
    for (row, frame) in input.zip(sound.windows(FRAME).step_by(STRIDE)) {
        for (byte, coefficient) in row.iter_mut().zip(KEYWORDS.frame(frame, gain)) {
            *byte = quantized(&port, coefficient).cast_unsigned();
        }
    }
}

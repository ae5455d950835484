//! Models that take arrays: set inputs, run, read outputs.

use crate::npy::{Array, Element};
use crate::session::Session;
use crate::{Error, Result, input};
use omex_core::program::{Dtype, Port, Program};
use std::collections::BTreeMap;
use std::path::Path;

/// An input with the name of the port that it is for; without a name, the model has one input.
pub struct Input<'i> {
    /// The port.
    pub name: Option<&'i str>,
    /// Where it came from, for errors.
    pub path: &'i Path,
    /// The numbers.
    pub array: Array,
}

/// The numbers of an input: `zero`; `seeded`, bytes of xorshift32 from 0x12345678, of floats a 128th of each;
/// NumPy's `.npy`; a `.wav` of 16-bit samples on one channel, as floats from -1 to 1; or the input's own bytes.
/// `name` is the port's; without one, the model has one input.
///
/// # Errors
/// A file that can't be read, or that is none for this input.
pub fn array_of(session: &mut Session, name: Option<&str>, path: &Path) -> Result<Array> {
    let engine = session.engine()?;
    let program = engine.program();
    let names: Vec<_> = program.inputs().map(|port| port.name.to_owned()).collect();
    let port =
        program.inputs().find(|port| name.map_or(names.len() == 1, |name| port.name == name));
    let Some(port) = port else {
        // A model that takes tokens has no inputs: running it says so.
        return if names.is_empty() { Array::read(path) } else { Err(several(&names)) };
    };
    let (element, shape) = form(program, &port);
    let (width, extension) = (port.value.width as usize, path.extension().and_then(|e| e.to_str()));
    let bytes = match (path.to_str(), extension) {
        (Some("zero"), _) => vec![0; width * element.bytes()],
        (Some("seeded"), _) => seeded(element, width),
        (_, Some("npy")) => return Array::read(path),
        (_, Some("wav")) => return samples(path),
        _ => {
            let bytes = input::read(path, MAX_BYTES)?;
            if bytes.len() != width * element.bytes() {
                let found = format!("{} bytes", bytes.len());
                let expected = format!("{} {shape:?}: {}", element.name(), width * element.bytes());
                let remedy = "give the input's own bytes, or a .npy file";
                return Err(Error::malformed(path, "length", found, expected, remedy));
            }
            bytes
        }
    };
    Ok(Array { element, shape, bytes })
}

/// The longest file of plain bytes or samples that is read.
const MAX_BYTES: u64 = 256 << 20;

/// Numbers that look random, the same everywhere.
fn seeded(element: Element, count: usize) -> Vec<u8> {
    let mut state = 0x1234_5678u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    };
    let bytes = (0..count).map(|_| next());
    match element {
        Element::I8 => bytes.collect(),
        Element::F32 => {
            bytes.flat_map(|b| (f32::from(b.cast_signed()) / 128.0).to_le_bytes()).collect()
        }
    }
}

/// The samples of a RIFF WAVE file.
fn samples(path: &Path) -> Result<Array> {
    let bytes = input::read(path, MAX_BYTES)?;
    let samples = pcm(&bytes).ok_or_else(|| {
        let expected = "RIFF WAVE, 16-bit PCM, one channel";
        Error::malformed(path, "format", "something else", expected, "convert the sound")
    })?;
    let floats = samples.as_chunks().0.iter().map(|b| f32::from(i16::from_le_bytes(*b)) / 32768.0);
    let bytes: Vec<u8> = floats.flat_map(f32::to_le_bytes).collect();
    Ok(Array { element: Element::F32, shape: vec![bytes.len() / 4], bytes })
}

/// The bytes of 16-bit samples on one channel.
fn pcm(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(b"RIFF")?.get(4..)?.strip_prefix(b"WAVE")?;
    let mut known = false;
    loop {
        let (name, behind) = rest.split_first_chunk::<4>()?;
        let (length, behind) = behind.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let (chunk, behind) = behind.split_at(length.min(behind.len()));
        match name {
            // PCM, one channel, 16 bits.
            b"fmt " => known = chunk.get(..4)? == [1, 0, 1, 0] && chunk.get(14..16)? == [16, 0],
            b"data" => return known.then_some(chunk),
            _ => {}
        }
        rest = behind.get(length % 2..)?;
    }
}

/// Runs a model, and returns its outputs by name: once, or if it keeps something from run to run and each input
/// is as many arrays one after another, once for each of these, with as many outputs one after another.
///
/// # Errors
/// A model that takes tokens; an input that is missing, unknown, or of another type or size; or what
/// a pass can fail with.
pub fn infer(session: &mut Session, inputs: &[Input<'_>]) -> Result<Vec<(String, Array)>> {
    let failed = session.failure();
    let mut engine = session.engine()?;
    let program = engine.program().clone();
    if program.header().vocab_size > 0 {
        let message = "the model takes tokens, not arrays: use omex run or omex logits";
        return Err(Error::Usage(message.to_owned()));
    }
    let (given, steps) = given(&program, inputs)?;
    let ports: Vec<_> = program.outputs().collect();
    let mut outputs = vec![vec![]; ports.len()];
    for step in 0..steps {
        for (name, bytes) in &given {
            let length = bytes.len() / steps;
            engine.input_mut(name).copy_from_slice(&bytes[step * length..][..length]);
        }
        engine.infer().map_err(&failed)?;
        for (port, output) in ports.iter().zip(&mut outputs) {
            match form(&program, port).0 {
                Element::F32 => {
                    output.extend(engine.output(port, 0).iter().flat_map(|x| x.to_le_bytes()));
                }
                Element::I8 => {
                    output.extend(engine.output_i8(port, 0).iter().map(|x| x.cast_unsigned()));
                }
            }
        }
    }
    let array = |(port, bytes): (&Port<'_>, Vec<u8>)| {
        let (element, mut shape) = form(&program, port);
        if steps > 1 {
            shape.insert(0, steps);
        }
        (port.name.to_owned(), Array { element, shape, bytes })
    };
    Ok(ports.iter().zip(outputs).map(array).collect())
}

/// The bytes of all inputs by name, and how many arrays each is.
fn given<'i>(
    program: &Program<'_>,
    inputs: &'i [Input<'_>],
) -> Result<(BTreeMap<String, &'i [u8]>, usize)> {
    let names: Vec<_> = program.inputs().map(|port| port.name.to_owned()).collect();
    let mut given = BTreeMap::new();
    let mut steps = None;
    for input in inputs {
        let name = match (input.name, &names[..]) {
            (Some(name), _) => name,
            (None, [only]) => only,
            (None, _) => return Err(several(&names)),
        };
        let port = program.inputs().find(|port| port.name == name);
        let port = port.ok_or_else(|| several(&names))?;
        steps = Some(check(program, &port, input, steps)?);
        given.insert(name.to_owned(), &input.array.bytes[..]);
    }
    if let Some(name) = names.iter().find(|name| !given.contains_key(*name)) {
        return Err(Error::Usage(format!("no input for \"{name}\": give --input {name}=FILE.npy")));
    }
    Ok((given, steps.unwrap_or(1)))
}

fn several(names: &[String]) -> Error {
    let names = names.join("\", \"");
    Error::Usage(format!("the model's inputs are \"{names}\": give each as --input NAME=FILE.npy"))
}

/// Element and dimensions of a port.
#[must_use]
pub fn form(program: &Program<'_>, port: &Port<'_>) -> (Element, Vec<usize>) {
    let Some(slot) = program.slot(port.value.slot) else { return (Element::F32, vec![]) };
    let element = if slot.dtype == Dtype::I8 { Element::I8 } else { Element::F32 };
    let shape = match slot.dims {
        [0, 0, 0, 0] => vec![port.value.width as usize],
        dims => dims.map(usize::from).into_iter().skip_while(|dim| *dim == 0).collect(),
    };
    (element, shape)
}

/// How many arrays of a port's type and size an input is, as many as those before it; of a model that keeps nothing,
/// one. Leading dimensions may be left out or split.
fn check(
    program: &Program<'_>,
    port: &Port<'_>,
    input: &Input<'_>,
    steps: Option<usize>,
) -> Result<usize> {
    let (element, shape) = form(program, port);
    let array = &input.array;
    let one = port.value.width as usize * element.bytes();
    let several = program.states().next().is_some();
    if array.element == element
        && let Some(found) = whole_times(array.bytes.len(), one)
        && (found == 1 || several)
        && steps.is_none_or(|steps| steps == found)
    {
        return Ok(found);
    }
    let (mut expected, remedy) = (
        format!("{} {shape:?}", element.name()),
        "give an array of this type and as many elements",
    );
    if let (true, Some(steps)) = (several, steps) {
        expected = format!("{expected}, {steps} times, as the input before it");
    }
    Err(Error::malformed(
        input.path,
        format!("input \"{}\"", port.name),
        format!("{} {:?}", array.element.name(), array.shape),
        expected,
        remedy,
    ))
}

/// How many times a length is in another, if that is a whole number above 0.
fn whole_times(length: usize, one: usize) -> Option<usize> {
    let times = length.checked_div(one)?;
    (times > 0 && times * one == length).then_some(times)
}

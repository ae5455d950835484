//! Models that take arrays: set inputs, run, read outputs.

use crate::npy::{Array, Element};
use crate::session::Session;
use crate::{Error, Result};
use omex_core::program::{Dtype, Port, Program};
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

/// Runs a model once, and returns its outputs by name.
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
    let names: Vec<_> = program.inputs().map(|port| port.name.to_owned()).collect();
    let mut missing = names.clone();
    for input in inputs {
        let name = match (input.name, &names[..]) {
            (Some(name), _) => name,
            (None, [only]) => only,
            (None, _) => return Err(several(&names)),
        };
        let port = program.inputs().find(|port| port.name == name);
        let port = port.ok_or_else(|| several(&names))?;
        check(&program, &port, input)?;
        engine.input_mut(name).copy_from_slice(&input.array.bytes);
        missing.retain(|other| other != name);
    }
    if let Some(name) = missing.first() {
        return Err(Error::Usage(format!("no input for \"{name}\": give --input {name}=FILE.npy")));
    }
    engine.infer().map_err(failed)?;
    let outputs: Vec<_> = program.outputs().collect();
    let read = |port: &Port<'_>| {
        let (element, shape) = form(&program, port);
        let bytes = match element {
            Element::F32 => engine.output(port, 0).iter().flat_map(|x| x.to_le_bytes()).collect(),
            Element::I8 => engine.output_i8(port, 0).iter().map(|x| x.cast_unsigned()).collect(),
        };
        (port.name.to_owned(), Array { element, shape, bytes })
    };
    Ok(outputs.iter().map(read).collect())
}

fn several(names: &[String]) -> Error {
    let names = names.join("\", \"");
    Error::Usage(format!("the model's inputs are \"{names}\": give each as --input NAME=FILE.npy"))
}

/// Element and dimensions of a port.
fn form(program: &Program<'_>, port: &Port<'_>) -> (Element, Vec<usize>) {
    let Some(slot) = program.slot(port.value.slot) else { return (Element::F32, vec![]) };
    let element = if slot.dtype == Dtype::I8 { Element::I8 } else { Element::F32 };
    let shape = match slot.dims {
        [0, 0, 0, 0] => vec![port.value.width as usize],
        dims => dims.map(usize::from).into_iter().skip_while(|dim| *dim == 0).collect(),
    };
    (element, shape)
}

/// An array has a port's type, and as many elements; leading dimensions may be left out or split.
fn check(program: &Program<'_>, port: &Port<'_>, input: &Input<'_>) -> Result<()> {
    let (element, shape) = form(program, port);
    let array = &input.array;
    if (array.element, array.bytes.len()) == (element, port.value.width as usize * element.bytes())
    {
        return Ok(());
    }
    Err(Error::malformed(
        input.path,
        format!("input \"{}\"", port.name),
        format!("{} {:?}", array.element.name(), array.shape),
        format!("{} {shape:?}", element.name()),
        "give an array of this type and as many elements",
    ))
}

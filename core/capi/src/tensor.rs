//! Models that take tensors.

use crate::engine::Engine;
use crate::status::{Status, of};
use core::ffi::{c_char, c_void};
use omex_core::program::{Dtype, Port, Program};

/// What a tensor's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Element {
    /// 32-bit floats.
    F32 = 0,
    /// Signed bytes.
    I8 = 1,
}

/// An input or an output of a model.
#[repr(C)]
pub struct Tensor {
    /// Its name, which no zero ends.
    pub name: *const c_char,
    /// Bytes of the name.
    pub name_bytes: usize,
    /// What its elements are.
    pub element: Element,
    /// How many dimensions it has.
    pub rank: u32,
    /// Its dimensions, the outermost first; those behind `rank` are 0.
    pub dims: [u32; 4],
    /// Its elements, the innermost dimension's next to one another: of an input, to be written.
    pub data: *mut c_void,
    /// Bytes of the elements.
    pub bytes: usize,
}

/// The input of this number. Write all of every input before each omex_infer: it computes in the same memory.
/// The tensor is valid until then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_input(
    engine: *mut Engine,
    number: u32,
    tensor: *mut Tensor,
) -> Status {
    // SAFETY: both are valid or null, as the caller says.
    let (Some(engine), Some(tensor)) = (unsafe { (engine.as_mut(), tensor.as_mut()) }) else {
        return Status::Argument;
    };
    let port = engine.engine.program().inputs().nth(number as usize);
    of(port.ok_or(Status::NoSuchTensor).and_then(|port| {
        let bytes = engine.engine.input_mut(port.name);
        let (data, length) = (bytes.as_mut_ptr().cast(), bytes.len());
        *tensor = described(engine.engine.program(), &port, data, length)?;
        Ok(())
    }))
}

/// The output of this number, which the last omex_infer computed; valid until the next.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_output(
    engine: *const Engine,
    number: u32,
    tensor: *mut Tensor,
) -> Status {
    // SAFETY: both are valid or null, as the caller says.
    let (Some(engine), Some(tensor)) = (unsafe { (engine.as_ref(), tensor.as_mut()) }) else {
        return Status::Argument;
    };
    let engine = &engine.engine;
    if engine.program().header().vocab_size > 0 {
        return Status::Kind;
    }
    let port = engine.program().outputs().nth(number as usize);
    of(port.ok_or(Status::NoSuchTensor).and_then(|port| {
        let (floats, bytes) = (engine.output(&port, 0), engine.output_i8(&port, 0));
        let (data, length) = match bytes {
            [] => (floats.as_ptr().cast_mut().cast(), size_of_val(floats)),
            bytes => (bytes.as_ptr().cast_mut().cast(), bytes.len()),
        };
        *tensor = described(engine.program(), &port, data, length)?;
        Ok(())
    }))
}

/// Computes the outputs of the inputs that were written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_infer(engine: *mut Engine) -> Status {
    // SAFETY: it is valid or null, as the caller says.
    let Some(engine) = (unsafe { engine.as_mut() }) else { return Status::Argument };
    if engine.engine.program().header().vocab_size > 0 {
        return Status::Kind;
    }
    of(engine.engine.infer().map_err(Status::from))
}

fn described(
    program: &Program<'_>,
    port: &Port<'_>,
    data: *mut c_void,
    bytes: usize,
) -> Result<Tensor, Status> {
    let slot = program.slot(port.value.slot).ok_or(Status::Damaged)?;
    let element = match slot.dtype {
        Dtype::F32 => Element::F32,
        Dtype::I8 => Element::I8,
        _ => return Err(Status::Unsupported),
    };
    let (mut dims, mut rank) = ([0; 4], 0);
    // Zeros in front stand for dimensions that it does not have.
    let given = slot.dims.iter().skip_while(|dim| **dim == 0);
    for (place, dim) in dims.iter_mut().zip(given) {
        (*place, rank) = (u32::from(*dim), rank + 1);
    }
    if rank == 0 {
        (dims, rank) = ([port.value.width, 0, 0, 0], 1);
    }
    let (name, name_bytes) = (port.name.as_ptr().cast(), port.name.len());
    Ok(Tensor { name, name_bytes, element, rank, dims, data, bytes })
}

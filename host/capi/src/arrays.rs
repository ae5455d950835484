//! Models that take arrays.

use crate::failure::{Failure, failure};
use crate::model::{Model, with};
use host::infer::form;
use host::npy;
use omex_core::engine::Engine;
use omex_core::program::Port;
use std::ffi::{CString, c_char, c_void};

/// What an array's elements are.
#[derive(Clone, Copy)]
#[repr(C)]
pub enum Element {
    /// 32-bit floats.
    F32 = 0,
    /// Signed bytes.
    I8 = 1,
}

/// An input or an output of a model.
#[repr(C)]
pub struct Array {
    /// Its name, as long as the model is open.
    pub name: *const c_char,
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

/// The input of this number; -1 past the last. Write all of every input before each omex_model_infer: it computes in
/// the same memory. The array is valid until then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_model_input(
    model: *mut Model,
    number: u32,
    array: *mut Array,
) -> i32 {
    let find = |engine: &mut Engine<'_>, names: &[CString]| {
        let port = engine.program().inputs().nth(number as usize);
        let port = port.ok_or_else(|| missing("input", number, names))?;
        let bytes = engine.input_mut(port.name);
        let (data, length) = (bytes.as_mut_ptr().cast(), bytes.len());
        Ok(described(engine, &port, names, number, data, length))
    };
    // SAFETY: both are valid or null, as the caller says.
    unsafe { of_engine(model, 0, array, find) }
}

/// The output of this number, which the last omex_model_infer computed; -1 past the last. Valid until the next.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_model_output(
    model: *mut Model,
    number: u32,
    array: *mut Array,
) -> i32 {
    let find = |engine: &mut Engine<'_>, names: &[CString]| {
        let port = engine.program().outputs().nth(number as usize);
        let port = port.ok_or_else(|| missing("output", number, names))?;
        let (floats, bytes) = (engine.output(&port, 0), engine.output_i8(&port, 0));
        let (data, length) = match bytes {
            [] => (floats.as_ptr().cast_mut().cast(), size_of_val(floats)),
            bytes => (bytes.as_ptr().cast_mut().cast(), bytes.len()),
        };
        Ok(described(engine, &port, names, number, data, length))
    };
    // SAFETY: both are valid or null, as the caller says.
    unsafe { of_engine(model, 1, array, find) }
}

/// Computes the outputs of the inputs that were written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_model_infer(model: *mut Model) -> i32 {
    let infer = |model: &mut Model| {
        let failed = model.runner.model().failure();
        Ok(model.runner.with_arrays(|engine| engine.infer().map_err(failed))?)
    };
    // SAFETY: it is open or null, as the caller says.
    unsafe { with(model, infer) }
}

fn missing(what: &str, number: u32, names: &[CString]) -> Failure {
    failure(format!("{what} {number}: the model has {}", names.len()))
}

/// # Safety
/// The model is open or null, and the array valid or null.
unsafe fn of_engine(
    model: *mut Model,
    side: usize,
    array: *mut Array,
    find: impl FnOnce(&mut Engine<'_>, &[CString]) -> Result<Array, Failure>,
) -> i32 {
    let describe = |model: &mut Model| {
        // SAFETY: as the caller says.
        let array = unsafe { array.as_mut() };
        let array = array.ok_or_else(|| failure("array: found null"))?;
        let Model { runner, names, .. } = model;
        *array = runner.with_arrays(|engine| Ok(find(engine, &names[side])))??;
        Ok(())
    };
    // SAFETY: as the caller says.
    unsafe { with(model, describe) }
}

fn described(
    engine: &Engine<'_>,
    port: &Port<'_>,
    names: &[CString],
    number: u32,
    data: *mut c_void,
    bytes: usize,
) -> Array {
    let (element, shape) = form(engine.program(), port);
    let mut dims = [0; 4];
    dims.iter_mut().zip(&shape).for_each(|(place, dim)| *place = *dim as u32);
    Array {
        name: names.get(number as usize).map_or(std::ptr::null(), |name| name.as_ptr()),
        element: match element {
            npy::Element::F32 => Element::F32,
            npy::Element::I8 => Element::I8,
        },
        rank: shape.len() as u32,
        dims,
        data,
        bytes,
    }
}

//! Models that are open, and plans of those that are not.

use crate::failure::{Failure, failure, guarded, text};
use host::cancel::Cancel;
use host::runner::Runner;
use host::session::{SessionOptions, plan_model};
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::path::Path;

/// A model that is open.
pub struct Model {
    pub(crate) runner: Runner,
    /// Names of inputs and outputs.
    pub(crate) names: [Vec<CString>; 2],
    /// Something in it panicked.
    broken: bool,
}

/// How a model is to be run. Null, and zeros, leave it to the planner.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Options {
    /// Bytes that may be used for everything.
    pub memory: u64,
    /// Positions of the text that are kept.
    pub context: u32,
    /// Threads.
    pub threads: u32,
}

/// # Safety
/// They are null or valid.
unsafe fn session_options(options: *const Options) -> SessionOptions {
    // SAFETY: as the caller says.
    let Some(options) = (unsafe { options.as_ref() }) else { return SessionOptions::default() };
    let chosen = |number: u32| Some(number).filter(|number| *number > 0);
    SessionOptions {
        memory: Some(options.memory).filter(|memory| *memory > 0),
        context: chosen(options.context),
        threads: chosen(options.threads).map(|threads| threads as usize),
        cancel: Cancel::default(),
        ..SessionOptions::default()
    }
}

thread_local! {
    static PLAN: RefCell<CString> = RefCell::default();
}

/// Where every byte of memory would go, as a JSON object: what `omex plan --json` prints of it. Null if the package or
/// image can't be read, or the budget is too small. Valid until this thread's next call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_plan(path: *const c_char, options: *const Options) -> *const c_char {
    let plan = guarded(|| {
        // SAFETY: both are valid or null, as the caller says.
        let (path, options) = unsafe { (text("path", path)?, session_options(options)) };
        let plan = plan_model(Path::new(path), &options)?;
        Ok(CString::new(serde_json::to_string(&plan)?)?)
    });
    plan.map_or(std::ptr::null(), |plan| {
        PLAN.set(plan);
        PLAN.with_borrow(|plan| plan.as_ptr())
    })
}

/// Opens a package or a flash image; null if that fails. Who has a model closes it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_model_open(
    path: *const c_char,
    options: *const Options,
) -> *mut Model {
    let opened = guarded(|| {
        // SAFETY: both are valid or null, as the caller says.
        let (path, options) = unsafe { (text("path", path)?, session_options(options)) };
        let runner = Runner::open(Path::new(path), &options)?;
        let names = {
            let program = runner.model().program()?;
            let named = |name: &str| CString::new(name.replace('\0', "?")).unwrap_or_default();
            let (inputs, outputs) = (program.inputs(), program.outputs());
            [
                inputs.map(|port| named(port.name)).collect(),
                outputs.map(|port| named(port.name)).collect(),
            ]
        };
        Ok(Box::new(Model { runner, names, broken: false }))
    });
    opened.map_or(std::ptr::null_mut(), Box::into_raw)
}

/// Gives back all that a model holds; does nothing to null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_model_close(model: *mut Model) {
    if !model.is_null() {
        // SAFETY: `omex_model_open` made it, and the caller says that it was not closed yet.
        let model = unsafe { Box::from_raw(model) };
        let _ = guarded(|| {
            drop(model);
            Ok(())
        });
    }
}

/// Does something with a model: 0, or -1 if it fails.
///
/// # Safety
/// It is null, or one that is open, and nobody else uses it.
pub(crate) unsafe fn with(
    model: *mut Model,
    action: impl FnOnce(&mut Model) -> Result<(), Failure>,
) -> i32 {
    let done = guarded(|| {
        // SAFETY: as the caller says.
        let model = unsafe { model.as_mut() };
        let model = model.ok_or_else(|| failure("model: found null, expected one that is open"))?;
        if std::mem::replace(&mut model.broken, true) {
            return Err(failure("the model can't be used after a fault inside of OMEX: close it"));
        }
        let result = action(model);
        model.broken = false;
        result
    });
    if done.is_some() { 0 } else { -1 }
}

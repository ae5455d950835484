//! The compiled half of the package `omex`: what needs the engine. `python/omex/__init__.py` is the half that people see.
//!
//! Python's lock is given back wherever a pass may run.

mod error;
mod generation;
mod model;
mod slot;

use error::{Error, error};
use omex::session::{SessionOptions, plan_model};
use pyo3::prelude::*;
use std::path::PathBuf;

fn options(memory: Option<u64>, context: Option<u32>, threads: Option<usize>) -> SessionOptions {
    SessionOptions { memory, context, threads, ..SessionOptions::default() }
}

/// A plan as JSON.
#[pyfunction]
fn plan(
    py: Python<'_>,
    path: PathBuf,
    memory: Option<u64>,
    context: Option<u32>,
) -> PyResult<String> {
    let plan = py.detach(|| plan_model(&path, &options(memory, context, None))).map_err(error)?;
    serde_json::to_string(&plan).map_err(error)
}

#[pymodule]
fn _omex(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("Error", module.py().get_type::<Error>())?;
    module.add_class::<model::Model>()?;
    module.add_class::<generation::Generation>()?;
    module.add_function(wrap_pyfunction!(plan, module)?)
}

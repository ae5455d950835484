//! What goes wrong, for Python.

use pyo3::PyErr;
use pyo3::exceptions::PyRuntimeError;

pyo3::create_exception!(
    omex,
    Error,
    PyRuntimeError,
    "What OMEX can't do, and what to do about it."
);

/// An error of OMEX, for Python.
pub(crate) fn error(error: impl ToString) -> PyErr {
    Error::new_err(error.to_string())
}

//! Tensors that are parts of a quantized matrix, and what is said of those that do not fit.

use crate::import::stored::StoredModel;
use crate::import::{Container, TensorInfo};
use crate::{Error, Result};

pub(super) fn has(model: &StoredModel, name: &str) -> bool {
    model.tensor(name).is_some()
}

pub(super) fn malformed(
    model: &StoredModel,
    name: &str,
    found: impl Into<String>,
    expected: impl Into<String>,
) -> Error {
    let remedy = "get the files again, or the model's original weights";
    Error::malformed(model.tensor_path(name), name, found, expected, remedy)
}

/// The shape of a tensor, for people.
pub(super) fn shape(info: TensorInfo) -> String {
    format!("{:?} of shape [{}, {}]", info.encoding, info.rows, info.columns)
}

/// A part of a quantized matrix, which must be there and be as it is expected.
pub(super) fn part(
    model: &StoredModel,
    name: &str,
    expected: &str,
    fits: impl Fn(TensorInfo) -> bool,
) -> Result<TensorInfo> {
    match model.tensor(name) {
        Some(info) if fits(info) => Ok(info),
        found => {
            let found = found.map_or("no tensor".to_owned(), shape);
            Err(malformed(model, name, found, expected))
        }
    }
}

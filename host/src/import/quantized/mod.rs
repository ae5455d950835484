//! Weights that other programs have quantized, as the floats that they stand for: each method keeps
//! a matrix as several tensors.

mod grouped;
mod linear;
mod method;
mod microscaled;
mod packed;
mod parts;
mod scaled;

use super::StoredModel;
use super::columns::Tiles;
use super::container::{Container, Fields, SourceFormat, TensorInfo, TokenizerSource};
use super::encoding::Encoding;
use crate::{Error, Result};
use method::Method;
use microscaled::Microscaled;
use packed::Packed;
use parts::{has, malformed};
use scaled::Scaled;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(super) use grouped::{Grouped, Grouping};
pub(super) use linear::Linear;

/// The model with its quantized matrices decoded, or as it is where none are quantized.
///
/// # Errors
/// A method that is not known, or tensors that are not those that it calls for.
pub(super) fn decoded(mut model: StoredModel) -> Result<Box<dyn Container>> {
    let Some(method) = method::of(&model.path, &model.config)? else { return Ok(Box::new(model)) };
    let mut matrices = BTreeMap::new();
    let mut parts = BTreeSet::new();
    match method {
        Method::Packed(packing) => {
            for stem in packed::stems(&model) {
                let (matrix, named) = Packed::new(&mut model, &stem, packing)?;
                matrices.insert(format!("{stem}.weight"), Matrix::Packed(matrix));
                parts.extend(named);
            }
        }
        Method::Microscaled => {
            for name in microscaled::names(&model) {
                let (matrix, named) = Microscaled::new(&mut model, &name)?;
                matrices.insert(name, Matrix::Microscaled(matrix));
                parts.extend(named);
            }
        }
        Method::Scaled(block) => {
            for name in scaled::names(&model) {
                let (matrix, named) = Scaled::new(&model, &name, block)?;
                matrices.insert(name, Matrix::Scaled(matrix));
                parts.extend(named);
            }
        }
    }
    if let Some(name) = matrices.keys().find(|name| !parts.contains(*name) && has(&model, name)) {
        let (found, expected) = ("floats beside quantized numbers", "one of both");
        return Err(malformed(&model, name, found, expected));
    }
    // Who reads blocks as they are has to know of them.
    if method != Method::Microscaled {
        model.config.remove(method::FIELD);
    }
    Ok(Box::new(Decoded { model, matrices, parts }))
}

/// A model with these matrices, which are made of the tensors with these names.
pub(super) fn with_matrices(
    model: StoredModel,
    linear: BTreeMap<String, Linear>,
    grouped: BTreeMap<String, Grouped>,
    parts: BTreeSet<String>,
) -> Box<dyn Container> {
    let linear = linear.into_iter().map(|(name, matrix)| (name, Matrix::Linear(matrix)));
    let grouped = grouped.into_iter().map(|(name, matrix)| (name, Matrix::Grouped(matrix)));
    Box::new(Decoded { model, matrices: linear.chain(grouped).collect(), parts })
}

/// A matrix that is quantized.
#[derive(Debug)]
enum Matrix {
    Packed(Packed),
    Scaled(Scaled),
    Microscaled(Microscaled),
    Linear(Linear),
    Grouped(Grouped),
}

/// A model some of whose matrices are quantized.
#[derive(Debug)]
struct Decoded {
    model: StoredModel,
    /// The quantized matrices by the names that they would have as floats.
    matrices: BTreeMap<String, Matrix>,
    /// The tensors that they are stored as.
    parts: BTreeSet<String>,
}

impl Container for Decoded {
    fn format(&self) -> SourceFormat {
        self.model.format()
    }

    fn path(&self) -> &Path {
        self.model.path()
    }

    fn config(&self) -> &Fields {
        self.model.config()
    }

    fn names(&self) -> Vec<String> {
        let plain = self.model.names().into_iter().filter(|name| !self.parts.contains(name));
        plain.chain(self.matrices.keys().cloned()).collect()
    }

    fn tensor_path(&self, name: &str) -> &Path {
        match self.matrices.get(name) {
            Some(Matrix::Packed(matrix)) => self.model.tensor_path(matrix.stored_as()),
            Some(Matrix::Linear(matrix)) => self.model.tensor_path(matrix.stored_as()),
            Some(Matrix::Grouped(matrix)) => self.model.tensor_path(matrix.stored_as()),
            _ => self.model.tensor_path(name),
        }
    }

    fn tensor(&self, name: &str) -> Option<TensorInfo> {
        let [rows, columns] = match self.matrices.get(name) {
            Some(Matrix::Packed(matrix)) => matrix.shape(),
            Some(Matrix::Scaled(matrix)) => matrix.shape(),
            Some(Matrix::Microscaled(matrix)) => {
                let [rows, columns] = matrix.shape();
                return Some(TensorInfo { rows, columns, encoding: Encoding::Mxfp4 });
            }
            Some(Matrix::Linear(matrix)) => matrix.shape(),
            Some(Matrix::Grouped(matrix)) => {
                let ([rows, columns], encoding) = (matrix.shape(), matrix.encoding(&self.model));
                return Some(TensorInfo { rows, columns, encoding });
            }
            None => return self.model.tensor(name).filter(|_| !self.parts.contains(name)),
        };
        Some(TensorInfo { rows, columns, encoding: Encoding::F32 })
    }

    fn read_row(&self, name: &str, row: u32, out: &mut [f32]) -> Result<()> {
        let Some(matrix) = self.matrices.get(name) else {
            return self.model.read_row(name, row, out);
        };
        let info = self.tensor(name).filter(|info| row < info.rows);
        if info.is_none_or(|info| info.columns as usize != out.len()) {
            let found = format!("row {row} into a buffer for {}", out.len());
            let (expected, remedy) = ("a row of its shape", "ask for one of the tensor's rows");
            return Err(Error::malformed(self.tensor_path(name), name, found, expected, remedy));
        }
        match matrix {
            Matrix::Packed(matrix) => matrix.read_row(&self.model, row, out),
            Matrix::Scaled(matrix) => matrix.read_row(&self.model, name, row, out),
            Matrix::Microscaled(matrix) => matrix.read_row(&self.model, name, row, out),
            Matrix::Linear(matrix) => matrix.read_row(&self.model, row, out),
            Matrix::Grouped(matrix) => matrix.read_row(&self.model, row, out),
        }
    }

    fn read_row_bytes(&self, name: &str, row: u32, out: &mut Vec<u8>) -> Result<()> {
        let Some(info) = self.tensor(name).filter(|_| self.matrices.contains_key(name)) else {
            return self.model.read_row_bytes(name, row, out);
        };
        match self.matrices.get(name) {
            Some(Matrix::Microscaled(matrix)) => {
                return matrix.read_row_bytes(&self.model, name, row, out);
            }
            Some(Matrix::Grouped(matrix)) if info.encoding == Encoding::Q4_0 && row < info.rows => {
                return matrix.read_row_bytes(&self.model, row, out);
            }
            _ => {}
        }
        let mut floats = vec![0.0; info.columns as usize];
        self.read_row(name, row, &mut floats)?;
        out.clear();
        out.extend(floats.iter().flat_map(|x| x.to_le_bytes()));
        Ok(())
    }

    fn is_same(&self, name: &str, other: &str) -> bool {
        let quantized = self.matrices.contains_key(name) || self.matrices.contains_key(other);
        if quantized { name == other } else { self.model.is_same(name, other) }
    }

    fn stored_name(&self, name: &str) -> Option<String> {
        let name = self.model.uses.canonical(name);
        self.tensor(name).map(|_| name.to_owned())
    }

    fn is_as_used(&self, name: &str) -> bool {
        self.model.uses.as_used.contains(name)
    }

    fn tokenizer(&self) -> Option<&TokenizerSource> {
        self.model.tokenizer()
    }

    fn files(&self) -> Vec<&Path> {
        self.model.files()
    }

    /// Packed matrices are read turned.
    fn kept_bytes(&self) -> u64 {
        self.model.kept_bytes().max(Tiles::most(0))
    }
}

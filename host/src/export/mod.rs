//! Packages as other programs store models, whatever the package was converted from.
//!
//! `arch` says of each tensor of a package which rows of which stored tensors it is made of; that is read
//! backwards here, in Hugging Face's words for safetensors, in llama.cpp's for GGUF. Nothing here knows an
//! architecture.

mod beside;
pub mod gguf;
mod inverse;
mod pairs;
mod rows;
pub mod safetensors;
mod scatter;

use crate::import::{Encoding, Fields};
use crate::package::Package;
use crate::{Error, Result};
use inverse::{Inverse, Stored};
use scatter::Place;
use serde::Serialize;

/// What a package is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A file for llama.cpp.
    Gguf,
    /// A folder for Hugging Face's transformers.
    Safetensors,
}

/// What floats are written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtype {
    /// 32 bits, which hold every number of a package.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// 16 bits.
    F16,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// The file's format.
    pub format: &'static str,
    /// What the file calls the architecture.
    pub architecture: String,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Tensors that were the same in the package and are in the file.
    pub groups: Vec<Group>,
    /// What is not as it was in the package.
    pub notes: Vec<String>,
}

/// Tensors that were in one format in the package, and are in one type in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The package's format.
    pub from: String,
    /// The file's type.
    pub to: String,
    /// The numbers are those of the package, bit for bit.
    pub exact: bool,
    /// How many tensors.
    pub tensors: u64,
    /// Their bytes in the file.
    pub bytes: u64,
}

impl Exported {
    fn new(
        format: &'static str,
        architecture: String,
        inverse: &Inverse,
        places: &[Place],
    ) -> Self {
        let mut exported = Self { format, architecture, ..Self::default() };
        for (stored, place) in inverse.tensors.iter().zip(places) {
            let row = place.encoding.row_bytes(stored.columns).unwrap_or(0);
            let bytes = u64::from(stored.rows) * row;
            exported.bytes += bytes;
            exported.add(stored, place.encoding, bytes);
        }
        exported
    }

    fn add(&mut self, stored: &Stored, encoding: Encoding, bytes: u64) {
        let to = format!("{encoding:?}").to_lowercase();
        let exact = encoding == Encoding::F32
            || stored.format.is_some_and(|format| rows::encoding(format) == encoding);
        let same = |group: &&mut Group| {
            group.from == stored.from && group.to == to && group.exact == exact
        };
        match self.groups.iter_mut().find(same) {
            Some(group) => {
                group.tensors += 1;
                group.bytes += bytes;
            }
            None => {
                let from = stored.from.clone();
                self.groups.push(Group { from, to, exact, tensors: 1, bytes });
            }
        }
    }
}

/// The hyperparameters of a package.
fn hyperparameters(package: &Package) -> Result<Fields> {
    package.hyperparameters()?.ok_or_else(|| {
        let path = package.path.join("hyperparameters.json");
        let remedy = "convert the model again: packages of earlier versions have no such file, and \
                      models of TensorFlow Lite cannot be exported";
        Error::malformed(
            &path,
            "the file",
            "no such file",
            "what config.json says of the model",
            remedy,
        )
    })
}

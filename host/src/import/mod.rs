//! Models as other programs store them.
//!
//! Every reader presents a [`Checkpoint`]: the hyperparameters, and tensors by their Hugging Face
//! names with rows in the order in which Hugging Face stores them, whatever the file's own names
//! and order are. [`open`] finds the reader. Files are read a row at a time, and are not trusted:
//! what is checked when a model is opened holds from then on.

mod encoding;
pub mod gguf;
pub mod hugging_face;
mod llama;
pub mod llama2c;
mod rope;
mod safetensors;
mod stored;
#[cfg(test)]
mod tests;

use crate::{Error, Result, tokenizer::GgufVocabulary};
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};
use stored::SourceFile;

pub use encoding::Encoding;
pub use llama::LlamaConfig;
pub use stored::StoredModel;

/// The shape and encoding of a tensor. A vector is one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Rows: outputs of a matrix, 1 for a vector.
    pub rows: u32,
    /// Columns: inputs of a matrix, length of a vector.
    pub columns: u32,
    /// How the numbers are stored.
    pub encoding: Encoding,
}

/// A model as another program stored it.
pub trait Checkpoint: fmt::Debug + Send + Sync {
    /// The hyperparameters.
    fn config(&self) -> &LlamaConfig;

    /// The shape and encoding of the tensor with this Hugging Face name.
    fn tensor(&self, name: &str) -> Option<TensorInfo>;

    /// Reads one row as floats; `out` has exactly as many elements as the tensor has columns.
    ///
    /// # Errors
    ///
    /// When there is no such row, `out` has another length, or the file cannot be read.
    fn read_row(&self, name: &str, row: u32, out: &mut [f32]) -> Result<()>;

    /// Reads one row as it is stored; `out` is resized to its length in bytes.
    ///
    /// # Errors
    ///
    /// When there is no such row, or the file cannot be read.
    fn read_row_bytes(&self, name: &str, row: u32, out: &mut Vec<u8>) -> Result<()>;

    /// The tokenizer stored with the model, if any.
    fn tokenizer(&self) -> Option<&TokenizerSource>;
}

/// A tokenizer as it is stored with a model.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizerSource {
    /// A `tokenizer.json`.
    HuggingFace(PathBuf),
    /// A `tokenizer.bin`.
    Llama2c(PathBuf),
    /// The metadata of a GGUF file.
    Gguf(GgufVocabulary),
}

/// A way in which models are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceFormat {
    /// A folder with `config.json` and safetensors files.
    HuggingFace,
    /// A GGUF file.
    Gguf,
    /// A llama2.c file, the legacy export.
    Llama2c,
}

/// A name that is no [`SourceFormat`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "source format: found {0:?}, expected huggingface, gguf or llama2c; use one of these names"
)]
pub struct UnknownSourceFormat(String);

impl fmt::Display for SourceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            SourceFormat::HuggingFace => "huggingface",
            SourceFormat::Gguf => "gguf",
            SourceFormat::Llama2c => "llama2c",
        })
    }
}

impl FromStr for SourceFormat {
    type Err = UnknownSourceFormat;

    fn from_str(name: &str) -> Result<Self, UnknownSourceFormat> {
        [SourceFormat::HuggingFace, SourceFormat::Gguf, SourceFormat::Llama2c]
            .into_iter()
            .find(|format| format.to_string() == name)
            .ok_or_else(|| UnknownSourceFormat(name.to_owned()))
    }
}

/// Opens the model at `path`, in the given format or the one that it looks to be in.
///
/// # Errors
///
/// When the files cannot be read, are in no known format, are malformed, or hold a model that is
/// not a plain Llama.
pub fn open(path: &Path, format: Option<SourceFormat>) -> Result<Box<dyn Checkpoint>> {
    let format = match format {
        Some(format) => format,
        None => detect(path)?,
    };
    Ok(Box::new(match format {
        SourceFormat::HuggingFace => hugging_face::open(path)?,
        SourceFormat::Gguf => gguf::open(path)?,
        SourceFormat::Llama2c => llama2c::open(path)?,
    }))
}

/// The format that the model at `path` looks to be in.
///
/// # Errors
/// A file that cannot be read, or looks like none of them.
pub fn detect(path: &Path) -> Result<SourceFormat> {
    if path.is_dir() {
        return Ok(SourceFormat::HuggingFace);
    }
    let file = SourceFile::open(path)?;
    let mut magic = [0; 4];
    if file.length >= 4 {
        file.read("the format", 0, &mut magic)?;
    }
    if magic == gguf::MAGIC {
        Ok(SourceFormat::Gguf)
    } else if llama2c::is_plausible(&file)? {
        Ok(SourceFormat::Llama2c)
    } else {
        Err(Error::malformed(
            path,
            "the format",
            format!("bytes {magic:02x?} at the start"),
            "a Hugging Face folder, a GGUF file or a llama2.c file",
            "for safetensors, give the folder that holds config.json",
        ))
    }
}

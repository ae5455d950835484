//! What all readers present: a model as another program stored it.

use super::encoding::Encoding;
use crate::Result;
use crate::tokenizer::GgufVocabulary;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The shape and encoding of a tensor. A vector is one row; of more than two dimensions, the last
/// is the columns and the others make the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Rows.
    pub rows: u32,
    /// Columns: the dimension in which neighbours lie side by side.
    pub columns: u32,
    /// How the numbers are stored.
    pub encoding: Encoding,
}

/// The fields of a model's description, as its program wrote them.
pub type Fields = Map<String, Value>;

/// What is settled of a graph's inputs, by their names, where its file leaves it open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphInputs {
    /// Dimensions.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Numbers of inputs that are no longer any.
    pub numbers: BTreeMap<String, f64>,
}

/// A model as another program stored it.
pub trait Container: fmt::Debug + Send + Sync {
    /// The format, which says what fields and tensors are called.
    fn format(&self) -> SourceFormat;

    /// The file that holds the hyperparameters.
    fn path(&self) -> &Path;

    /// The hyperparameters: `config.json`, a GGUF file's metadata without the vocabulary, llama2.c's
    /// header, or a checkpoint's `model_args`.
    fn config(&self) -> &Fields;

    /// The tensors' names.
    fn names(&self) -> Vec<String>;

    /// The file that holds a tensor.
    fn tensor_path(&self, name: &str) -> &Path;

    /// The shape and encoding of the tensor with this name.
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

    /// True if both names stand for one stored tensor, as those of tied matrices may.
    fn is_same(&self, name: &str, other: &str) -> bool {
        name == other && self.tensor(name).is_some()
    }

    /// The name that a tensor is listed under which the model's program may call otherwise, too.
    fn stored_name(&self, name: &str) -> Option<String> {
        self.tensor(name).map(|_| name.to_owned())
    }

    /// True if a tensor is what the model computes with, and not what its checkpoints have: a matrix with a row for
    /// each output, factors with all that is added to them.
    fn is_as_used(&self, _name: &str) -> bool {
        false
    }

    /// The tokenizer stored with the model, if any.
    fn tokenizer(&self) -> Option<&TokenizerSource>;

    /// What is settled of the inputs of a graph over tensors; none of other models.
    fn graph_inputs(&self) -> Option<&GraphInputs> {
        None
    }

    /// The files that hold hyperparameters and tensors; none of a model that no file holds.
    fn files(&self) -> Vec<&Path> {
        vec![]
    }

    /// Bytes that are kept while rows are read, besides those that are handed out.
    fn kept_bytes(&self) -> u64 {
        0
    }
}

/// A tokenizer as it is stored with a model.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizerSource {
    /// A `tokenizer.json`.
    HuggingFace(PathBuf),
    /// BERT's `vocab.txt`.
    Vocabulary(PathBuf),
    /// A `tokenizer.model` of SentencePiece, or tiktoken's ranks.
    Model(PathBuf),
    /// A `tokenizer.bin`.
    Llama2c(PathBuf),
    /// The metadata of a GGUF file.
    Gguf(GgufVocabulary),
}

impl TokenizerSource {
    /// The file that it lies in, unless that is the model's.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::HuggingFace(path)
            | Self::Vocabulary(path)
            | Self::Model(path)
            | Self::Llama2c(path) => Some(path),
            Self::Gguf(_) => None,
        }
    }
}

/// A way in which models are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceFormat {
    /// A folder with `config.json` and files of weights, or what is named as in one.
    HuggingFace,
    /// A GGUF file.
    Gguf,
    /// A llama2.c file, the legacy export.
    Llama2c,
    /// A TensorFlow Lite file.
    Tflite,
    /// A checkpoint of PyTorch.
    PyTorch,
    /// An ONNX file: a transformer beside a `config.json`, or a graph over tensors.
    Onnx,
}

impl SourceFormat {
    const ALL: [Self; 6] =
        [Self::HuggingFace, Self::Gguf, Self::Llama2c, Self::Tflite, Self::PyTorch, Self::Onnx];

    /// True if the hyperparameters are those of a `config.json`, with other settings beside it.
    pub(crate) fn has_config(self) -> bool {
        matches!(self, Self::HuggingFace | Self::Onnx)
    }
}

/// A name that is no [`SourceFormat`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "source format: found {0:?}, expected huggingface, gguf, llama2c, tflite, pytorch or onnx; use one of these names"
)]
pub struct UnknownSourceFormat(String);

impl fmt::Display for SourceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            SourceFormat::HuggingFace => "huggingface",
            SourceFormat::Gguf => "gguf",
            SourceFormat::Llama2c => "llama2c",
            SourceFormat::Tflite => "tflite",
            SourceFormat::PyTorch => "pytorch",
            SourceFormat::Onnx => "onnx",
        })
    }
}

impl FromStr for SourceFormat {
    type Err = UnknownSourceFormat;

    fn from_str(name: &str) -> Result<Self, UnknownSourceFormat> {
        SourceFormat::ALL
            .into_iter()
            .find(|format| format.to_string() == name)
            .ok_or_else(|| UnknownSourceFormat(name.to_owned()))
    }
}

//! `model.omex/`: the folder that holds a model.

mod index;
mod metadata;
pub mod validate;

pub use index::{FileEntry, TensorEntry, WeightIndex, parse_crc};
pub use metadata::{Architecture, Metadata, TokenIds};

use crate::compile::{Compiled, compile};
use crate::graph::Graph;
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// The version of the package format that this build writes; it reads any `0.4.x`.
pub const OMEX_VERSION: &str = "0.4.0";

/// A package whose JSON files were read and agree with one another and with the files' sizes.
/// Weights are checked page by page as they are used, or all at once by [`validate`].
#[derive(Clone, Debug)]
pub struct Package {
    /// The folder.
    pub path: PathBuf,
    /// `metadata.json`.
    pub metadata: Metadata,
    /// `graph.json`.
    pub graph: Graph,
    /// `weights/quantization.json`.
    pub index: WeightIndex,
    /// The program and the tensor table.
    pub compiled: Compiled,
}

impl Package {
    /// Reads a package.
    ///
    /// # Errors
    /// A file that is missing, malformed, or disagrees with another.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata_path = path.join("metadata.json");
        let metadata: Metadata = read_json(&metadata_path)?;
        if !metadata.omex_version.starts_with("0.4.") {
            return Err(Error::malformed(
                &metadata_path,
                "omex_version",
                &metadata.omex_version,
                "0.4.x",
                "convert the model again with this version",
            ));
        }
        let graph_path = path.join("graph.json");
        let graph: Graph = read_json(&graph_path)?;
        if graph.format != crate::graph::FORMAT {
            let found = graph.format.to_string();
            return Err(Error::malformed(&graph_path, "format", found, crate::graph::FORMAT.to_string(), CONVERT_AGAIN));
        }
        let index: WeightIndex = read_json(&path.join("weights/quantization.json"))?;
        index.check(path)?;
        let stop_tokens = &metadata.tokens.eos;
        let tensors = index.by_name();
        let compiled =
            compile(&graph, stop_tokens, |name, plane| tensors.get(&(name, plane)).copied());
        let compiled = compiled.map_err(|found| {
            let expected = "a graph over the tensors of weights/quantization.json";
            Error::malformed(&graph_path, "nodes", found, expected, CONVERT_AGAIN)
        })?;
        let package = Self { path: path.to_owned(), metadata, graph, index, compiled };
        package.program()?;
        Ok(package)
    }

    /// The program, checked.
    ///
    /// # Errors
    /// An operation that does not fit the values or tensors.
    pub fn program(&self) -> Result<omex_core::program::Program<'_>> {
        let Compiled { program, tensors, names } = &self.compiled;
        let space = 0..self.index.space();
        omex_core::program::Program::parse(program, tensors, space).map_err(|error| {
            let (field, found) = match error {
                omex_core::error::LoadError::Tensor(i) => {
                    (format!("tensor \"{}\"", names[i as usize].0), error.to_string())
                }
                _ => ("nodes".to_owned(), error.to_string()),
            };
            let expected = "operations that fit their values and tensors";
            Error::malformed(&self.path.join("graph.json"), field, found, expected, CONVERT_AGAIN)
        })
    }

    /// The compiled tokenizer, if the model has one.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn tokenizer_tables(&self) -> Result<Option<Vec<u8>>> {
        let path = self.path.join("tokenizer/tokenizer.bin");
        match std::fs::read(&path) {
            Ok(tables) => Ok(Some(tables)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(&path, "read", e)),
        }
    }
}

/// What to do about a package that does not hold together.
pub(crate) const CONVERT_AGAIN: &str = "the package is damaged: convert the model again";

/// The longest JSON file that is read.
const MAX_JSON_BYTES: u64 = 256 << 20;

/// Reads a JSON file into a type.
///
/// # Errors
/// A file that can't be read or is too long, or JSON of another shape, with line and column.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    read_json_reporting(path, &mut |_| {})
}

/// As [`read_json`], and reports the path of every field that the type does not know.
///
/// # Errors
/// Those of [`read_json`].
pub fn read_json_reporting<T: DeserializeOwned>(
    path: &Path,
    unknown: &mut dyn FnMut(String),
) -> Result<T> {
    let length = std::fs::metadata(path).map_err(|e| Error::io(path, "read", e))?.len();
    if length > MAX_JSON_BYTES {
        let expected = format!("at most {MAX_JSON_BYTES} bytes");
        return Err(Error::malformed(path, "length", length.to_string(), expected, CONVERT_AGAIN));
    }
    let text = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    let mut json = serde_json::Deserializer::from_slice(&text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let value = serde_ignored::deserialize(tracked, |field| unknown(field.to_string()));
    value.and_then(|value| json.end().map(|()| value)).map_err(|error| {
        let field = format!("{} (line {}, column {})", track.path(), error.line(), error.column());
        Error::malformed(path, field, error.to_string(), "JSON as in docs/format.md", CONVERT_AGAIN)
    })
}

//! Files of graphs over tensors, which are drawn as they are: their tensors come with the drawing.

use super::container::{Container, Fields, GraphInputs, SourceFormat, TensorInfo, TokenizerSource};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// A file of a graph.
#[derive(Debug)]
pub(super) struct GraphFile {
    pub(super) format: SourceFormat,
    pub(super) path: PathBuf,
    pub(super) fields: Fields,
    pub(super) inputs: GraphInputs,
}

impl GraphFile {
    pub(super) fn new(format: SourceFormat, path: &Path, inputs: &GraphInputs) -> Self {
        Self { format, path: path.to_owned(), fields: Fields::new(), inputs: inputs.clone() }
    }

    fn no_row(&self, name: &str) -> Error {
        Error::malformed(&self.path, name, "no rows", "a tensor of rows", "report this")
    }
}

impl Container for GraphFile {
    fn format(&self) -> SourceFormat {
        self.format
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn config(&self) -> &Fields {
        &self.fields
    }

    fn names(&self) -> Vec<String> {
        vec![]
    }

    fn tensor_path(&self, _: &str) -> &Path {
        &self.path
    }

    fn tensor(&self, _: &str) -> Option<TensorInfo> {
        None
    }

    fn read_row(&self, name: &str, _: u32, _: &mut [f32]) -> Result<()> {
        Err(self.no_row(name))
    }

    fn read_row_bytes(&self, name: &str, _: u32, _: &mut Vec<u8>) -> Result<()> {
        Err(self.no_row(name))
    }

    fn tokenizer(&self) -> Option<&TokenizerSource> {
        None
    }

    fn graph_inputs(&self) -> Option<&GraphInputs> {
        Some(&self.inputs)
    }

    fn files(&self) -> Vec<&Path> {
        vec![&self.path]
    }
}

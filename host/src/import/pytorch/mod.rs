//! Checkpoints of PyTorch: weights by name, and what else a program that trains keeps with them.

mod archive;
mod bytes;
mod checkpoint;
mod fields;
mod global;
mod pickle;
mod weights;

use super::container::Fields;
use super::source_file::SourceFile;
use super::stored::StoredTensor;
use crate::Result;
use std::collections::BTreeMap;

pub(super) use checkpoint::Checkpoint;

impl Checkpoint {
    /// Adds the weights of this checkpoint, which is the last of `files`, to `tensors`.
    pub(super) fn add_weights(
        &self,
        files: &[SourceFile],
        tensors: &mut BTreeMap<String, StoredTensor>,
    ) -> Result<()> {
        weights::add(self, files, tensors)
    }

    /// The dictionary `name`, as JSON.
    pub(super) fn fields(&self, name: &str) -> Option<Fields> {
        fields::fields(&self.pickle, name)
    }
}

/// Whether a file begins like a checkpoint.
pub(super) fn is_plausible(file: &SourceFile) -> Result<bool> {
    checkpoint::is_plausible(file)
}

/// Adds the tensors of the last of `files` to `tensors`.
pub(super) fn add_tensors(
    files: &[SourceFile],
    tensors: &mut BTreeMap<String, StoredTensor>,
) -> Result<()> {
    Checkpoint::read(&files[files.len() - 1])?.add_weights(files, tensors)
}

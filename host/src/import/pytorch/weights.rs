//! The weights in a checkpoint: which of its tensors they are, what they are called, where they lie.

use super::checkpoint::Checkpoint;
use super::global::Global;
use super::pickle::{Id, Node, Tensor};
use crate::Result;
use crate::import::encoding::Encoding;
use crate::import::source_file::SourceFile;
use crate::import::stored::StoredTensor;
use std::collections::BTreeMap;

/// What programs that train call the part of a checkpoint with the weights, in the order of trust.
const PARTS: [&str; 6] =
    ["state_dict", "model_state_dict", "model_state", "model", "module", "weights"];
/// What wrappers of a model put before all names: data parallelism, compilation.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];
/// How deep weights may lie.
const MAX_DEPTH: usize = 4;

/// Adds the tensors of the last of `files`, which is a checkpoint, to `tensors`.
///
/// # Errors
/// A checkpoint without weights, or whose weights are not what they must be.
pub(super) fn add(
    checkpoint: &Checkpoint,
    files: &[SourceFile],
    tensors: &mut BTreeMap<String, StoredTensor>,
) -> Result<()> {
    let number = files.len() - 1;
    let file = &files[number];
    let weights = named(checkpoint, file)?;
    let wrapped = wrappers(weights.iter().map(|(name, _)| *name));
    for (name, tensor) in weights {
        let name = &name[wrapped..];
        let stored = place(checkpoint, files, name, tensor)?;
        if tensors.insert(name.to_owned(), stored).is_some() {
            let remedy = "get the files again";
            return Err(file.malformed(name, "the tensor a second time", "it once", remedy));
        }
    }
    Ok(())
}

/// The weights with their names as they are written.
fn named<'c>(checkpoint: &'c Checkpoint, file: &SourceFile) -> Result<Vec<(&'c str, &'c Tensor)>> {
    let pickle = &checkpoint.pickle;
    let remedy = "save the weights alone, torch.save(model.state_dict(), FILE)";
    let part = part(checkpoint, pickle.root);
    let entries = part.and_then(|part| pickle.entries(part)).unwrap_or_default();
    let is_tensor = |id: &Id| matches!(pickle.get(*id), Node::Tensor(_));
    if !entries.values().any(is_tensor) {
        let keys: Vec<_> = entries.into_keys().take(10).collect();
        let found = if keys.is_empty() { "nothing by name".to_owned() } else { keys.join(", ") };
        let expected = format!("tensors by name, or a dictionary of them as {}", PARTS.join(", "));
        return Err(file.malformed("the checkpoint", found, expected, remedy));
    }
    let mut weights = Vec::new();
    for (name, id) in entries {
        match pickle.get(id) {
            Node::Tensor(tensor) => weights.push((name, &**tensor)),
            Node::None => {}
            _ => {
                let (found, expected) = ("no tensor", "a tensor, as all of a model's weights are");
                return Err(file.malformed(name, found, expected, remedy));
            }
        }
    }
    Ok(weights)
}

/// The dictionary with the weights: a part that is called so, or else all.
fn part(checkpoint: &Checkpoint, root: Id) -> Option<Id> {
    let pickle = &checkpoint.pickle;
    let mut at = root;
    for _ in 0..MAX_DEPTH {
        let entries = pickle.entries(at)?;
        let inner = PARTS.iter().filter_map(|part| entries.get(part));
        match inner.copied().find(|id| matches!(pickle.get(*id), Node::Dict(_))) {
            Some(inner) => at = inner,
            None => return Some(at),
        }
    }
    Some(at)
}

/// The length of what all names begin with because a wrapper put it there.
fn wrappers<'n>(names: impl Iterator<Item = &'n str> + Clone) -> usize {
    let mut length = 0;
    let wrapper = |length: usize| {
        let all = |wrapper: &&&str| {
            names.clone().all(|name| name.len() > length && name[length..].starts_with(**wrapper))
        };
        WRAPPERS.iter().find(all).map(|wrapper| wrapper.len())
    };
    while let Some(more) = wrapper(length) {
        length += more;
    }
    length
}

/// Where a tensor lies.
fn place(
    checkpoint: &Checkpoint,
    files: &[SourceFile],
    name: &str,
    tensor: &Tensor,
) -> Result<StoredTensor> {
    let file = files.len() - 1;
    let storage = &checkpoint.pickle.storages[tensor.storage];
    let span = checkpoint.places[tensor.storage].clone();
    let encoding = encoding(storage.kind, tensor.kind).ok_or_else(|| {
        let (found, expected) = ("no type", "a storage or a tensor with the type of its numbers");
        files[file].malformed(format!("dtype of {name}"), found, expected, super::archive::DAMAGED)
    })?;
    // A number without dimensions is a vector of one.
    let one = (&[1][..], &[1][..]);
    let shape = if tensor.shape.is_empty() && tensor.strides.is_empty() {
        one
    } else {
        (tensor.shape.as_slice(), tensor.strides.as_slice())
    };
    StoredTensor::view(files, (file, span), name, shape, encoding, tensor.start)
}

fn encoding(storage: Global, tensor: Option<Global>) -> Option<Encoding> {
    match (storage, tensor) {
        (_, Some(Global::Type(encoding, _))) | (Global::Storage(Some(encoding)), None) => {
            Some(encoding)
        }
        _ => None,
    }
}

//! Checkpoints of PyTorch as models: the weights, with hyperparameters from within or beside.

use super::StoredModel;
use super::container::{Fields, SourceFormat, TokenizerSource};
use super::pytorch::Checkpoint;
use super::source_file::SourceFile;
use super::{hugging_face, llama2c};
use crate::Result;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Opens a checkpoint. Its hyperparameters are its own `config` or, as in llama2.c's, `model_args`,
/// and otherwise those of the `config.json` beside it, where its tokenizer is looked for, too.
///
/// # Errors
/// A file that cannot be read or is no checkpoint; pickles that do anything but put together tensors
/// and plain values; no hyperparameters.
pub fn open(path: &Path) -> Result<StoredModel> {
    let files = vec![SourceFile::open(path)?];
    let checkpoint = Checkpoint::read(&files[0])?;
    let (format, path, config) = hyperparameters(&checkpoint, &files[0])?;
    let mut tensors = BTreeMap::new();
    checkpoint.add_weights(&files, &mut tensors)?;
    let tokenizer = tokenizer(&path, &config);
    let tiles = Default::default();
    let uses = Default::default();
    Ok(StoredModel { format, path, config, files, tensors, tokenizer, tiles, uses })
}

/// The hyperparameters, the file that holds them, and whose names they and the tensors have.
fn hyperparameters(
    checkpoint: &Checkpoint,
    file: &SourceFile,
) -> Result<(SourceFormat, PathBuf, Fields)> {
    let own = |name| checkpoint.fields(name);
    if let Some(config) = own("config").filter(|config| config.contains_key("model_type")) {
        return Ok((SourceFormat::HuggingFace, file.path.clone(), config));
    }
    if let Some(arguments) = own("model_args") {
        return Ok((SourceFormat::PyTorch, file.path.clone(), arguments));
    }
    let beside = file.path.with_file_name("config.json");
    if !beside.exists() {
        let (found, expected) = ("none", "config or model_args within, or a config.json beside");
        let remedy = "put the model's config.json into the checkpoint's folder";
        return Err(file.malformed("hyperparameters", found, expected, remedy));
    }
    let config = hugging_face::read_config(&beside)?;
    Ok((SourceFormat::HuggingFace, beside, config))
}

/// The tokenizer beside a checkpoint: one as in a folder of Hugging Face's, or else llama2.c's.
fn tokenizer(path: &Path, config: &Fields) -> Option<TokenizerSource> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let vocabulary = config.get("vocab_size").and_then(serde_json::Value::as_u64).unwrap_or(0);
    hugging_face::tokenizer(folder.unwrap_or(Path::new(".")))
        .or_else(|| llama2c::tokenizer_beside(path, vocabulary))
}

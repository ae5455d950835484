//! Hugging Face folders: `config.json`, safetensors files or PyTorch's, and perhaps `tokenizer.json`.

use super::StoredModel;
use super::container::{Fields, SourceFormat, TokenizerSource};
use super::source_file::SourceFile;
use super::stored::StoredTensor;
use super::{pytorch, safetensors};
use crate::{Error, Result, input};
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

/// The longest `config.json` that is read.
const MAX_CONFIG: u64 = 1 << 20;
/// The longest index that is read. Those of the largest models have some 10 MB.
const MAX_INDEX: u64 = 64 << 20;

/// A kind of files that weights lie in.
struct Kind {
    /// The file that holds all of them.
    single: &'static str,
    /// The file that says which of several holds what.
    index: &'static str,
    /// How the names of the several end.
    ending: &'static str,
    /// Adds the tensors of the last of these files.
    add: fn(&[SourceFile], &mut BTreeMap<String, StoredTensor>) -> Result<()>,
}

const SAFETENSORS: Kind = Kind {
    single: "model.safetensors",
    index: "model.safetensors.index.json",
    ending: ".safetensors",
    add: safetensors::add_tensors,
};

const PYTORCH: Kind = Kind {
    single: "pytorch_model.bin",
    index: "pytorch_model.bin.index.json",
    ending: ".bin",
    add: pytorch::add_tensors,
};

/// Opens the model in a folder.
///
/// Weights are in `model.safetensors`, or else in the files that `model.safetensors.index.json`
/// names, or else in all files that end in `.safetensors`, or else in `pytorch_model.bin` or the
/// files that `pytorch_model.bin.index.json` names.
///
/// # Errors
///
/// When files are missing or malformed.
pub fn open(folder: &Path) -> Result<StoredModel> {
    check_kind(folder)?;
    let path = folder.join("config.json");
    let config = read_config(&path)?;
    let (files, tensors) = open_weights(folder)?;
    let tokenizer = tokenizer(folder);
    let format = SourceFormat::HuggingFace;
    let tiles = Default::default();
    let uses = Default::default();
    Ok(StoredModel { format, path, config, files, tensors, tokenizer, tiles, uses })
}

/// The tokenizer in a folder.
pub(super) fn tokenizer(folder: &Path) -> Option<TokenizerSource> {
    let file = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    let models = ["tokenizer.model", "tiktoken.model", "qwen.tiktoken"];
    file("tokenizer.json")
        .map(TokenizerSource::HuggingFace)
        .or_else(|| models.into_iter().find_map(file).map(TokenizerSource::Model))
        .or_else(|| file("vocab.txt").map(TokenizerSource::Vocabulary))
}

/// Says what to do with a folder in the form in which Meta publishes Llamas.
fn check_kind(folder: &Path) -> Result<()> {
    if folder.join("config.json").exists() || !folder.join("params.json").exists() {
        return Ok(());
    }
    let (found, expected) = ("params.json, as Meta stores models", "config.json and safetensors");
    let remedy = "convert it with transformers' convert_llama_weights_to_hf.py, or get the same \
                  model for transformers";
    Err(Error::malformed(folder, "the folder", found, expected, remedy))
}

/// The fields of a `config.json`.
///
/// # Errors
///
/// When the file is missing, malformed, or no JSON object.
pub fn read_config(path: &Path) -> Result<Fields> {
    read_json(path, MAX_CONFIG)
}

fn read_json<T: DeserializeOwned>(path: &Path, max: u64) -> Result<T> {
    let file = SourceFile::open(path)?;
    if file.length > max {
        let (found, expected) = (format!("{} bytes", file.length), format!("at most {max}"));
        return Err(file.malformed("file length", found, expected, "get the file again"));
    }
    let mut bytes = vec![0; file.length as usize];
    file.read("the file", 0, &mut bytes)?;
    serde_json::from_slice(input::without_mark(&bytes)).map_err(|e| {
        file.malformed(
            "JSON",
            e.to_string(),
            "an object with certain fields",
            "correct the file, or get it again",
        )
    })
}

/// True if a folder has weights of a kind that is read from folders.
pub(super) fn has_weights(folder: &Path) -> Result<bool> {
    let mut named = [&SAFETENSORS, &PYTORCH].into_iter().flat_map(|kind| [kind.single, kind.index]);
    Ok(named.any(|name| folder.join(name).exists()) || !list_shards(folder)?.is_empty())
}

type Weights = (Vec<SourceFile>, BTreeMap<String, StoredTensor>);

fn open_weights(folder: &Path) -> Result<Weights> {
    if let Some(weights) = open_kind(&SAFETENSORS, folder)? {
        return Ok(weights);
    }
    let shards = list_shards(folder)?;
    if !shards.is_empty() {
        return read_shards(&SAFETENSORS, shards);
    }
    open_kind(&PYTORCH, folder)?.ok_or_else(|| {
        let remedy = "get the model as safetensors, or name the checkpoint itself";
        let (found, expected) = ("no weights", "model.safetensors or pytorch_model.bin");
        Error::malformed(folder, "the folder", found, expected, remedy)
    })
}

/// The weights in files of a kind that have their usual names, if they are there.
fn open_kind(kind: &Kind, folder: &Path) -> Result<Option<Weights>> {
    let [single, index] = [kind.single, kind.index].map(|name| folder.join(name));
    if single.exists() {
        return read_shards(kind, [single]).map(Some);
    }
    index.exists().then(|| open_index(kind, folder, &index)).transpose()
}

fn read_shards(kind: &Kind, paths: impl IntoIterator<Item = PathBuf>) -> Result<Weights> {
    let (mut files, mut tensors) = (Vec::new(), BTreeMap::new());
    for path in paths {
        files.push(SourceFile::open(&path)?);
        (kind.add)(&files, &mut tensors)?;
    }
    Ok((files, tensors))
}

/// The safetensors files of a folder, whatever they are called.
fn list_shards(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let failed = |e| Error::io(folder, "list", e);
    let mut paths = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            paths.insert(path);
        }
    }
    Ok(paths)
}

/// Says which file holds which tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens the shards that an index names, and checks that each holds the tensors that it should.
fn open_index(kind: &Kind, folder: &Path, index: &Path) -> Result<Weights> {
    let Index { weight_map } = read_json(index, MAX_INDEX)?;
    let mut shards = BTreeMap::new();
    for (tensor, shard) in &weight_map {
        if !is_plain_name(shard) || !shard.ends_with(kind.ending) {
            let expected = format!("the name of a {} file in the folder", kind.ending);
            let (field, remedy) = (format!("weight_map.{tensor}"), "get the file again");
            return Err(Error::malformed(index, field, shard, expected, remedy));
        }
        shards.entry(folder.join(shard)).or_insert_with(Vec::new).push(tensor);
    }
    if shards.is_empty() {
        let (found, expected) = ("no tensors", "at least one tensor");
        return Err(Error::malformed(index, "weight_map", found, expected, "get the file again"));
    }
    let (files, tensors) = read_shards(kind, shards.keys().cloned())?;
    for (shard, (path, names)) in shards.iter().enumerate() {
        let absent = |name: &&&String| tensors.get(**name).is_none_or(|t| t.file != shard);
        if let Some(name) = names.iter().find(absent) {
            let expected = format!("it here, as {} says", kind.index);
            return Err(Error::malformed(
                path,
                name.as_str(),
                "no tensor",
                expected,
                "get the shard again",
            ));
        }
    }
    Ok((files, tensors))
}

fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

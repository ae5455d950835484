//! ONNX files. Graphs of transformers, as exporters write them beside a `config.json`, are not run: their constants are
//! given the names that they have in the model's checkpoint, and laid as in it. Other graphs are drawn as they are.

mod graph;
pub(crate) mod model;
mod names;
mod place;
mod tensors;
mod weights;
mod wire;

use super::container::{Container, Fields, GraphInputs, SourceFormat};
use super::graph_file::GraphFile;
use super::hugging_face;
use super::quantized::with_matrices;
use super::source_file::SourceFile;
use super::stored::StoredModel;
use crate::durable::folder_of;
use crate::{Error, Result};
use graph::Graph;
pub(super) use graph::is_plausible;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tensors::Tensors;

/// What exporters call the file of a whole model, best first.
const WHOLE: [&str; 3] = ["model.onnx", "decoder_model_merged.onnx", "decoder_model.onnx"];
/// The folder that hubs' repositories keep such files in.
const FOLDER: &str = "onnx";

/// Opens the model in a file, or in a folder of files.
///
/// # Errors
/// A file that can't be read, or is damaged; of a transformer, numbers that lie outside of its
/// folder, or that are stored in a way that is not known.
pub(super) fn open(path: &Path, inputs: &GraphInputs) -> Result<Box<dyn Container>> {
    let path = if path.is_dir() { chosen(path)? } else { path.to_owned() };
    let file = SourceFile::open(&path)?;
    let graph = graph::read(&file)?;
    let Some((config_path, config)) = hyperparameters(&file, &graph)? else {
        return Ok(Box::new(GraphFile::new(SourceFormat::Onnx, &path, inputs)));
    };
    let beside = |path: &Path| hugging_face::tokenizer(folder_of(path));
    let tokenizer = beside(&config_path).or_else(|| beside(&path));
    let Tensors { files, tensors, linear, grouped, parts, uses, .. } = Tensors::of(&graph, file)?;
    let model = StoredModel {
        format: SourceFormat::Onnx,
        path: config_path,
        config,
        files: files.open,
        tensors,
        tokenizer,
        tiles: Default::default(),
        uses,
    };
    Ok(with_matrices(model, linear, grouped, parts))
}

/// The ONNX files in a folder, or else in the one within it that is meant for them.
pub(super) fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let of = |folder: &Path| -> Vec<PathBuf> {
        let files = folder.read_dir().into_iter().flatten().flatten().map(|file| file.path());
        let mut files: Vec<_> =
            files.filter(|file| file.extension().is_some_and(|e| e == "onnx")).collect();
        files.sort();
        files
    };
    let here = of(folder);
    if here.is_empty() { of(&folder.join(FOLDER)) } else { here }
}

/// The file of a folder that holds all of a model.
fn chosen(folder: &Path) -> Result<PathBuf> {
    let files = in_folder(folder);
    let called = |name: &&str| files.iter().find(|file| file.ends_with(name));
    match (WHOLE.iter().find_map(called), files.as_slice()) {
        (Some(file), _) | (None, [file]) => Ok(file.clone()),
        (None, []) => {
            let remedy = "name the folder or the file of a model";
            Err(Error::malformed(folder, "the folder", "no ONNX file", "one", remedy))
        }
        (None, files) => {
            let names = files.iter().filter_map(|file| file.file_name()?.to_str());
            let (found, expected) = (names.collect::<Vec<_>>().join(", "), WHOLE.join(" or "));
            let remedy = "name the file that is to be converted";
            Err(Error::malformed(folder, "the folder", found, expected, remedy))
        }
    }
}

/// The `config.json` beside a file or its folder, with the class that the graph is of.
fn hyperparameters(file: &SourceFile, graph: &Graph) -> Result<Option<(PathBuf, Fields)>> {
    let folder = folder_of(&file.path);
    let places = ["config.json", "../config.json"].map(|name| folder.join(name));
    let Some(path) = places.into_iter().find(|path| path.is_file()) else { return Ok(None) };
    let mut config = hugging_face::read_config(&path)?;
    // Exporters keep the file as it was, whether or not the head is exported.
    if !graph.outputs.iter().any(|name| name == "logits")
        && let Some(Value::Array(classes)) = config.get_mut("architectures")
    {
        for class in classes {
            let bare = class.as_str().and_then(|name| name.strip_suffix("ForMaskedLM"));
            if let Some(model) = bare.map(|bare| format!("{bare}Model")) {
                *class = model.into();
            }
        }
    }
    Ok(Some((path, config)))
}

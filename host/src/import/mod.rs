//! Models as other programs store them.
//!
//! Every reader presents a [`Container`]: the hyperparameters as they are written, and tensors by
//! the file's own names. What they mean is for [`crate::arch`] to know. [`open`] finds the reader.
//! Files are read a row at a time, and are not trusted: what is checked when a model is opened
//! holds from then on.

mod array;
mod blocks;
mod columns;
mod container;
mod encoding;
pub mod gguf;
mod graph_file;
pub mod hugging_face;
pub mod llama2c;
mod onnx;
mod pytorch;
pub mod pytorch_model;
mod quantized;
mod safetensors;
mod source_file;
mod stored;
pub mod tflite;
mod unconverted;

use crate::{Error, Result};
use graph_file::GraphFile;
use source_file::SourceFile;
use std::path::Path;

pub use array::{Array, Numbers};
pub(crate) use blocks::FP4;
pub use container::{
    Container, Fields, GraphInputs, SourceFormat, TensorInfo, TokenizerSource, UnknownSourceFormat,
};
pub use encoding::Encoding;
pub(crate) use onnx::model as onnx_model;
pub use stored::StoredModel;
pub use unconverted::model_name;
pub(crate) use unconverted::unconverted;

/// Opens the model at `path`, in the given format or the one that it looks to be in.
///
/// # Errors
///
/// When the files cannot be read, are in no known format, or are malformed.
pub fn open(path: &Path, format: Option<SourceFormat>) -> Result<Box<dyn Container>> {
    open_with(path, format, &GraphInputs::default())
}

/// As [`open`], with what is settled of a graph's inputs.
///
/// # Errors
/// As for [`open`].
pub fn open_with(
    path: &Path,
    format: Option<SourceFormat>,
    inputs: &GraphInputs,
) -> Result<Box<dyn Container>> {
    let format = match format {
        Some(format) => format,
        None => detect(path)?,
    };
    Ok(match format {
        SourceFormat::HuggingFace => quantized::decoded(hugging_face::open(path)?)?,
        SourceFormat::Gguf => Box::new(gguf::open(path)?),
        SourceFormat::Llama2c => Box::new(llama2c::open(path)?),
        SourceFormat::Tflite => {
            tflite::read(path)?;
            Box::new(GraphFile::new(SourceFormat::Tflite, path, inputs))
        }
        SourceFormat::PyTorch => quantized::decoded(pytorch_model::open(path)?)?,
        SourceFormat::Onnx => onnx::open(path, inputs)?,
    })
}

/// The bytes by which a FlatBuffer is known.
fn identifier(file: &SourceFile) -> Result<[u8; 4]> {
    let mut bytes = [0; 4];
    file.read("the format", 4, &mut bytes)?;
    Ok(bytes)
}

/// The format that the model at `path` looks to be in.
///
/// # Errors
/// A file that cannot be read, or looks like none of them.
pub fn detect(path: &Path) -> Result<SourceFormat> {
    if path.is_dir() {
        return of_folder(path);
    }
    let file = SourceFile::open(path)?;
    let mut magic = [0; 4];
    if file.length >= 4 {
        file.read("the format", 0, &mut magic)?;
    }
    if magic == gguf::MAGIC {
        Ok(SourceFormat::Gguf)
    } else if file.length >= 8 && identifier(&file)? == tflite::IDENTIFIER {
        Ok(SourceFormat::Tflite)
    } else if pytorch::is_plausible(&file)? {
        Ok(SourceFormat::PyTorch)
    } else if llama2c::is_plausible(&file)? {
        Ok(SourceFormat::Llama2c)
    } else if path.extension().is_some_and(|e| e == "onnx") || onnx::is_plausible(&file) {
        Ok(SourceFormat::Onnx)
    } else {
        Err(Error::malformed(
            path,
            "the format",
            format!("bytes {magic:02x?} at the start"),
            "a Hugging Face folder, a GGUF file or its parts, a PyTorch checkpoint, a llama2.c file, an ONNX \
             file or a TensorFlow Lite file",
            "for safetensors, give the folder that holds config.json",
        ))
    }
}

/// The format of a folder. An ONNX file beside weights of another kind was made of them.
fn of_folder(folder: &Path) -> Result<SourceFormat> {
    let has_config = folder.join("config.json").exists();
    Ok(match () {
        () if !has_config && !gguf::in_folder(folder)?.is_empty() => SourceFormat::Gguf,
        () if hugging_face::has_weights(folder)? => SourceFormat::HuggingFace,
        () if !onnx::in_folder(folder).is_empty() => SourceFormat::Onnx,
        () => SourceFormat::HuggingFace,
    })
}

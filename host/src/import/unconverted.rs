//! Models of other programs, named where a package or an image is expected.

use super::container::SourceFormat;
use super::{detect, gguf};
use crate::{Error, input};
use std::io::Read;
use std::path::{Path, PathBuf};

/// What is wrong with a path that holds a model of another program: it has to be converted, and how.
/// `None` if there is no such model.
pub(crate) fn unconverted(path: &Path) -> Option<Error> {
    let (found, model) = if path.is_dir() { in_folder(path)? } else { in_file(path)? };
    let remedy = match model {
        Some(model) => {
            let (from, to) = (quoted(&model.to_string_lossy()), quoted(&package_of(&model)));
            format!("convert it first: omex convert {from} --output-dir {to}")
        }
        None => "get the model as safetensors or GGUF, and convert that (omex convert)".to_owned(),
    };
    let expected = "a package or a flash image";
    Some(Error::malformed(path, "the model", found, expected, remedy))
}

/// What a folder is, and what of it can be converted.
fn in_folder(folder: &Path) -> Option<(&'static str, Option<PathBuf>)> {
    let with = |extension: &str| {
        let files = folder.read_dir().into_iter().flatten().flatten().map(|file| file.path());
        files.filter(|file| file.extension().is_some_and(|e| e == extension)).min()
    };
    if folder.join("config.json").is_file() {
        return Some(("a Hugging Face folder", Some(folder.to_owned())));
    }
    if folder.join("params.json").is_file() {
        return Some(("a folder as Meta stores models", None));
    }
    let gguf = with("gguf").map(|file| ("a folder with a GGUF file", Some(file)));
    gguf.or_else(|| with("safetensors").map(|_| ("safetensors without a config.json", None)))
}

/// What a file is, and what of it, or around it, can be converted.
fn in_file(file: &Path) -> Option<(&'static str, Option<PathBuf>)> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).to_owned();
    let folder = folder.join("config.json").exists().then_some(folder);
    match (file.extension().and_then(|extension| extension.to_str()), folder) {
        (Some("safetensors"), folder) => return Some(("weights of a Hugging Face folder", folder)),
        (Some("json"), Some(folder)) => {
            return Some(("a file of a Hugging Face folder", Some(folder)));
        }
        _ => {}
    }
    let mut start = [0; 4];
    input::open(file).ok()?.read_exact(&mut start).ok()?;
    if start == *b"PK\x03\x04" {
        return Some(("a PyTorch checkpoint, or another zip archive", Some(file.to_owned())));
    }
    let what = match detect(file).ok()? {
        SourceFormat::Gguf => "a GGUF file",
        SourceFormat::Tflite => "a TensorFlow Lite file",
        SourceFormat::Llama2c => "a llama2.c file",
        SourceFormat::PyTorch => "a PyTorch checkpoint",
        SourceFormat::Onnx => "an ONNX file",
        SourceFormat::HuggingFace => return None,
    };
    Some((what, Some(file.to_owned())))
}

/// The package that a model becomes, by convention.
fn package_of(model: &Path) -> String {
    format!("{}.omex", model_name(model))
}

/// What a model is called: its folder's name, or its file's without the extension, and without the
/// number if it is a part. In a cache of the Hugging Face hub, a folder is called by its revision, and
/// the model as its repository is.
#[must_use]
pub fn model_name(model: &Path) -> String {
    let name = if model.is_dir() { folder_name(model) } else { file_name(model) };
    name.unwrap_or_else(|| "model".to_owned())
}

fn file_name(file: &Path) -> Option<String> {
    let without_number = gguf::model_name(file);
    Some(without_number.or(file.file_stem()?.to_str())?.to_owned())
}

fn folder_name(folder: &Path) -> Option<String> {
    let path = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let snapshots = path.parent().filter(|parent| parent.ends_with("snapshots"));
    let repository = snapshots.and_then(|snapshots| name(snapshots.parent()?));
    let repository = repository.filter(|name| name.starts_with("models--"));
    match repository.as_deref().and_then(|name| name.rsplit("--").next()) {
        Some(repository) => Some(repository.to_owned()),
        None => name(&path),
    }
}

/// A word as it is typed into a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+,=:@%".contains(c);
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(plain) {
        return word.to_owned();
    }
    let word = if word.starts_with('-') { format!("./{word}") } else { word.to_owned() };
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_typed_so_that_a_shell_gives_them_back() {
        for (word, typed) in [
            ("models/a-1.gguf", "models/a-1.gguf"),
            ("my models/a", "'my models/a'"),
            ("it's", r"'it'\''s'"),
            ("-x.gguf", "'./-x.gguf'"),
        ] {
            assert_eq!(quoted(word), typed);
        }
    }

    #[test]
    fn a_folder_is_called_by_its_whole_name() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("Llama-3.2-1B");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("w.q8.gguf"), "").unwrap();
        assert_eq!(model_name(&model), "Llama-3.2-1B");
        assert_eq!(model_name(&model.join("w.q8.gguf")), "w.q8");
        assert_eq!(model_name(&model.join("w-q8-00002-of-00010.gguf")), "w-q8");
        assert_eq!(model_name(&model.join("w-2-of-10.gguf")), "w-2-of-10");
    }

    #[test]
    fn a_model_in_a_cache_of_the_hub_is_called_as_its_repository() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("models--org--Llama-3.2-1B");
        let (snapshot, blob) = (repository.join("snapshots/0a1b"), repository.join("blobs/77"));
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
        std::fs::write(&blob, "").unwrap();
        std::os::unix::fs::symlink(&blob, snapshot.join("w.q8.gguf")).unwrap();
        assert_eq!(model_name(&snapshot), "Llama-3.2-1B");
        assert_eq!(model_name(&snapshot.join("w.q8.gguf")), "w.q8");
    }
}

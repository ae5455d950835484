//! Models that are split into several GGUF files, as llama.cpp's gguf-split does it: their names are
//! `NAME-00001-of-00003.gguf` and so on.

use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The most names that an error lists.
const LISTED: usize = 5;

/// What the name of a part says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Part<'n> {
    /// What comes before the number.
    name: &'n str,
    /// From 1 on.
    number: u32,
    count: u32,
}

impl<'n> Part<'n> {
    /// Reads the name of a file.
    fn of(path: &'n Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = name.rsplit_once("-of-")?;
        let (name, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| {
            let plain = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| plain)
        };
        Some(Self { name, number: digits(number)?, count: digits(count)? })
    }

    fn file(self, number: u32) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.name, self.count)
    }
}

/// What a model is called whose file this is: without the number of a part.
pub(in crate::import) fn model_name(path: &Path) -> Option<&str> {
    Part::of(path).map(|part| part.name)
}

/// All parts of a model with so many, of which `path` is one.
pub(super) fn all(path: &Path, count: u32) -> Result<Vec<PathBuf>> {
    let Some(part) = Part::of(path).filter(|part| part.count == count) else {
        let expected = format!("NAME-00001-of-{count:05}.gguf or another number of a part");
        let found = format!("one of {count} parts (split.count)");
        let remedy = "give the parts their names back, or merge them with llama-gguf-split --merge";
        return Err(Error::malformed(path, "the file's name", found, expected, remedy));
    };
    let paths: Vec<_> = (1..=count).map(|number| path.with_file_name(part.file(number))).collect();
    let missing = (1..).zip(&paths).filter(|(_, path)| !path.is_file());
    let missing: Vec<_> = missing.map(|(number, _)| part.file(number)).collect();
    if missing.is_empty() {
        return Ok(paths);
    }
    let more = missing.len().saturating_sub(LISTED);
    let mut found = format!("no {}", missing[..missing.len() - more].join(", "));
    if more > 0 {
        found += &format!(" and {more} others");
    }
    let expected = format!("all {count} parts in one folder");
    Err(Error::malformed(path, "the parts", found, expected, "get the missing ones, too"))
}

/// The GGUF file of a folder, or the first part of the one model in it.
pub(super) fn of_folder(folder: &Path) -> Result<PathBuf> {
    let files = in_folder(folder)?;
    let model = |path: &PathBuf| match Part::of(path) {
        Some(part) => part.file(1),
        None => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let mut models: Vec<_> = files.iter().map(model).collect();
    models.sort_unstable();
    models.dedup();
    match (files.into_iter().next(), models.as_slice()) {
        (Some(first), [_]) => Ok(first),
        (None, _) => {
            let remedy = "name the model's file, or its folder";
            Err(Error::malformed(folder, "the folder", "no GGUF file", "one", remedy))
        }
        (Some(_), several) => {
            let listed = several.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
            let found = format!("{} models: {listed}", several.len());
            Err(Error::malformed(folder, "the folder", found, "one GGUF model", "name one of them"))
        }
    }
}

/// The GGUF files of a folder.
pub(in crate::import) fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(folder, "list", e);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "gguf") {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

//! What a model is shown.

use crate::npy::Array;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The most samples that are read.
const MAX_SAMPLES: usize = 4096;

/// The arrays of all `.npy` files of a folder, in the order of their names; or those that a file has along its first
/// dimension.
///
/// # Errors
/// Files that can't be read; none.
pub fn samples(path: &Path) -> Result<Vec<(PathBuf, Array)>> {
    let found = if path.is_dir() { of_folder(path)? } else { of_file(path)? };
    if found.is_empty() || found.len() > MAX_SAMPLES {
        let (found, expected) = (format!("{} samples", found.len()), format!("1 to {MAX_SAMPLES}"));
        let remedy = "give a folder of .npy files, or one whose first dimension counts samples";
        return Err(Error::malformed(path, "samples", found, expected, remedy));
    }
    Ok(found)
}

fn of_folder(path: &Path) -> Result<Vec<(PathBuf, Array)>> {
    let failed = |error| Error::io(path, "read", error);
    let mut files = vec![];
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension().is_some_and(|extension| extension == "npy") {
            files.push(file);
        }
    }
    files.sort();
    files.into_iter().map(|file| Ok((file.clone(), Array::read(&file)?))).collect()
}

fn of_file(path: &Path) -> Result<Vec<(PathBuf, Array)>> {
    let Array { element, shape, bytes } = Array::read(path)?;
    let Some((count, shape)) = shape.split_first() else { return Ok(vec![]) };
    let size = bytes.len().checked_div(*count).unwrap_or(0).max(1);
    let sample = |bytes: &[u8]| Array { element, shape: shape.to_vec(), bytes: bytes.to_vec() };
    Ok(bytes.chunks(size).map(|bytes| (path.to_owned(), sample(bytes))).collect())
}

//! Why a pass failed, in words of the files that it read.

use crate::Error;
use crate::pager::Space;
use omex_core::error::RunError;
use std::path::Path;

/// Says what an error of a pass means, with the file and the place in it.
pub(super) fn failure_of(path: &Path, space: &Space, error: RunError) -> Error {
    match error {
        RunError::Page(error) => {
            let (file, offset) = space.place(error.page);
            Error::Page { file: file.to_owned(), offset, error }
        }
        error => Error::Run { path: path.to_owned(), error },
    }
}

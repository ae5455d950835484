//! A file of another program's, read at any place.

use crate::{Error, Result, input};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An open file that never reads past the length it had when it was opened.
#[derive(Debug)]
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) length: u64,
}

impl SourceFile {
    /// Opens a regular file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = input::open(path)?;
        let length = file.metadata().map_err(|e| Error::io(path, "read", e))?.len();
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// Fills `out` from `offset` on; `field` says what is there, should it be missing.
    pub(super) fn read(&self, field: &str, offset: u64, out: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(out, offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.malformed(
                field,
                "the end of the file",
                format!("{} bytes from byte {offset} on", out.len()),
                "the file is cut short: get it again",
            ),
            _ => Error::io(&self.path, "read", e),
        })
    }

    /// A field of this file that does not hold what it must.
    pub(super) fn malformed(
        &self,
        field: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Error {
        Error::malformed(&self.path, field, found, expected, remedy)
    }
}

//! Where the host gets pages from: mapped files, or reads into a ring.

mod mapped;
mod read;

pub use mapped::MappedPager;
pub use read::ReadPager;

use crate::{Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Files that form one paged space, one after another.
#[derive(Clone, Debug)]
pub struct Space {
    /// The files and their lengths; all but the last are whole pages.
    pub files: Vec<(PathBuf, u64)>,
    /// Bytes a page.
    pub page_size: u32,
}

impl Space {
    /// Bytes of all files.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.files.iter().map(|(_, length)| length).sum()
    }

    /// The file that a page lies in, and where it begins there.
    #[must_use]
    pub fn place(&self, page: u32) -> (&Path, u64) {
        let mut offset = u64::from(page) * u64::from(self.page_size);
        let mut file = Path::new("");
        for (path, length) in &self.files {
            file = path;
            if offset < *length {
                break;
            }
            offset -= length;
        }
        (file, offset)
    }

    fn pages(&self) -> u32 {
        u32::try_from(self.length().div_ceil(u64::from(self.page_size))).unwrap_or(u32::MAX)
    }
}

/// Opens a file that must have this length.
fn open(path: &Path, length: u64) -> Result<File> {
    let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
    let found = file.metadata().map_err(|e| Error::io(path, "read", e))?.len();
    if found != length {
        let remedy = "it changed while it was opened: try again";
        let (found, expected) = (format!("{found} bytes"), format!("{length} bytes"));
        return Err(Error::malformed(path, "length", found, expected, remedy));
    }
    Ok(file)
}

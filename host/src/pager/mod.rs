//! Where the host gets pages from: mapped files, or tiles that are pinned or stream through a ring.

mod bus_error;
mod mapped;
mod reader;
mod region;
mod returned;
mod stream;
mod threads;
mod tiles;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod uring;

pub use bus_error::guard_mapped_files;
pub use mapped::MappedPager;
pub(crate) use reader::{Buffer, buffer};
pub use reader::{Read, Reader};
pub(crate) use region::aside_bytes;
pub use stream::{Progress, StreamPager};
pub use tiles::Tiles;
pub(crate) use tiles::aside;

use crate::{Error, Result, input};
use serde::Serialize;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that form one paged space, one after another.
#[derive(Clone, Debug)]
pub struct Space {
    /// The files and their lengths; all but the last are whole pages.
    pub files: Vec<(PathBuf, u64)>,
    /// Bytes a page.
    pub page_size: u32,
    /// The files in the same order, if they are open already: their names may be others' by now.
    pub open: Vec<Arc<File>>,
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

/// Where pages come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PageSource {
    /// Mapped files.
    #[default]
    Mmap,
    /// Direct reads through io_uring (Linux on 64-bit machines).
    Uring,
    /// Direct reads by threads.
    Direct,
    /// Reads through the system's cache, which keeps nothing.
    Read,
}

impl PageSource {
    /// The name by which it is chosen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mmap => "mmap",
            Self::Uring => "uring",
            Self::Direct => "direct",
            Self::Read => "read",
        }
    }
}

impl fmt::Display for PageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mmap => "mapped",
            Self::Uring => "direct reads, io_uring",
            Self::Direct => "direct reads, threads",
            Self::Read => "buffered reads, threads",
        })
    }
}

/// A reader for at most `depth` reads at a time: the wanted one, or the best that works here.
///
/// # Errors
/// A file that can't be opened, or a wanted source that this system does not have.
pub fn open_reader(
    space: &Space,
    wanted: Option<PageSource>,
    depth: usize,
) -> Result<(Box<dyn Reader>, PageSource)> {
    let open = |source| -> Result<Box<dyn Reader>> {
        Ok(match source {
            #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
            PageSource::Uring => Box::new(uring::UringReader::new(space, depth)?),
            #[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
            PageSource::Uring => {
                let unsupported = std::io::ErrorKind::Unsupported.into();
                return Err(Error::io(Path::new("io_uring"), "set up", unsupported));
            }
            PageSource::Direct => Box::new(threads::ThreadReader::new(space, depth, true)?),
            _ => Box::new(threads::ThreadReader::new(space, depth, false)?),
        })
    };
    if let Some(source) = wanted {
        return open(source).map(|reader| (reader, source));
    }
    let best = [PageSource::Uring, PageSource::Direct];
    let found = best.into_iter().find_map(|source| Some((open(source).ok()?, source)));
    match found {
        Some(found) => Ok(found),
        None => open(PageSource::Read).map(|reader| (reader, PageSource::Read)),
    }
}

/// Opens the file of a space with this number, which must have the length that the space says.
fn open(space: &Space, number: usize) -> Result<Arc<File>> {
    let (path, length) = &space.files[number];
    let file = match space.open.get(number) {
        Some(file) => Arc::clone(file),
        None => Arc::new(input::open(path)?),
    };
    let found = file.metadata().map_err(|e| Error::io(path, "read", e))?.len();
    if found != *length {
        let remedy = "it changed while it was opened: try again";
        let (found, expected) = (format!("{found} bytes"), format!("{length} bytes"));
        return Err(Error::malformed(path, "length", found, expected, remedy));
    }
    Ok(file)
}

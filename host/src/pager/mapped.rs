//! Mapped files: nothing is copied, and the operating system decides what stays in memory.
#![expect(unsafe_code, reason = "mapping a file")]

use super::bus_error::Watched;
use super::{Space, open};
use crate::plan::RunPrecision;
use crate::{Error, Result};
use memmap2::Mmap;
use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// Pages of mapped files. A piece reaches to the end of its file. A file that is cut short while it
/// is in use ends the process, but for those that asked for [`super::guard_mapped_files`].
pub struct MappedPager {
    geometry: PageGeometry,
    maps: Vec<Mapped>,
}

struct Mapped {
    /// Of the paged space.
    first_page: u32,
    bytes: Watched,
    file: Arc<File>,
    stamp: Option<Stamp>,
}

/// What tells that a file's bytes may have changed.
#[derive(PartialEq)]
struct Stamp {
    modified: (i64, i64),
    /// Unlike the time before, nobody can set it back.
    changed: (i64, i64),
    names: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            names: metadata.nlink(),
        }
    }

    /// True if the bytes of a file with another stamp must be taken for others. A name that came or
    /// went, as when another package takes this one's place, changes the second time alone.
    fn differs(&self, found: &Self) -> bool {
        self.modified != found.modified
            || self.changed != found.changed && self.names == found.names
    }
}

impl Mapped {
    /// Says how the file is no longer what it was when it was mapped.
    fn change(&self) -> Option<PageErrorKind> {
        match self.file.metadata() {
            Ok(found) if found.len() < self.bytes.len() as u64 => Some(PageErrorKind::Truncated),
            Ok(_) if self.bytes.is_lost() => Some(PageErrorKind::Device),
            Ok(found) if self.differs(&found) => Some(PageErrorKind::Changed),
            Ok(_) => None,
            Err(_) => Some(PageErrorKind::Device),
        }
    }

    fn differs(&self, found: &Metadata) -> bool {
        self.stamp.as_ref().is_none_or(|stamp| stamp.differs(&Stamp::of(found)))
    }
}

impl MappedPager {
    /// Maps the files.
    ///
    /// # Errors
    /// A file that can't be mapped, or has another length.
    pub fn new(space: &Space, precision: RunPrecision) -> Result<Self> {
        let geometry = PageGeometry { page_size: space.page_size, pages: space.pages() };
        let mut first = 0u64;
        let mut maps = vec![];
        for (number, (path, length)) in space.files.iter().enumerate() {
            let file = open(space, number)?;
            let stamp = file.metadata().ok().map(|found| Stamp::of(&found));
            // SAFETY: the mapping is read-only and shared with whoever writes to the file. What
            // another program changes meanwhile, or cuts off, is other bytes, never invalid ones:
            // each page is checked when it is first used, and `intact` tells later.
            let map = unsafe { Mmap::map(&*file) }.map_err(|e| Error::io(path, "map", e))?;
            // A wish, for files that are not in memory yet: large pages, where the file system has
            // them, unless these would hold planes that nobody reads.
            #[cfg(target_os = "linux")]
            let _ = map.advise(match precision {
                RunPrecision::Base => memmap2::Advice::NoHugePage,
                RunPrecision::Full | RunPrecision::Auto => memmap2::Advice::HugePage,
            });
            let first_page = u32::try_from(first).unwrap_or(u32::MAX);
            maps.push(Mapped { first_page, bytes: Watched::new(map), file, stamp });
            first += length / u64::from(space.page_size);
        }
        Ok(Self { geometry, maps })
    }
}

impl Pager for MappedPager {
    fn geometry(&self) -> PageGeometry {
        self.geometry
    }

    fn is_stable(&self, _page: u32) -> bool {
        true
    }

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        let out_of_range = PageError { page, kind: PageErrorKind::OutOfRange };
        let file = self.maps.partition_point(|map| map.first_page <= page).checked_sub(1);
        let map = file.and_then(|i| self.maps.get(i)).ok_or(out_of_range)?;
        let offset = (page - map.first_page) as usize * self.geometry.page_size as usize;
        map.bytes.get(offset..).filter(|bytes| !bytes.is_empty()).ok_or(out_of_range)
    }

    fn discard(&mut self, _page: u32) {}

    fn intact(&self) -> Result<(), PageError> {
        let changed = |map: &Mapped| Some(PageError { page: map.first_page, kind: map.change()? });
        self.maps.iter().find_map(changed).map_or(Ok(()), Err)
    }
}

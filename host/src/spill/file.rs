//! The file that KV caches are spilled to: it has no name, and goes with the process.

use crate::{Error, Result};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where spilled caches lie. Positions and lengths are multiples of [`super::size::BLOCK`].
pub trait SpillFile: Send {
    /// Reads as many bytes as there is room for.
    ///
    /// # Errors
    /// The operating system's.
    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

/// A file whose bytes the system does not keep in memory.
pub(super) struct UnnamedFile {
    file: File,
    /// Reads and writes go past the system's cache.
    direct: bool,
}

impl UnnamedFile {
    /// Makes a file of `length` bytes in a folder, which is made too if there is none.
    ///
    /// # Errors
    /// A folder that can't be written to, has too little room, or lies in memory.
    pub(super) fn new(folder: &Path, length: u64) -> Result<Self> {
        let failed = |e| Error::io(folder, "make a file for keys and values in", e);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let file = tempfile::tempfile_in(folder).map_err(failed)?;
        if in_memory(&file) {
            return Err(Error::Usage(format!(
                "{}: keys and values would be spilled to a folder that lies in memory; set \
                 XDG_CACHE_HOME to a folder on a disk",
                folder.display()
            )));
        }
        reserve(&file, length).map_err(|e| {
            Error::io(folder, "reserve room for spilled keys and values (see omex plan) in", e)
        })?;
        let direct = go_past_the_cache(&file);
        Ok(Self { file, direct })
    }

    /// Has the system drop what it keeps of these bytes.
    fn forget(&self, offset: u64, length: usize) {
        #[cfg(target_os = "linux")]
        if !self.direct {
            let length = std::num::NonZeroU64::new(length as u64);
            // Where the system keeps the bytes, they are only in the way.
            let _ = rustix::fs::fadvise(&self.file, offset, length, rustix::fs::Advice::DontNeed);
        }
    }
}

impl SpillFile for UnnamedFile {
    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)?;
        self.forget(offset, bytes.len());
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        if !self.direct {
            // The system drops only what is on the disk.
            self.file.sync_data()?;
            self.forget(offset, bytes.len());
        }
        Ok(())
    }
}

/// True if a file's bytes lie in memory.
#[cfg(target_os = "linux")]
fn in_memory(file: &File) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    rustix::fs::fstatfs(file).is_ok_and(|fs| [TMPFS, RAMFS].contains(&(fs.f_type as u64)))
}

/// Gives a file its length, and the room for it where the file system can.
#[cfg(target_os = "linux")]
fn reserve(file: &File, length: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(length),
        result => Ok(result?),
    }
}

/// Has reads and writes go past the system's cache; false if the file system refuses.
#[cfg(target_os = "linux")]
fn go_past_the_cache(file: &File) -> bool {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let Ok(flags) = fcntl_getfl(file) else { return false };
    let mut block = match crate::pager::buffer(super::size::BLOCK) {
        Ok(block) if fcntl_setfl(file, flags | OFlags::DIRECT).is_ok() => block,
        _ => return false,
    };
    // Some file systems refuse only now.
    let works = file.write_all_at(&block, 0).and_then(|()| file.read_exact_at(&mut block, 0));
    works.is_ok() || fcntl_setfl(file, flags).is_err()
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_: &File) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn reserve(file: &File, length: u64) -> io::Result<()> {
    file.set_len(length)
}

#[cfg(not(target_os = "linux"))]
fn go_past_the_cache(_: &File) -> bool {
    false
}

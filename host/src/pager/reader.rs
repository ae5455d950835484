//! Reads from files that go on while the engine computes.

use super::{Space, open};
use crate::{Error, Result};
use memmap2::MmapMut;
use omex_hal::PageErrorKind;
use std::fs::File;
use std::io;
#[cfg(target_os = "linux")]
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// What positions, lengths and buffers of direct reads are multiples of.
pub(super) const ALIGNMENT: usize = 4096;

/// Memory that a read fills, on a multiple of [`ALIGNMENT`].
pub(crate) type Buffer = MmapMut;

/// Memory of its own, zeroed and not used up before it is written to; in huge pages where the
/// system has them, since direct reads into many small ones are half as fast.
///
/// # Errors
/// The system's, if it has no address space left.
pub(crate) fn buffer(length: usize) -> io::Result<Buffer> {
    let buffer = MmapMut::map_anon(length.next_multiple_of(ALIGNMENT))?;
    // A wish: without huge pages it works as well, more slowly.
    #[cfg(target_os = "linux")]
    let _ = buffer.advise(memmap2::Advice::HugePage);
    Ok(buffer)
}

/// A read of consecutive bytes. It owns the memory that it fills until it is done.
#[derive(Debug)]
pub struct Read {
    /// Tells reads apart.
    pub(super) id: u64,
    /// Number of the file.
    pub(super) file: usize,
    /// Where in the file the buffer's first byte comes from.
    pub(super) offset: u64,
    pub(super) buffer: Buffer,
    /// Bytes of the buffer that were read before.
    pub(super) filled: usize,
    /// Bytes that are wanted.
    pub(super) needed: usize,
    /// Tries that brought nothing.
    pub(super) failures: u32,
}

impl Read {
    /// Tells reads apart; a read that goes on keeps its number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Number of the file that is read, and the first byte there.
    #[must_use]
    pub fn place(&self) -> (usize, u64) {
        (self.file, self.offset)
    }

    /// Bytes that are wanted in all.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.needed as u64
    }

    /// Bytes of the buffer still to be filled: whole multiples of [`ALIGNMENT`].
    pub(super) fn rest(&mut self) -> &mut [u8] {
        let end = self.needed.next_multiple_of(ALIGNMENT);
        self.buffer.get_mut(self.filled..end).unwrap_or_default()
    }

    /// The bytes wanted, as far as they were read; a test may change them here.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let end = self.needed.min(self.buffer.len());
        &mut self.buffer[..end]
    }
}

/// What has become of a read, and the memory that it fills.
pub(super) enum State {
    /// It is under way, with this number.
    Reading(u64),
    /// It is done.
    Ready(Buffer),
    /// It failed, or what it brought is not wanted.
    Failed(PageErrorKind, Buffer),
}

impl State {
    pub(super) fn is_reading(&self) -> bool {
        matches!(self, Self::Reading(_))
    }

    /// True if the read with this number is under way.
    pub(super) fn is_read(&self, id: u64) -> bool {
        matches!(self, Self::Reading(own) if *own == id)
    }

    /// What was read.
    pub(super) fn buffer(&self) -> Option<&Buffer> {
        match self {
            Self::Ready(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// The memory of a read that failed, for the next try.
    pub(super) fn take_failed(&mut self) -> Option<Buffer> {
        match std::mem::replace(self, Self::Reading(0)) {
            Self::Failed(_, buffer) => Some(buffer),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Has what was read count as damaged; true if there was something.
    pub(super) fn discard(&mut self) -> bool {
        match std::mem::replace(self, Self::Reading(0)) {
            Self::Ready(buffer) => {
                *self = Self::Failed(PageErrorKind::Checksum, buffer);
                true
            }
            other => {
                *self = other;
                false
            }
        }
    }
}

/// Runs reads, several at a time, in any order.
pub trait Reader: Send {
    /// Is shown the memory that most reads will fill, before the first of them.
    fn register(&mut self, _buffers: &mut [Buffer]) {}

    /// Begins a read. Its failure is told by [`Reader::wait`].
    fn submit(&mut self, read: Read);

    /// Waits until a read is done, and says how many bytes it brought; `None` if none is under way.
    fn wait(&mut self) -> Option<(Read, io::Result<usize>)>;

    /// As [`Reader::wait`] for a read that is done already; never blocks. A reader that can't tell
    /// says `None`.
    fn poll(&mut self) -> Option<(Read, io::Result<usize>)> {
        None
    }
}

/// The files of a space, past the system's cache if `direct`.
///
/// # Errors
/// A file that can't be opened, has another length, or can't be read directly.
pub(super) fn open_files(space: &Space, direct: bool) -> Result<Vec<Arc<File>>> {
    let files = (0..space.files.len()).map(|number| {
        let file = open(space, number)?;
        if direct { past_the_cache(&file, &space.files[number].0).map(Arc::new) } else { Ok(file) }
    });
    files.collect()
}

/// Opens a file anew for direct reads, and tries one: some file systems refuse only then.
#[cfg(target_os = "linux")]
fn past_the_cache(open: &File, path: &Path) -> Result<File> {
    use std::os::{fd::AsRawFd, unix::fs::FileExt};
    let failed = |e| Error::io(path, "read past the system's cache (see --pages)", e);
    // By its descriptor, since its name may be another's; where the system has no such names, by
    // its own.
    let file = open_direct(Path::new(&format!("/proc/self/fd/{}", open.as_raw_fd())));
    let file = file.or_else(|_| open_direct(path)).map_err(failed)?;
    let place = |file: &File| file.metadata().map(|m| (m.dev(), m.ino())).map_err(failed);
    if place(&file)? != place(open)? {
        return Err(failed(io::Error::other("another file took its place: try again")));
    }
    buffer(ALIGNMENT).and_then(|mut page| file.read_at(&mut page, 0)).map_err(failed)?;
    Ok(file)
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::DIRECT.bits() as i32;
    File::options().read(true).custom_flags(flags).open(path)
}

#[cfg(not(target_os = "linux"))]
fn past_the_cache(_open: &File, path: &Path) -> Result<File> {
    let unsupported = io::ErrorKind::Unsupported.into();
    Err(Error::io(path, "read past the system's cache (see --pages)", unsupported))
}

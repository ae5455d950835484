//! Reads that the kernel works off by itself (io_uring): one call submits and waits.
#![expect(unsafe_code, reason = "the kernel writes into buffers while a read is under way")]

use super::Space;
use super::reader::{Buffer, Read, Reader, buffer, open_files};
use crate::{Error, Result};
use io_uring::{IoUring, opcode, types};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

/// Waits that may bring nothing, one after another, before the ring has failed; those that a signal
/// interrupts aside.
const RETRIES: u32 = 1000;
/// The time between two of them.
const PAUSE: Duration = Duration::from_millis(1);

/// Reads through a ring that is shared with the kernel.
pub(super) struct UringReader {
    ring: IoUring,
    files: Vec<Arc<File>>,
    /// Addresses of buffers that the kernel knows by their places here.
    registered: Vec<usize>,
    /// Reads that the kernel works on: the place is the number that it knows them by.
    under_way: Vec<Option<Read>>,
    /// Reads that could not be submitted.
    refused: VecDeque<(Read, io::Error)>,
    /// The kernel answers no more.
    failed: bool,
}

impl UringReader {
    /// Opens the files for direct reads, at most `depth` at a time.
    ///
    /// # Errors
    /// A system without io_uring, or that forbids it; a file that can't be opened.
    pub(super) fn new(space: &Space, depth: usize) -> Result<Self> {
        let failed = |e| Error::io(std::path::Path::new("io_uring"), "set up", e);
        let entries = u32::try_from(depth.next_power_of_two()).unwrap_or(u32::MAX);
        let ring = IoUring::new(entries).map_err(failed)?;
        let files = open_files(space, true)?;
        let descriptors: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
        ring.submitter().register_files(&descriptors).map_err(failed)?;
        let under_way = (0..depth).map(|_| None).collect();
        let registered = vec![];
        let refused = VecDeque::with_capacity(depth);
        Ok(Self { ring, files, registered, under_way, refused, failed: false })
    }

    fn try_submit(&mut self, mut read: Read) -> Result<(), (Read, io::Error)> {
        let Some(place) = self.under_way.iter().position(Option::is_none) else {
            return Err((read, io::ErrorKind::QuotaExceeded.into()));
        };
        if self.failed {
            return Err((read, io::ErrorKind::NotConnected.into()));
        }
        if read.file >= self.files.len() {
            return Err((read, io::ErrorKind::NotFound.into()));
        }
        let offset = read.offset + read.filled as u64;
        let file = types::Fixed(read.file as u32);
        let bytes = read.rest();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let start = bytes.as_mut_ptr();
        let address = read.buffer.as_ptr().addr();
        let entry = match self.registered.iter().position(|known| *known == address) {
            Some(known) => {
                opcode::ReadFixed::new(file, start, length, known as u16).offset(offset).build()
            }
            None => opcode::Read::new(file, start, length).offset(offset).build(),
        };
        // SAFETY: the buffer is owned by the read, which stays in `under_way` until the kernel is
        // done with it; moving the read does not move the mapping.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(place as u64)) };
        if pushed.is_err() {
            return Err((read, io::ErrorKind::QuotaExceeded.into()));
        }
        if let Some(free) = self.under_way.get_mut(place) {
            *free = Some(read);
        }
        // What the kernel does not take now, it takes with the next call.
        let _ = self.ring.submit();
        Ok(())
    }

    /// Fails what is under way. The kernel may write into those buffers still, so they are left to
    /// it, and reads get others.
    fn give_up(&mut self) {
        self.failed = true;
        for mut read in self.under_way.iter_mut().filter_map(Option::take) {
            match buffer(read.buffer.len()) {
                Ok(other) => {
                    std::mem::forget(std::mem::replace(&mut read.buffer, other));
                    self.refused.push_back((read, io::ErrorKind::NotConnected.into()));
                }
                Err(_) => std::mem::forget(read),
            }
        }
    }

    fn completed(&mut self) -> Option<(Read, io::Result<usize>)> {
        let entry = self.ring.completion().next()?;
        let read = self.under_way.get_mut(entry.user_data() as usize)?.take()?;
        let result = usize::try_from(entry.result())
            .map_err(|_| io::Error::from_raw_os_error(-entry.result()));
        Some((read, result))
    }
}

impl Reader for UringReader {
    /// Spares the kernel looking up the memory for every read, where it lets so much be locked.
    fn register(&mut self, buffers: &mut [Buffer]) {
        let known = buffers.iter_mut().map(|buffer| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        });
        let known: Vec<_> = known.collect();
        // SAFETY: the pager keeps the buffers as long as the reader; one that it gave back all the
        // same would only be read into in vain, as the kernel keeps its memory.
        if unsafe { self.ring.submitter().register_buffers(&known) }.is_ok() {
            self.registered = buffers.iter().map(|buffer| buffer.as_ptr().addr()).collect();
        }
    }

    fn submit(&mut self, read: Read) {
        if let Err(refused) = self.try_submit(read) {
            self.refused.push_back(refused);
        }
    }

    fn wait(&mut self) -> Option<(Read, io::Result<usize>)> {
        let mut failures = 0;
        while failures < RETRIES {
            if let Some(done) = self.poll() {
                return Some(done);
            }
            if self.under_way.iter().all(Option::is_none) {
                return None;
            }
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) => failures += 1,
                Err(_) => {
                    failures += 1;
                    std::thread::sleep(PAUSE);
                }
            }
        }
        self.give_up();
        self.poll()
    }

    fn poll(&mut self) -> Option<(Read, io::Result<usize>)> {
        let refused = self.refused.pop_front().map(|(read, error)| (read, Err(error)));
        refused.or_else(|| self.completed())
    }
}

impl Drop for UringReader {
    fn drop(&mut self) {
        // The kernel writes into the buffers until the last read is done.
        while self.wait().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pager::reader::ALIGNMENT;
    use std::io::Write;

    #[test]
    fn a_ring_that_always_fails_fails_its_reads() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 4 * ALIGNMENT]).unwrap();
        let files = vec![(file.path().to_owned(), 4 * ALIGNMENT as u64)];
        let space = Space { files, page_size: ALIGNMENT as u32, open: vec![] };
        let mut reader = match UringReader::new(&space, 2) {
            Ok(reader) => reader,
            Err(error) => return println!("skipped: {error}"),
        };
        let other = File::open("/dev/null").unwrap();
        // SAFETY: the ring's descriptor now names what is no ring.
        unsafe { libc::dup2(other.as_raw_fd(), reader.ring.as_raw_fd()) };
        for id in 1..=3 {
            let buffer = buffer(ALIGNMENT).unwrap();
            let (needed, offset) = (ALIGNMENT, 0);
            reader.submit(Read { id, file: 0, offset, buffer, filled: 0, needed, failures: 0 });
        }
        let mut failed: Vec<_> = std::iter::from_fn(|| reader.wait()).collect();
        failed.sort_by_key(|(read, _)| read.id);
        assert_eq!(failed.iter().map(|(read, _)| read.id).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(failed.iter().all(|(read, result)| result.is_err() && !read.buffer.is_empty()));
        // From now on reads fail at once.
        let (read, _) = failed.remove(0);
        reader.submit(read);
        assert!(reader.poll().is_some_and(|(read, result)| read.id == 1 && result.is_err()));
    }
}

//! The thread that moves caches between memory and the file while the engine computes.

use super::file::SpillFile;
use super::{BLOCK, cache_bytes};
use crate::pager::Buffer;
use omex_core::kv::Shape;
use omex_core::kv_store::KvErrorKind;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

/// Some places of a cache in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Number of the cache among those in the file.
    pub(super) slot: u32,
    pub(super) places: Range<u32>,
}

/// What is to be done with a buffer: what changed in it is written, then another cache is read.
pub(super) struct Job {
    pub(super) buffer: Buffer,
    pub(super) write: Option<Part>,
    pub(super) read: Part,
}

/// A buffer that a cache was read into, or the slot that failed.
pub(super) struct Done {
    pub(super) buffer: Buffer,
    pub(super) result: Result<(), (u32, KvErrorKind)>,
}

/// The file, which a test may replace while the thread waits.
pub(super) type SharedFile = Arc<Mutex<Box<dyn SpillFile>>>;

/// Moves caches of one shape.
pub(super) struct Worker {
    shape: Shape,
    file: SharedFile,
    crc32c: fn(u32, &[u8]) -> u32,
    /// Of every block of the file that was written.
    checksums: Vec<u32>,
    bytes_read: Arc<AtomicU64>,
    /// Room for the ranges of one part.
    ranges: Vec<Range<usize>>,
}

impl Worker {
    /// A worker for `slots` caches in the file.
    pub(super) fn new(
        shape: Shape,
        slots: u32,
        file: SharedFile,
        crc32c: fn(u32, &[u8]) -> u32,
        bytes_read: Arc<AtomicU64>,
    ) -> Self {
        let blocks = slots as usize * (cache_bytes(&shape) / BLOCK);
        let ranges = Vec::with_capacity(4 * shape.heads as usize);
        Self { shape, file, crc32c, checksums: vec![0; blocks], bytes_read, ranges }
    }

    /// Works jobs off, in order, until there will be no more.
    pub(super) fn run(mut self, jobs: &Receiver<Job>, done: &SyncSender<Done>) {
        for Job { mut buffer, write, read } in jobs {
            let written = write.map_or(Ok(()), |part| self.write(&buffer, &part));
            let result = written.and_then(|()| self.read(&mut buffer, &read));
            if done.send(Done { buffer, result }).is_err() {
                return;
            }
        }
    }

    fn write(&mut self, buffer: &[u8], part: &Part) -> Result<(), (u32, KvErrorKind)> {
        self.find_blocks(&part.places);
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        for range in &self.ranges {
            let bytes = buffer.get(range.clone()).unwrap_or_default();
            let checksums = self.checksums.get_mut(of(&self.shape, part.slot, range));
            for (sum, block) in checksums.into_iter().flatten().zip(bytes.chunks(BLOCK)) {
                *sum = (self.crc32c)(0, block);
            }
            let written = file.write(bytes, offset(&self.shape, part.slot, range));
            written.map_err(|_| (part.slot, KvErrorKind::Write))?;
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], part: &Part) -> Result<(), (u32, KvErrorKind)> {
        self.find_blocks(&part.places);
        for range in &self.ranges {
            let bytes = buffer.get_mut(range.clone()).unwrap_or_default();
            let read = self.read_once(bytes, part.slot, range);
            let read = read.or_else(|_| self.read_once(bytes, part.slot, range));
            read.map_err(|kind| (part.slot, kind))?;
        }
        Ok(())
    }

    fn read_once(
        &self,
        bytes: &mut [u8],
        slot: u32,
        range: &Range<usize>,
    ) -> Result<(), KvErrorKind> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.read(bytes, offset(&self.shape, slot, range)).map_err(|_| KvErrorKind::Read)?;
        self.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let checksums = self.checksums.get(of(&self.shape, slot, range)).unwrap_or_default();
        let mut blocks = bytes.chunks(BLOCK).zip(checksums);
        let matches = blocks.all(|(block, expected)| (self.crc32c)(0, block) == *expected);
        if matches { Ok(()) } else { Err(KvErrorKind::Checksum) }
    }

    /// The blocks that some places lie in, as ranges of a cache's bytes.
    fn find_blocks(&mut self, places: &Range<u32>) {
        let blocks =
            |range: Range<usize>| range.start / BLOCK * BLOCK..range.end.next_multiple_of(BLOCK);
        self.ranges.clear();
        self.ranges.extend(self.shape.ranges(places.clone()).map(blocks));
        self.ranges.sort_unstable_by_key(|range| range.start);
        self.ranges.dedup_by(|next, last| {
            let joins = next.start <= last.end;
            if joins {
                last.end = last.end.max(next.end);
            }
            joins
        });
    }
}

/// Which checksums are those of a range of a cache's bytes.
fn of(shape: &Shape, slot: u32, range: &Range<usize>) -> Range<usize> {
    let first = slot as usize * (cache_bytes(shape) / BLOCK);
    first + range.start / BLOCK..first + range.end / BLOCK
}

/// Where in the file a range of a cache's bytes begins.
fn offset(shape: &Shape, slot: u32, range: &Range<usize>) -> u64 {
    u64::from(slot) * cache_bytes(shape) as u64 + range.start as u64
}

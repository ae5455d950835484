//! The thread that moves caches between memory and the file while the engine computes.

use super::file::SpillFile;
use super::size::{BLOCK, cache_bytes, tail_blocks};
use super::tails::Tails;
use crate::pager::Buffer;
use omex_core::state::KvErrorKind;
use omex_core::state::kv::KvShape;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

/// Some places of a cache that lies in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CachePlaces {
    /// Number of the cache among those in the file.
    pub(super) slot: u32,
    pub(super) places: Range<u32>,
}

/// What is to be done with a buffer: what changed in it is written, then another cache is read.
pub(super) struct Job {
    pub(super) buffer: Buffer,
    pub(super) write: Option<CachePlaces>,
    pub(super) read: CachePlaces,
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
    shape: KvShape,
    file: SharedFile,
    crc32c: fn(u32, &[u8]) -> u32,
    /// Of every block of the file that was written.
    checksums: Vec<u32>,
    tails: Tails,
    bytes_read: Arc<AtomicU64>,
    /// Blocks of the places that are moved, and of the last of them.
    blocks: Vec<u32>,
    newest: Vec<u32>,
}

impl Worker {
    /// A worker for `slots` caches in the file.
    ///
    /// # Errors
    /// No address space is left.
    pub(super) fn new(
        shape: KvShape,
        slots: u32,
        file: SharedFile,
        crc32c: fn(u32, &[u8]) -> u32,
        bytes_read: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let (blocks, ranges) = (cache_bytes(&shape) / BLOCK, shape.ranges(0..1).count());
        let tails = Tails::new(slots, tail_blocks(&shape))?;
        Ok(Self {
            shape,
            file,
            crc32c,
            checksums: vec![0; slots as usize * blocks],
            tails,
            bytes_read,
            // Ranges may begin and end in the same blocks.
            blocks: Vec::with_capacity(blocks + ranges),
            newest: Vec::with_capacity(2 * ranges),
        })
    }

    /// Works jobs off, in order, until there will be no more.
    pub(super) fn run(mut self, jobs: &Receiver<Job>, done: &SyncSender<Done>) {
        for job in jobs {
            if done.send(self.work(job)).is_err() {
                return;
            }
        }
    }

    /// Works one job off.
    pub(super) fn work(&mut self, Job { mut buffer, write, read }: Job) -> Done {
        let written = write.map_or(Ok(()), |write| {
            self.write(&buffer, &write).map_err(|_| (write.slot, KvErrorKind::Write))
        });
        let result =
            written.and_then(|()| self.read(&mut buffer, &read).map_err(|kind| (read.slot, kind)));
        Done { buffer, result }
    }

    /// Writes the blocks that changed, but for those of the last place.
    fn write(&mut self, cache: &[u8], changed: &CachePlaces) -> io::Result<()> {
        let CachePlaces { slot, places } = changed;
        find_blocks(&self.shape, places.clone(), &mut self.blocks);
        find_blocks(&self.shape, places.end.saturating_sub(1)..places.end, &mut self.newest);
        let first = self.first_block(*slot);
        let Self { file, checksums, crc32c, tails, blocks, newest, .. } = self;
        let file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut put = |block: u32, bytes: &[u8]| {
            let number = first + block as usize;
            let checksums = checksums.iter_mut().skip(number);
            checksums.zip(bytes.chunks(BLOCK)).for_each(|(sum, block)| *sum = crc32c(0, block));
            file.write(bytes, (number * BLOCK) as u64)
        };
        for (block, bytes) in tails.of(*slot) {
            if blocks.binary_search(&block).is_err() {
                put(block, bytes)?;
            }
        }
        tails.keep(*slot, newest, cache);
        blocks.retain(|block| !tails.hold(*slot, *block));
        let mut runs = runs(blocks);
        runs.try_for_each(|(block, range)| put(block, cache.get(range).unwrap_or_default()))
    }

    /// Reads the blocks of some places.
    fn read(&mut self, cache: &mut [u8], wanted: &CachePlaces) -> Result<(), KvErrorKind> {
        let CachePlaces { slot, places } = wanted;
        find_blocks(&self.shape, places.clone(), &mut self.blocks);
        self.blocks.retain(|block| !self.tails.hold(*slot, *block));
        for (block, range) in runs(&self.blocks) {
            let bytes = cache.get_mut(range).unwrap_or_default();
            let number = self.first_block(*slot) + block as usize;
            self.read_once(bytes, number).or_else(|_| self.read_once(bytes, number))?;
        }
        self.tails.copy_to(*slot, cache);
        Ok(())
    }

    /// Reads blocks of the file from this one on, and checks them.
    fn read_once(&self, bytes: &mut [u8], number: usize) -> Result<(), KvErrorKind> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.read(bytes, (number * BLOCK) as u64).map_err(|_| KvErrorKind::Read)?;
        self.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut blocks = bytes.chunks(BLOCK).zip(self.checksums.iter().skip(number));
        let matches = blocks.all(|(block, expected)| (self.crc32c)(0, block) == *expected);
        if matches { Ok(()) } else { Err(KvErrorKind::Checksum) }
    }

    /// The first block of a cache in the file.
    fn first_block(&self, slot: u32) -> usize {
        slot as usize * (cache_bytes(&self.shape) / BLOCK)
    }
}

/// Finds the blocks that some places of a cache lie in: their numbers, in order.
fn find_blocks(shape: &KvShape, places: Range<u32>, blocks: &mut Vec<u32>) {
    blocks.clear();
    for range in shape.ranges(places) {
        blocks.extend((range.start / BLOCK) as u32..range.end.div_ceil(BLOCK) as u32);
    }
    blocks.sort_unstable();
    blocks.dedup();
}

/// Blocks that lie one after another: the first one, and their bytes' range.
fn runs(blocks: &[u32]) -> impl Iterator<Item = (u32, Range<usize>)> {
    blocks.chunk_by(|block, next| block + 1 == *next).filter_map(|run| {
        let start = *run.first()? as usize * BLOCK;
        Some((*run.first()?, start..start + run.len() * BLOCK))
    })
}

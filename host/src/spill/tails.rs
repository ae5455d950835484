//! The blocks that hold the newest place of each spilled cache. The place after it lies in the same
//! ones most of the time: they stay in memory until the text has moved on, or every token would
//! write each of them anew.

use super::size::BLOCK;
use crate::pager::{Buffer, buffer};
use std::io;

/// The newest blocks of each cache in the file, which may be newer than the file's.
pub(super) struct Tails {
    /// The most blocks of a cache.
    capacity: usize,
    /// Numbers of the blocks of each cache, in order.
    blocks: Vec<Vec<u32>>,
    bytes: Buffer,
}

impl Tails {
    /// Room for `capacity` blocks of each of `slots` caches.
    ///
    /// # Errors
    /// No address space is left.
    pub(super) fn new(slots: u32, capacity: usize) -> io::Result<Self> {
        let blocks = (0..slots).map(|_| Vec::with_capacity(capacity)).collect();
        Ok(Self { capacity, blocks, bytes: buffer(slots as usize * capacity * BLOCK)? })
    }

    /// A cache's blocks: their numbers and bytes.
    pub(super) fn of(&self, slot: u32) -> impl Iterator<Item = (u32, &[u8])> {
        let bytes = self.bytes.chunks(BLOCK).skip(slot as usize * self.capacity);
        self.numbers(slot).iter().copied().zip(bytes)
    }

    /// True if a block is one of a cache's.
    pub(super) fn hold(&self, slot: u32, block: u32) -> bool {
        self.numbers(slot).contains(&block)
    }

    fn numbers(&self, slot: u32) -> &[u32] {
        self.blocks.get(slot as usize).map_or(&[], Vec::as_slice)
    }

    /// Keeps as many of these blocks of a cache as there is room for, instead of those before.
    pub(super) fn keep(&mut self, slot: u32, blocks: &[u32], cache: &[u8]) {
        let Some(numbers) = self.blocks.get_mut(slot as usize) else { return };
        numbers.clear();
        let places = self.bytes.chunks_mut(BLOCK).skip(slot as usize * self.capacity);
        for (block, place) in blocks.iter().zip(places.take(self.capacity)) {
            if let Some(bytes) = cache.chunks(BLOCK).nth(*block as usize) {
                place.copy_from_slice(bytes);
                numbers.push(*block);
            }
        }
    }

    /// Puts a cache's blocks where they belong in its bytes.
    pub(super) fn copy_to(&self, slot: u32, cache: &mut [u8]) {
        for (block, bytes) in self.of(slot) {
            if let Some(place) = cache.chunks_mut(BLOCK).nth(block as usize) {
                place.copy_from_slice(bytes);
            }
        }
    }
}

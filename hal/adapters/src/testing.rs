//! A device in memory that remembers what was read.

use crate::buffered::{Storage, StorageError};

/// Bytes without a period that a page could hide.
pub(crate) fn weights<const N: usize>() -> [u8; N] {
    core::array::from_fn(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3])
}

/// A device of whole 4-byte words that keeps a list of its reads.
#[derive(Debug)]
pub(crate) struct Disk<'a> {
    bytes: &'a [u8],
    reads: [(u64, usize); 64],
    count: usize,
    wanted: [u64; 16],
    wants: usize,
    /// Reads that touch this byte fail.
    pub(crate) broken: Option<u64>,
}

impl<'a> Disk<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let (reads, wanted) = ([(0, 0); 64], [0; 16]);
        Self { bytes, reads, count: 0, wanted, wants: 0, broken: None }
    }

    /// Offset and length of the first reads.
    pub(crate) fn reads(&self) -> &[(u64, usize)] {
        &self.reads[..self.count]
    }

    /// Offsets of the first hints.
    pub(crate) fn wanted(&self) -> &[u64] {
        &self.wanted[..self.wants]
    }

    /// Fills `out` and keeps no list.
    pub(crate) fn copy(&self, offset: u64, out: &mut [u8]) -> Result<(), StorageError> {
        let end = offset + out.len() as u64;
        if self.broken.is_some_and(|at| (offset..end).contains(&at)) {
            return Err(StorageError::Device);
        }
        let padded = self.bytes.len().next_multiple_of(4) as u64;
        if end > padded {
            return Err(StorageError::End);
        }
        let rest = &self.bytes[offset as usize..];
        let length = rest.len().min(out.len());
        out[..length].copy_from_slice(&rest[..length]);
        Ok(())
    }
}

impl Storage for Disk<'_> {
    const READ_BYTES: u32 = 4;

    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), StorageError> {
        assert!(offset.is_multiple_of(4) && out.len().is_multiple_of(4));
        if self.count < self.reads.len() {
            self.reads[self.count] = (offset, out.len());
            self.count += 1;
        }
        self.copy(offset, out)
    }

    fn want(&mut self, offset: u64) {
        if self.wants < self.wanted.len() {
            self.wanted[self.wants] = offset;
            self.wants += 1;
        }
    }
}

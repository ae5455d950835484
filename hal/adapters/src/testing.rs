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
    /// Reads that touch this byte fail.
    pub(crate) broken: Option<u64>,
}

impl<'a> Disk<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, reads: [(0, 0); 64], count: 0, broken: None }
    }

    /// Offset and length of the first reads.
    pub(crate) fn reads(&self) -> &[(u64, usize)] {
        &self.reads[..self.count]
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

//! Devices of 512-byte blocks: SD cards, eMMC, USB sticks.

use crate::buffered::{Storage, StorageError};
use core::cell::RefCell;

/// Bytes a block.
pub const BLOCK_BYTES: usize = 512;

/// A block's bytes.
pub type Block = [u8; BLOCK_BYTES];

/// A device that is read in blocks.
pub trait BlockDevice {
    /// Reads consecutive blocks, beginning with block number `first`, in one command where the
    /// device has one.
    ///
    /// # Errors
    /// [`StorageError::End`] for a block past the end; [`StorageError::Device`] for all else.
    fn read_blocks(&mut self, first: u32, out: &mut [Block]) -> Result<(), StorageError>;

    /// Hints that the next read begins with this block; see [`Storage::want`].
    fn want(&mut self, _first: u32) {}
}

impl<D: BlockDevice> BlockDevice for &mut D {
    fn read_blocks(&mut self, first: u32, out: &mut [Block]) -> Result<(), StorageError> {
        (**self).read_blocks(first, out)
    }

    fn want(&mut self, first: u32) {
        (**self).want(first);
    }
}

/// A device that several parts of a program read in turns.
impl<D: BlockDevice> BlockDevice for &RefCell<D> {
    fn read_blocks(&mut self, first: u32, out: &mut [Block]) -> Result<(), StorageError> {
        self.try_borrow_mut().map_err(|_| StorageError::Device)?.read_blocks(first, out)
    }

    fn want(&mut self, first: u32) {
        if let Ok(mut device) = self.try_borrow_mut() {
            device.want(first);
        }
    }
}

/// A [`BlockDevice`] as [`Storage`].
#[derive(Clone, Copy, Debug)]
pub struct Blocks<D>(pub D);

impl<D: BlockDevice> Storage for Blocks<D> {
    const READ_BYTES: u32 = BLOCK_BYTES as u32;

    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), StorageError> {
        let first = u32::try_from(offset / BLOCK_BYTES as u64).map_err(|_| StorageError::End)?;
        let (blocks, _) = out.as_chunks_mut();
        self.0.read_blocks(first, blocks)
    }

    fn want(&mut self, offset: u64) {
        if let Ok(first) = u32::try_from(offset / BLOCK_BYTES as u64) {
            self.0.want(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::weights;
    use crate::{BufferedPager, conformance};

    /// A card whose last block is padded with zeros.
    struct Card<'a>(&'a [u8]);

    impl BlockDevice for Card<'_> {
        fn read_blocks(&mut self, first: u32, out: &mut [Block]) -> Result<(), StorageError> {
            for (number, block) in (first as usize..).zip(out) {
                let bytes = self.0.get(number * BLOCK_BYTES..).filter(|b| !b.is_empty());
                let bytes = bytes.ok_or(StorageError::End)?;
                let length = bytes.len().min(BLOCK_BYTES);
                block.fill(0);
                block[..length].copy_from_slice(&bytes[..length]);
            }
            Ok(())
        }
    }

    #[test]
    fn conforms() {
        let weights = weights::<5000>();
        for page_size in [512, 1024, 2048] {
            let mut memory = [0; 4096];
            let card = RefCell::new(Card(&weights));
            let mut pager =
                BufferedPager::new(Blocks(&card), &mut memory, page_size, 5000).unwrap();
            assert_eq!(conformance::check(&mut pager, &weights), Ok(()));
        }
    }

    #[test]
    fn a_block_past_32_bits_does_not_exist() {
        let read = Blocks(Card(&[])).read(1 << 41, &mut [0; BLOCK_BYTES]);
        assert_eq!(read, Err(StorageError::End));
    }
}

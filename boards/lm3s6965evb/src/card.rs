//! The SD card, shared by those who read it, and how much they read.

use crate::failure::Failure;
use crate::spi::{Select, Spi};
use core::cell::{Cell, RefCell};
use omex_core::image::{HEADER_BYTES, Header};
use omex_core::simd::PORTABLE;
use omex_hal_adapters::{BLOCK_BYTES, Block, BlockDevice, SdCard, SdCardError, StorageError};

/// The card.
pub struct Card {
    device: RefCell<SdCard<Spi, Select>>,
    bytes_read: Cell<u64>,
}

impl Card {
    /// Starts the card in the board's socket.
    ///
    /// # Errors
    /// A card that is absent, or does not start.
    pub fn start() -> Result<Self, SdCardError> {
        let (spi, select) = crate::spi::start();
        let mut card = SdCard::start(spi, select)?;
        card.bus().speed_up();
        Ok(Self { device: RefCell::new(card), bytes_read: Cell::new(0) })
    }

    /// Bytes read since the start.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }

    /// Reads consecutive blocks.
    ///
    /// # Errors
    /// The card's.
    pub fn read(&self, first: u32, out: &mut [Block]) -> Result<(), StorageError> {
        self.bytes_read.set(self.bytes_read.get() + (out.len() * BLOCK_BYTES) as u64);
        (&self.device).read_blocks(first, out)
    }

    /// The header of the image, which begins with the card.
    ///
    /// # Errors
    /// The card's, or no image.
    #[inline(never)] // The block is off the stack again before the engine needs it.
    pub fn header(&self) -> Result<Header, Failure> {
        let mut block = [[0; BLOCK_BYTES]];
        self.read(0, &mut block)?;
        let bytes = block.as_flattened().first_chunk::<HEADER_BYTES>().ok_or(StorageError::End)?;
        Header::parse(bytes, PORTABLE.crc32c).map_err(|e| Failure::Load(e, None))
    }
}

impl BlockDevice for &Card {
    fn read_blocks(&mut self, first: u32, out: &mut [Block]) -> Result<(), StorageError> {
        self.read(first, out)
    }
}

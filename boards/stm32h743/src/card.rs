//! An SD card on the chip's own port for them, which reads blocks by DMA.

use embassy_futures::block_on;
use embassy_stm32::sdmmc::sd::{Card, CmdBlock, DataBlock, StorageDevice};
use embassy_stm32::sdmmc::{Error, Sdmmc};
use embassy_stm32::time::mhz;
use omex_hal_adapters::{Block, BlockDevice, StorageError};

/// A card that was started.
pub struct SdmmcCard<'p, 'd> {
    card: StorageDevice<'p, 'd, Card>,
    /// Where DMA writes to: what the arena has for blocks need not be aligned to words.
    block: DataBlock,
}

impl<'p, 'd> SdmmcCard<'p, 'd> {
    /// Starts the card, and has it send at 25 MHz.
    ///
    /// # Errors
    /// No card, or one that does not start.
    pub fn start(port: &'p mut Sdmmc<'d>) -> Result<Self, Error> {
        let mut command = CmdBlock::new();
        let card = block_on(StorageDevice::new_sd_card(port, &mut command, mhz(25)))?;
        Ok(Self { card, block: DataBlock::new() })
    }
}

impl BlockDevice for SdmmcCard<'_, '_> {
    fn read_blocks(&mut self, first: u32, out: &mut [Block]) -> Result<(), StorageError> {
        for (number, out) in (first..).zip(out) {
            let read = block_on(self.card.read_block(number, &mut self.block));
            read.map_err(|_| StorageError::Device)?;
            out.copy_from_slice(&*self.block);
        }
        Ok(())
    }
}

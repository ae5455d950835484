//! SD cards over SPI, as in the SD Association's Physical Layer Simplified Specification, chapter 7.

use crate::block::{BLOCK_BYTES, Block, BlockDevice};
use crate::buffered::StorageError;
use core::fmt;
use embedded_hal::digital::OutputPin;
use embedded_hal::spi::SpiBus;

/// Why a card can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SdCardError {
    /// The bus or the select pin failed.
    Bus,
    /// Nothing answers.
    NoCard,
    /// The card does not work at this voltage.
    Voltage,
    /// The card never finished its start.
    Start,
    /// The card refused a command, with this response.
    Refused {
        /// The command's number.
        command: u8,
        /// The R1 response: flags, see the specification.
        response: u8,
    },
    /// The card did not send the data, but this token.
    Data(u8),
}

impl fmt::Display for SdCardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bus => f.write_str("the SPI bus failed"),
            Self::NoCard => f.write_str("no SD card answers"),
            Self::Voltage => f.write_str("the SD card does not work at this voltage"),
            Self::Start => f.write_str("the SD card does not finish its start"),
            Self::Refused { command, response } => {
                write!(f, "the SD card refuses command {command} with response {response}")
            }
            Self::Data(token) => write!(f, "the SD card sends token {token} instead of data"),
        }
    }
}

impl core::error::Error for SdCardError {}

/// An SD card of any capacity, alone on its bus.
///
/// A read is left open: the card fetches the blocks behind it while nobody asks, so that a read that
/// goes on there has neither a command to send nor the card's access time to wait for.
#[derive(Debug)]
pub struct SdCard<B, S> {
    bus: B,
    select: S,
    /// Addresses are blocks (SDHC, SDXC) instead of bytes (SDSC).
    addresses_blocks: bool,
    /// The block that the card sends next, if a read is open; then the card is selected.
    open: Option<u32>,
}

const GO_IDLE: u8 = 0;
const SEND_IF_COND: u8 = 8;
const STOP_TRANSMISSION: u8 = 12;
const SET_BLOCK_LENGTH: u8 = 16;
const READ_MULTIPLE: u8 = 18;
const SEND_OP_COND: u8 = 41;
const APPLICATION: u8 = 55;
const READ_OCR: u8 = 58;

const READY: u8 = 0;
const IDLE: u8 = 1;
const ILLEGAL: u8 = 4;
const ADDRESS_ERROR: u8 = 0x20;
const PARAMETER_ERROR: u8 = 0x40;
const DATA_START: u8 = 0xfe;
const OUT_OF_RANGE: u8 = 0x08;

/// Bytes to wait for a response; the specification says 8.
const RESPONSE_BYTES: u32 = 64;
/// Bytes to wait for data or for the end of a busy card: 100 ms at 10 MHz.
const DATA_BYTES: u32 = 125_000;
/// Questions to a starting card: each takes 12 bytes or more, and the card up to a second.
const START_QUESTIONS: u32 = 10_000;

impl<B: SpiBus, S: OutputPin> SdCard<B, S> {
    /// Starts the card. The bus is in mode 0, at 100 to 400 kHz; [`SdCard::bus`] is there to make
    /// it faster afterwards.
    ///
    /// # Errors
    /// A card that is absent, or does not start.
    pub fn start(bus: B, select: S) -> Result<Self, SdCardError> {
        let mut card = Self { bus, select, addresses_blocks: false, open: None };
        card.select.set_high().map_err(|_| SdCardError::Bus)?;
        card.skip(10)?;
        card.selected(|card| {
            // A card that was cut off in the middle of a response finishes it first.
            card.skip(16)?;
            card.identify()
        })?;
        Ok(card)
    }

    /// The bus.
    pub fn bus(&mut self) -> &mut B {
        &mut self.bus
    }

    fn identify(&mut self) -> Result<(), SdCardError> {
        let go_idle = |card: &mut Self| card.command(GO_IDLE, 0);
        if !(0..8).any(|_| go_idle(self) == Ok(IDLE)) {
            return Err(SdCardError::NoCard);
        }
        // 2.7 to 3.6 V, and a pattern that is echoed. Cards before version 2 don't know the command.
        let is_version_2 = self.command(SEND_IF_COND, 0x1aa)? & ILLEGAL == 0;
        if is_version_2 && self.word()? & 0xfff != 0x1aa {
            return Err(SdCardError::Voltage);
        }
        let high_capacity = if is_version_2 { 1 << 30 } else { 0 };
        self.wait_until_ready(high_capacity)?;
        // QEMU 7.2 answers this command alone as if the card were still idle.
        self.expect(READ_OCR, 0, READY | IDLE)?;
        self.addresses_blocks = self.word()? & 1 << 30 != 0;
        if self.addresses_blocks {
            Ok(())
        } else {
            self.expect(SET_BLOCK_LENGTH, BLOCK_BYTES as u32, 0)
        }
    }

    fn wait_until_ready(&mut self, high_capacity: u32) -> Result<(), SdCardError> {
        for _ in 0..START_QUESTIONS {
            self.command(APPLICATION, 0)?;
            if self.command(SEND_OP_COND, high_capacity)? == READY {
                return Ok(());
            }
        }
        Err(SdCardError::Start)
    }

    /// Runs `work` while the card is selected.
    fn selected<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, SdCardError>,
    ) -> Result<T, SdCardError> {
        self.select.set_low().map_err(|_| SdCardError::Bus)?;
        let result = work(self);
        self.deselect()?;
        result
    }

    fn deselect(&mut self) -> Result<(), SdCardError> {
        self.bus.flush().map_err(|_| SdCardError::Bus)?;
        self.select.set_high().map_err(|_| SdCardError::Bus)?;
        // The card lets go of its output only at the next clock.
        self.skip(1)
    }

    /// Sends a command and returns its R1 response.
    fn command(&mut self, command: u8, argument: u32) -> Result<u8, SdCardError> {
        // Without the CRC mode, only commands that may come before the SPI mode need their CRC.
        let crc = match command {
            GO_IDLE => 0x95,
            SEND_IF_COND => 0x87,
            _ => 0x01,
        };
        let [a, b, c, d] = argument.to_be_bytes();
        let frame = [0xff, 0x40 | command, a, b, c, d, crc];
        self.bus.write(&frame).map_err(|_| SdCardError::Bus)?;
        if command == STOP_TRANSMISSION {
            self.skip(1)?;
        }
        for _ in 0..RESPONSE_BYTES {
            let byte = self.byte()?;
            if byte & 0x80 == 0 {
                return Ok(byte);
            }
        }
        Err(SdCardError::NoCard)
    }

    /// Sends a command whose response has no other flags than `allowed`.
    fn expect(&mut self, command: u8, argument: u32, allowed: u8) -> Result<(), SdCardError> {
        match self.command(command, argument)? {
            response if response & !allowed == 0 => Ok(()),
            response => Err(SdCardError::Refused { command, response }),
        }
    }

    /// Reads blocks from the open read if that is where they are, or from one that it opens.
    fn read(&mut self, first: u32, blocks: &mut [Block]) -> Result<(), SdCardError> {
        if self.open != Some(first) {
            self.open(first)?;
        }
        let read = blocks.iter_mut().try_for_each(|block| self.data(block));
        match first.checked_add(blocks.len() as u32) {
            Some(next) if read.is_ok() => self.open = Some(next),
            _ => {
                // What went wrong first is what tells most.
                let closed = self.close();
                return read.and(closed);
            }
        }
        Ok(())
    }

    /// Has the card send what begins with a block, instead of what it sends now.
    fn open(&mut self, first: u32) -> Result<(), SdCardError> {
        self.close()?;
        let unit = if self.addresses_blocks { 1 } else { BLOCK_BYTES as u32 };
        let past_the_end = SdCardError::Refused { command: READ_MULTIPLE, response: ADDRESS_ERROR };
        let address = first.checked_mul(unit).ok_or(past_the_end)?;
        self.select.set_low().map_err(|_| SdCardError::Bus)?;
        let opened = self.expect(READ_MULTIPLE, address, READY);
        if opened.is_err() {
            let _ = self.deselect();
            return opened;
        }
        self.open = Some(first);
        Ok(())
    }

    /// Ends the open read, if there is one.
    fn close(&mut self) -> Result<(), SdCardError> {
        if self.open.take().is_none() {
            return Ok(());
        }
        // The response may complain of the card's end, which the card ran ahead to.
        let stopped = self.command(STOP_TRANSMISSION, 0);
        for _ in 0..DATA_BYTES {
            if self.byte()? == 0xff {
                break;
            }
        }
        let deselected = self.deselect();
        stopped.and(deselected)
    }

    fn data(&mut self, block: &mut Block) -> Result<(), SdCardError> {
        let mut token = 0xff;
        for _ in 0..DATA_BYTES {
            token = self.byte()?;
            if token != 0xff {
                break;
            }
        }
        if token != DATA_START {
            return Err(SdCardError::Data(token));
        }
        self.bus.read(block).map_err(|_| SdCardError::Bus)?;
        self.skip(2) // CRC: pages have their own.
    }

    fn word(&mut self) -> Result<u32, SdCardError> {
        let mut bytes = [0xff; 4];
        self.bus.read(&mut bytes).map_err(|_| SdCardError::Bus)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn byte(&mut self) -> Result<u8, SdCardError> {
        let mut byte = [0xff];
        self.bus.transfer_in_place(&mut byte).map_err(|_| SdCardError::Bus)?;
        let [byte] = byte;
        Ok(byte)
    }

    fn skip(&mut self, bytes: u32) -> Result<(), SdCardError> {
        (0..bytes).try_for_each(|_| self.byte().map(|_| ()))
    }
}

impl<B: SpiBus, S: OutputPin> BlockDevice for SdCard<B, S> {
    fn read_blocks(&mut self, first: u32, out: &mut [Block]) -> Result<(), StorageError> {
        if out.is_empty() {
            return Ok(());
        }
        self.read(first, out).map_err(|error| match error {
            SdCardError::Refused { response, .. }
                if response & (ADDRESS_ERROR | PARAMETER_ERROR) != 0 =>
            {
                StorageError::End
            }
            SdCardError::Data(token) if token & !0x1f == 0 && token & OUT_OF_RANGE != 0 => {
                StorageError::End
            }
            _ => StorageError::Device,
        })
    }

    fn want(&mut self, first: u32) {
        if self.open != Some(first) {
            // If that fails, so does the read, which tells.
            let _ = self.open(first);
        }
    }
}

#[cfg(test)]
#[path = "sd_card_tests.rs"]
mod tests;

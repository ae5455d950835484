//! The driver against a card that is played byte by byte.

use super::*;
use crate::testing::weights;
use crate::{Blocks, BufferedPager, conformance};
use core::convert::Infallible;

/// A card of few blocks: what it does with a byte is what the specification says.
struct Card<'a> {
    blocks: &'a [u8],
    high_capacity: bool,
    /// Questions that are answered with "still starting".
    starting: u32,
    /// Reads that begin with this block fail with an error token.
    broken: Option<usize>,
    frame: [u8; 6],
    received: usize,
    /// What is sent next, front to back.
    answer: [u8; 16],
    answers: usize,
    ready: bool,
    reading: Option<Reading>,
    /// Bytes of time that the card takes to find a block; time passes while it is idle, too.
    access: usize,
    /// Bytes that were exchanged.
    bytes: usize,
}

/// A transfer under way.
#[derive(Clone, Copy)]
struct Reading {
    block: usize,
    /// When the card has found it.
    found: usize,
    /// Byte of the block's frame: a gap, the token, 512 bytes of data, two of CRC.
    at: usize,
    multiple: bool,
}

impl<'a> Card<'a> {
    fn new(blocks: &'a [u8], high_capacity: bool) -> Self {
        Self {
            blocks,
            high_capacity,
            starting: 3,
            broken: None,
            frame: [0; 6],
            received: 0,
            answer: [0; 16],
            answers: 0,
            ready: false,
            reading: None,
            access: 0,
            bytes: 0,
        }
    }

    fn exchange(&mut self, byte: u8) -> u8 {
        self.bytes += 1;
        let out = self.next_answer();
        if self.received > 0 || byte & 0xc0 == 0x40 {
            self.frame[self.received] = byte;
            self.received += 1;
            if self.received == 6 {
                self.received = 0;
                self.obey();
            }
        }
        out
    }

    fn next_answer(&mut self) -> u8 {
        if self.answers > 0 {
            let byte = self.answer[0];
            self.answer.rotate_left(1);
            self.answers -= 1;
            return byte;
        }
        let Some(Reading { block, found, at, multiple }) = self.reading else { return 0xff };
        if self.bytes < found {
            return 0xff;
        }
        let is_broken = self.broken == Some(block) || (block + 1) * BLOCK_BYTES > self.blocks.len();
        self.reading = match at {
            1 if is_broken => None,
            515 if multiple => Some(Reading { block: block + 1, found, at: 0, multiple }),
            515 => None,
            _ => Some(Reading { block, found, at: at + 1, multiple }),
        };
        match at {
            1 if self.broken == Some(block) => 0x04,
            1 if is_broken => 0x08,
            1 => 0xfe,
            2..514 => self.blocks[block * BLOCK_BYTES + at - 2],
            _ => 0xff,
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.answer[..bytes.len()].copy_from_slice(bytes);
        self.answers = bytes.len();
    }

    fn obey(&mut self) {
        let [command, a, b, c, d, _] = self.frame;
        let argument = u32::from_be_bytes([a, b, c, d]);
        let r1 = u8::from(!self.ready);
        match command & 0x3f {
            0 => {
                self.ready = false;
                self.say(&[0xff, 0x01]);
            }
            8 => self.say(&[0xff, r1, 0, 0, 1, c_of(argument)]),
            12 => {
                self.reading = None;
                self.say(&[0x5a, 0xff, 0x00, 0x00, 0x00]);
            }
            16 => self.say(&[r1]),
            41 => {
                self.ready = self.starting == 0;
                self.starting = self.starting.saturating_sub(1);
                self.say(&[0xff, u8::from(!self.ready)]);
            }
            55 => self.say(&[r1]),
            58 => self.say(&[r1, if self.high_capacity { 0xc0 } else { 0x80 }, 0xff, 0x80, 0]),
            command @ (17 | 18) => {
                let unit = if self.high_capacity { 1 } else { 512 };
                let block = argument as usize / unit;
                if block * BLOCK_BYTES >= self.blocks.len() {
                    return self.say(&[0xff, 0x40]);
                }
                self.say(&[0xff, 0x00]);
                let (found, multiple) = (self.bytes + self.access, command == 18);
                self.reading = Some(Reading { block, found, at: 0, multiple });
            }
            _ => self.say(&[0x04 | r1]),
        }
    }
}

/// The pattern that command 8 echoes.
fn c_of(argument: u32) -> u8 {
    argument.to_le_bytes()[0]
}

impl embedded_hal::spi::ErrorType for Card<'_> {
    type Error = Infallible;
}

impl SpiBus for Card<'_> {
    fn read(&mut self, words: &mut [u8]) -> Result<(), Infallible> {
        words.iter_mut().for_each(|w| *w = self.exchange(0xff));
        Ok(())
    }

    fn write(&mut self, words: &[u8]) -> Result<(), Infallible> {
        for word in words {
            self.exchange(*word);
        }
        Ok(())
    }

    fn transfer(&mut self, read: &mut [u8], write: &[u8]) -> Result<(), Infallible> {
        read.iter_mut().zip(write).for_each(|(r, w)| *r = self.exchange(*w));
        Ok(())
    }

    fn transfer_in_place(&mut self, words: &mut [u8]) -> Result<(), Infallible> {
        words.iter_mut().for_each(|w| *w = self.exchange(*w));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

struct Pin;

impl embedded_hal::digital::ErrorType for Pin {
    type Error = Infallible;
}

impl OutputPin for Pin {
    fn set_low(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

#[test]
fn cards_of_both_address_kinds_conform() {
    let weights = weights::<8192>();
    for high_capacity in [false, true] {
        let card = SdCard::start(Card::new(&weights, high_capacity), Pin).unwrap();
        assert_eq!(card.addresses_blocks, high_capacity);
        let mut memory = [0; 2048];
        let mut pager = BufferedPager::new(Blocks(card), &mut memory, 512, 8000).unwrap();
        assert_eq!(conformance::check(&mut pager, &weights[..8000]), Ok(()));
    }
}

/// Bytes that pass on the bus while blocks are read in pieces, each after some time of computing.
fn bytes_of_pieces(pieces: &[(u32, usize)], announced: bool) -> usize {
    let weights = weights::<16384>();
    let mut card = SdCard::start(Card::new(&weights, true), Pin).unwrap();
    card.bus().access = 1000;
    card.bus().bytes = 0;
    let mut computed = 0;
    for (first, count) in pieces {
        if announced {
            card.want(*first);
        }
        card.bus().bytes += 2000;
        computed += 2000;
        let mut blocks = [[0; 512]; 8];
        card.read_blocks(*first, &mut blocks[..*count]).unwrap();
        let expected = &weights[*first as usize * 512..];
        assert!(expected.starts_with(blocks[..*count].as_flattened()));
    }
    card.bus().bytes - computed
}

#[test]
fn a_read_goes_on_without_waiting_and_an_announced_one_has_begun() {
    let data = |blocks: usize| blocks * 515;
    let sequential = [(0, 8), (8, 8), (16, 8), (24, 8)];
    let bytes = bytes_of_pieces(&sequential, false);
    assert!((data(32) + 1000..data(32) + 1100).contains(&bytes), "{bytes}");
    let leaps = [(20, 2), (3, 1), (9, 4), (0, 1)];
    let bytes = bytes_of_pieces(&leaps, false);
    assert!((data(8) + 4000..data(8) + 4300).contains(&bytes), "{bytes}");
    let bytes = bytes_of_pieces(&leaps, true);
    assert!((data(8)..data(8) + 300).contains(&bytes), "{bytes}");
}

#[test]
fn a_card_that_failed_works_again() {
    let weights = weights::<2048>();
    let mut card = SdCard::start(Card::new(&weights, true), Pin).unwrap();
    let mut blocks = [[0; 512]; 3];
    card.bus().broken = Some(2);
    assert_eq!(card.read_blocks(2, &mut blocks[..1]), Err(StorageError::Device));
    assert_eq!(card.read_blocks(0, &mut blocks), Err(StorageError::Device));
    card.bus().broken = None;
    assert_eq!(card.read_blocks(1, &mut blocks), Ok(()));
    assert_eq!(blocks.as_flattened(), &weights[512..]);
}

#[test]
fn the_end_of_the_card_is_told_from_a_failure() {
    let weights = weights::<1024>();
    for high_capacity in [false, true] {
        let mut card = SdCard::start(Card::new(&weights, high_capacity), Pin).unwrap();
        let mut blocks = [[0; 512]; 2];
        assert_eq!(card.read_blocks(2, &mut blocks[..1]), Err(StorageError::End));
        assert_eq!(card.read_blocks(1, &mut blocks), Err(StorageError::End));
        assert_eq!(card.read_blocks(u32::MAX, &mut blocks), Err(StorageError::End));
        assert_eq!(card.read_blocks(0, &mut blocks), Ok(()));
        assert_eq!(card.read_blocks(7, &mut []), Ok(()));
    }
}

#[test]
fn a_card_that_does_not_start_is_refused() {
    let mut card = Card::new(&[], false);
    card.starting = u32::MAX;
    assert_eq!(SdCard::start(card, Pin).err(), Some(SdCardError::Start));
}

#[test]
fn an_empty_socket_is_no_card() {
    struct Nothing;
    impl embedded_hal::spi::ErrorType for Nothing {
        type Error = Infallible;
    }
    impl SpiBus for Nothing {
        fn read(&mut self, words: &mut [u8]) -> Result<(), Infallible> {
            words.fill(0xff);
            Ok(())
        }
        fn write(&mut self, _words: &[u8]) -> Result<(), Infallible> {
            Ok(())
        }
        fn transfer(&mut self, read: &mut [u8], _write: &[u8]) -> Result<(), Infallible> {
            self.read(read)
        }
        fn transfer_in_place(&mut self, words: &mut [u8]) -> Result<(), Infallible> {
            self.read(words)
        }
        fn flush(&mut self) -> Result<(), Infallible> {
            Ok(())
        }
    }
    assert_eq!(SdCard::start(Nothing, Pin).err(), Some(SdCardError::NoCard));
}

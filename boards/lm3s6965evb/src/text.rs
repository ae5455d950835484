//! Text to tokens and back, with the tokenizer's tables left on the card.

use crate::card::Card;
use crate::command::{self, Prompt};
use crate::failure::Failure;
use heapless::Vec;
use omex_core::error::{LoadError, Section};
use omex_core::image::Extent;
use omex_core::simd::PORTABLE;
use omex_core::token::{
    DecodeError, Decoder, EncodeError, Full, Options, SourceError, Symbol, TableSource, Tokenizer,
};
use omex_hal_adapters::{BLOCK_BYTES, Block, StorageError};

/// The longest prompt, in tokens.
const PROMPT_TOKENS: usize = 128;
/// The tokens of a prompt.
pub type Ids = Vec<u32, PROMPT_TOKENS>;
const NO_ID: &str = "the prompt has a word that is no token id";
const NO_TOKENIZER: &str = "the image has no tokenizer: give token ids";
/// Memory for the longest word of a prompt: more characters are cut into several words.
const WORD_SYMBOLS: usize = 48;

/// Encodes prompts and decodes tokens; without a tokenizer in the image, only ids.
pub struct Text<'c> {
    tokenizer: Option<Tokenizer<Tables<'c>>>,
    decoder: Decoder,
}

impl<'c> Text<'c> {
    /// The tokenizer that lies at `extent` of the card, read through `block`.
    ///
    /// # Errors
    /// Tables that can't be read, or are damaged.
    pub fn open(card: &'c Card, extent: Extent, block: &'c mut [u8]) -> Result<Self, Failure> {
        let block = block.as_chunks_mut().0;
        let mut tables = Tables { card, extent, block, number: u32::MAX };
        let decoder = Decoder::new(false);
        if extent.length == 0 {
            return Ok(Self { tokenizer: None, decoder });
        }
        if tables.crc32c()? != extent.crc32c {
            return Err(Failure::Load(LoadError::Section(Section::Tokenizer), None));
        }
        Ok(Self { tokenizer: Some(Tokenizer::open(tables)?), decoder })
    }

    /// Appends the prompt's tokens to `ids`; decoding goes on behind them.
    ///
    /// # Errors
    /// Too many tokens, text without a tokenizer, or ids that are none.
    pub fn encode(&mut self, prompt: Prompt<'_>, ids: &mut Ids) -> Result<(), Failure> {
        match prompt {
            Prompt::Ids(list) => {
                for id in list.split(|byte| *byte == b',') {
                    let id = command::number(id).ok_or(Failure::Task(NO_ID))?;
                    ids.push(id).map_err(|_| Failure::Encode(EncodeError::Full))?;
                }
            }
            Prompt::Text(text) => {
                let tokenizer = self.tokenizer.as_mut().ok_or(Failure::Task(NO_TOKENIZER))?;
                let mut scratch = [Symbol::EMPTY; WORD_SYMBOLS];
                let sink = |id| ids.push(id).map_err(|_| Full);
                tokenizer.encode(text, Options::default(), &mut scratch, sink)?;
            }
        }
        ids.iter().try_for_each(|id| self.decode(*id, |_| {}))?;
        Ok(())
    }

    /// Gives the characters that `token` completes to `emit`.
    ///
    /// # Errors
    /// A token outside of the vocabulary, or tables that can't be read.
    pub fn decode(&mut self, token: u32, mut emit: impl FnMut(&str)) -> Result<(), DecodeError> {
        match &mut self.tokenizer {
            Some(tokenizer) => tokenizer.decode(&mut self.decoder, token, &mut emit),
            None => Ok(()),
        }
    }

    /// Gives what is left of an unfinished character to `emit`.
    pub fn finish(&mut self, mut emit: impl FnMut(&str)) {
        self.decoder.finish(&mut emit);
    }
}

/// The tokenizer's tables on the card, behind one block of memory.
struct Tables<'c> {
    card: &'c Card,
    extent: Extent,
    block: &'c mut [Block],
    /// The block in memory.
    number: u32,
}

impl Tables<'_> {
    fn crc32c(&mut self) -> Result<u32, StorageError> {
        let (mut at, mut crc) = (self.extent.offset, 0);
        let end = at.saturating_add(self.extent.length);
        while at < end {
            let bytes = self.bytes_at(at)?;
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(bytes.len());
            crc = (PORTABLE.crc32c)(crc, bytes.get(..length).unwrap_or_default());
            at += length as u64;
        }
        Ok(crc)
    }

    /// The bytes from `address` of the card to the end of their block; at least one.
    fn bytes_at(&mut self, address: u64) -> Result<&[u8], StorageError> {
        let number = u32::try_from(address / BLOCK_BYTES as u64).map_err(|_| StorageError::End)?;
        if number != self.number {
            self.number = u32::MAX;
            self.card.read(number, self.block)?;
            self.number = number;
        }
        let block = self.block.as_flattened();
        block.get((address % BLOCK_BYTES as u64) as usize..).ok_or(StorageError::End)
    }
}

impl TableSource for Tables<'_> {
    fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), SourceError> {
        let end = u64::from(offset) + out.len() as u64;
        if end > self.extent.length {
            return Err(SourceError);
        }
        let mut address = self.extent.offset + u64::from(offset);
        let mut rest = out;
        while !rest.is_empty() {
            let bytes = self.bytes_at(address).map_err(|_| SourceError)?;
            let length = bytes.len().min(rest.len());
            let (bytes, _) = bytes.split_at_checked(length).ok_or(SourceError)?;
            let (now, later) = rest.split_at_mut_checked(length).ok_or(SourceError)?;
            now.copy_from_slice(bytes);
            address += length as u64;
            rest = later;
        }
        Ok(())
    }
}

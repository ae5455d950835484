//! Text to tokens and back, with the tokenizer's tables left where they lie.

use crate::failure::Failure;
use crate::medium::Medium;
use heapless::Vec;
use omex_core::error::{LoadError, Section};
use omex_core::image::{self, Extent};
use omex_core::simd::PORTABLE;
use omex_core::token::{
    DecodeError, Decoder, EncodeError, EncodeOptions, Full, SourceError, Symbol, TableSource,
    Tokenizer,
};
use omex_hal::Pager;
use omex_hal_adapters::BLOCK_BYTES;

/// The longest prompt, in tokens.
const PROMPT_TOKENS: usize = 128;
/// The tokens of a prompt.
pub type Ids = Vec<u32, PROMPT_TOKENS>;
const NO_ID: &str = "the prompt has a word that is no token id";
const NO_TOKENIZER: &str = "the image has no tokenizer: give token ids";
/// Memory for the longest word of a prompt: more characters are cut into several words.
const WORD_SYMBOLS: usize = 48;

/// What the text begins with.
#[derive(Clone, Copy)]
pub enum Prompt<'a> {
    /// Token ids, separated by commas.
    Ids(&'a [u8]),
    /// Text: all that is left of the line.
    Text(&'a str),
}

/// Encodes prompts and decodes tokens; without a tokenizer in the image, only ids.
pub struct Text<P> {
    tokenizer: Option<Tokenizer<Tables<P>>>,
    decoder: Decoder,
}

impl<P: Pager> Text<P> {
    /// The tokenizer that lies at `extent` of the image, read through `block`.
    ///
    /// # Errors
    /// Tables that can't be read, or are damaged.
    #[inline(never)]
    pub fn open<'m, M: Medium<Pager<'m> = P>>(
        medium: &'m M,
        extent: Extent,
        block: &'m mut [u8],
    ) -> Result<Self, Failure> {
        let decoder = Decoder::new(false);
        if extent.length == 0 {
            return Ok(Self { tokenizer: None, decoder });
        }
        let end = extent.offset.saturating_add(extent.length);
        let pager = medium.pager(block, BLOCK_BYTES as u32, end)?;
        let mut tables = Tables { pager, extent };
        let crc = tables.crc32c().map_err(|e| Failure::load(e, BLOCK_BYTES as u32))?;
        if crc != extent.crc32c {
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
                    let id = number(id).ok_or(Failure::Task(NO_ID))?;
                    ids.push(id).map_err(|_| Failure::Encode(EncodeError::Full))?;
                }
            }
            Prompt::Text(text) => {
                let tokenizer = self.tokenizer.as_mut().ok_or(Failure::Task(NO_TOKENIZER))?;
                let mut scratch = [Symbol::EMPTY; WORD_SYMBOLS];
                let sink = |id| ids.push(id).map_err(|_| Full);
                tokenizer.encode(text, EncodeOptions::default(), &mut scratch, sink)?;
            }
        }
        if let Some(tokenizer) = &mut self.tokenizer {
            self.decoder = tokenizer.decoder_after(ids, false)?;
        }
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

/// The tokenizer's tables, left in the image.
struct Tables<P> {
    pager: P,
    extent: Extent,
}

impl<P: Pager> Tables<P> {
    fn crc32c(&mut self) -> Result<u32, LoadError> {
        let (mut at, mut crc, mut bytes) = (0, 0, [0; 64]);
        while at < self.extent.length {
            let left = usize::try_from(self.extent.length - at).unwrap_or(usize::MAX);
            let length = left.min(bytes.len());
            let bytes = bytes.get_mut(..length).unwrap_or_default();
            image::read(&mut self.pager, self.extent.offset.saturating_add(at), bytes)?;
            crc = (PORTABLE.crc32c)(crc, bytes);
            at += length as u64;
        }
        Ok(crc)
    }
}

impl<P: Pager> TableSource for Tables<P> {
    fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), SourceError> {
        let end = u64::from(offset) + out.len() as u64;
        if end > self.extent.length {
            return Err(SourceError);
        }
        let address = self.extent.offset.saturating_add(offset.into());
        image::read(&mut self.pager, address, out).map_err(|_| SourceError)
    }
}

/// A decimal number.
pub fn number(text: &[u8]) -> Option<u32> {
    let digits = |n: u32, byte: &u8| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        n.checked_mul(10)?.checked_add(u32::from(digit))
    };
    if text.is_empty() { None } else { text.iter().try_fold(0, digits) }
}

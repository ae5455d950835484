//! Text to token ids and back, without memory of its own.
//!
//! A tokenizer is one section of tables, compiled on the host (`docs/format-tokenizer.md`) and read through a
//! [`TableSource`]: a slice where the section is in memory or memory-mapped flash, a small sector cache where it is
//! on a card. Two kinds cover the models that the importer reads: SentencePiece's BPE over characters with byte
//! fallback, and GPT-2's BPE over bytes.
//!
//! ```
//! # use omex_core::token::{EncodeError, EncodeOptions, Symbol, TableSource, Tokenizer};
//! fn count<S: TableSource>(tokenizer: &mut Tokenizer<S>, text: &str) -> Result<u32, EncodeError> {
//!     let mut scratch = [Symbol::EMPTY; 64];
//!     let encoded = tokenizer.encode(text, EncodeOptions::default(), &mut scratch, |_id| Ok(()))?;
//!     Ok(encoded.ids)
//! }
//! ```
//!
//! Main path: `encode` finds added tokens, `words` cuts what lies between, `cache` knows words that were there before,
//! `merge` merges the others, `tables` looks things up. `normal`, `pieces`, `unigram` and `trie` are for kinds that
//! look pieces up. No section, however corrupt, makes these functions panic or run for more than O(n log n) steps.

mod cache;
mod decode;
mod encode;
mod error;
pub mod layout;
mod merge;
#[cfg(feature = "piece-tries")]
mod normal;
#[cfg(feature = "piece-tries")]
mod pieces;
#[cfg(feature = "scanners")]
mod scanners;
#[cfg(feature = "piece-tries")]
mod second;
mod source;
mod tables;
#[cfg(feature = "piece-tries")]
mod trie;
#[cfg(feature = "piece-tries")]
mod unigram;
mod words;

pub use cache::CachedWord;
pub use decode::Decoder;
pub use encode::MIN_SCRATCH;
pub use error::{DecodeError, EncodeError, Full, OpenError};
pub use merge::Symbol;
pub use source::{SourceError, TableSource};

/// What to make of special tokens while encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put the template's ids (beginning and end of text) around the text's.
    pub add_special: bool,
    /// Recognise special tokens written out in the text. Switch it off for text from strangers.
    pub parse_special: bool,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { add_special: true, parse_special: true }
    }
}

/// What encoding a text came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Ids given to the sink.
    pub ids: u32,
    /// Words that were cut because the scratch memory was shorter than they: if 0, the ids are the tokenizer's own.
    pub cuts: u32,
    /// Steps spent on choosing merges: a measure of work that does not depend on the machine.
    pub steps: u64,
}

/// A tokenizer over tables whose header has been checked.
#[derive(Clone, Debug)]
pub struct Tokenizer<S> {
    tables: tables::Tables<S>,
}

impl<S: TableSource> Tokenizer<S> {
    /// Opens a section. Reads its header and its last byte, nothing else.
    ///
    /// # Errors
    /// [`OpenError`] if the storage fails, the section is cut short or of another version, or a table lies outside it.
    pub fn open(source: S) -> Result<Self, OpenError> {
        Ok(Self { tables: tables::Tables::open(source)? })
    }

    /// Number of ids: all ids are below it.
    pub fn vocabulary(&self) -> u32 {
        self.tables.header.vocabulary
    }

    /// Whether text must be brought into Unicode's normalization form C before it is encoded.
    pub fn wants_nfc(&self) -> bool {
        self.tables.header.has(layout::flag::NFC)
    }

    /// Whether each character of a text must be brought into lower case before it is encoded.
    #[cfg(feature = "scanners")]
    pub fn wants_lower_case(&self) -> bool {
        self.tables.header.pre_tokenizer == layout::PreTokenizer::Clip
    }

    /// Symbols that are always enough to encode a text of so many bytes, and no fewer than its ids, those around it
    /// left aside.
    pub fn scratch_for(&self, bytes: usize) -> usize {
        #[cfg(feature = "piece-tries")]
        let bytes = bytes.saturating_mul(self.tables.second.growth as usize);
        bytes.saturating_add(MIN_SCRATCH)
    }

    /// How many ids are put before a text, and how many after it.
    pub fn template(&self) -> [usize; 2] {
        let header = &self.tables.header;
        [header.before.into(), header.after.into()]
    }

    /// Encodes `text`, giving its ids to `sink` in order.
    ///
    /// `scratch` holds one word at a time, a symbol of 24 bytes for each character (character kind; four for a
    /// character that the vocabulary lacks) or byte (other kinds) of it: those of [`Tokenizer::scratch_for`] are always
    /// enough. With less, a longer word is cut, its parts are encoded alone, and [`Encoded::cuts`] says so; the ids
    /// still decode to the same text. English words of either kind fit in 64 symbols.
    ///
    /// # Errors
    /// [`EncodeError::Scratch`] for less than [`MIN_SCRATCH`] symbols, [`EncodeError::Full`] if the sink says so;
    /// otherwise the storage failed or the tables are corrupt.
    pub fn encode(
        &mut self,
        text: &str,
        options: EncodeOptions,
        scratch: &mut [Symbol],
        sink: impl FnMut(u32) -> Result<(), Full>,
    ) -> Result<Encoded, EncodeError> {
        self.encode_cached(text, options, scratch, &mut [], sink)
    }

    /// As [`Tokenizer::encode`], and the same ids, but `cache` saves most of the work on words that come again.
    ///
    /// A cache may be kept from text to text, for this tokenizer alone: it starts as [`CachedWord::EMPTY`], 32 bytes
    /// an entry. Some thousand entries hold the words of most texts. A build without the feature `word-cache` leaves
    /// it alone.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_cached(
        &mut self,
        text: &str,
        options: EncodeOptions,
        scratch: &mut [Symbol],
        cache: &mut [CachedWord],
        sink: impl FnMut(u32) -> Result<(), Full>,
    ) -> Result<Encoded, EncodeError> {
        encode::Encoder::new(&mut self.tables, scratch, cache, sink)?.run(text, options)
    }

    /// Encodes `text` into `ids`, of any length, and returns how many were filled, as [`Tokenizer::encode`] does.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; [`EncodeError::Full`] if `ids` is too short.
    pub fn encode_into(
        &mut self,
        text: &str,
        options: EncodeOptions,
        scratch: &mut [Symbol],
        ids: &mut [u32],
    ) -> Result<Encoded, EncodeError> {
        let mut places = ids.iter_mut();
        self.encode(text, options, scratch, |id| {
            *places.next().ok_or(Full)? = id;
            Ok(())
        })
    }

    /// Gives the bytes of a token's own text to `emit`, a few at a time, whatever text it stands in.
    /// Returns whether it is a special token; `None` outside the vocabulary.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn piece(
        &mut self,
        id: u32,
        emit: &mut impl FnMut(&[u8]),
    ) -> Result<Option<bool>, DecodeError> {
        decode::piece(&mut self.tables, id, emit)
    }

    /// A decoder for what follows `ids`, the prompt of a text that is under way: its first word keeps the space before
    /// it, and a character that the prompt began is completed.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn decoder_after(
        &mut self,
        ids: &[u32],
        show_special: bool,
    ) -> Result<Decoder, DecodeError> {
        let mut decoder = Decoder::new(show_special);
        ids.iter().try_for_each(|id| self.decode(&mut decoder, *id, &mut |_| {}))?;
        Ok(decoder)
    }

    /// Decodes one more id of the text that `decoder` is at, giving whole characters to `emit`. An id outside the
    /// vocabulary has no text.
    ///
    /// # Errors
    /// The storage failed, or the tables are corrupt.
    pub fn decode(
        &mut self,
        decoder: &mut Decoder,
        id: u32,
        emit: &mut impl FnMut(&str),
    ) -> Result<(), DecodeError> {
        decoder.push(&mut self.tables, id, emit)
    }
}

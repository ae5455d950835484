//! Tokenizers as other programs store them, compiled into the tables that the core reads.
//!
//! [`Spec`] is a tokenizer as data, whatever file it came from. Readers make one ([`Spec::from_hf_json`],
//! [`Spec::from_model`], [`Spec::from_llama2c`], [`Spec::from_gguf`]), [`compile`] turns it into the section that
//! [`omex_core::token::Tokenizer`] opens, and [`Spec::write_package`] stores it in a model package.

mod bert;
mod byte_level;
mod characters;
mod charsmap;
mod compile;
mod encode;
mod gguf;
mod gguf_write;
mod hf;
mod hf_write;
mod llama2c;
mod lookup;
mod nfc;
mod package;
mod pair;
mod scores;
mod sentencepiece;
mod tiktoken;
mod unigram;
mod word_piece;

pub use bert::BertNormalizer;
pub use compile::compile;
pub use encode::{
    ENCODING_BYTES, NotEncoded, TEXT_BYTES, doubled, encode, encode_within, normalized,
};
pub use gguf::GgufVocabulary;
pub use lookup::{Charsmap, Lookup, Normalizer};
pub use nfc::nfc;
pub use omex_core::token::layout::{Kind, PreTokenizer};

use crate::{Error, Result};
use omex_core::token::layout::CHARACTER;
use std::path::PathBuf;

/// A tokenizer, as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The file it came from, for messages.
    pub origin: PathBuf,
    /// How pieces are found, and what they are made of.
    pub kind: Kind,
    /// How text is cut into words.
    pub pre_tokenizer: PreTokenizer,
    /// How spaces, unknown characters and normalization are dealt with: bits of
    /// [`omex_core::token::layout::flag`], but for `SPLIT_WORDS`, which [`compile`] finds out.
    pub flags: u32,
    /// Piece of every id: text with spaces as the vocabulary marks them, or bytes. Empty for an id that is not used.
    pub pieces: Vec<Vec<u8>>,
    /// Merges, by rising rank.
    pub merges: Vec<Merge>,
    /// Tokens that are found in the text before it is cut into words.
    pub added: Vec<Added>,
    /// The token for what the vocabulary lacks.
    pub unknown: Option<u32>,
    /// Pieces named `<0x00>` to `<0xFF>` stand for bytes.
    pub byte_fallback: bool,
    /// A word that is a piece is that token, whatever merging would make of it.
    pub ignore_merges: bool,
    /// Ids put before a text.
    pub before: Vec<u32>,
    /// Ids put after a text.
    pub after: Vec<u32>,
    /// How kinds with a trie of pieces cut text.
    pub lookup: Lookup,
    /// The `tokenizer.json` that this was read from.
    json: Option<Vec<u8>>,
}

/// Two tokens that become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Id of the left token.
    pub left: u32,
    /// Id of the right token.
    pub right: u32,
    /// Id of the token they become.
    pub merged: u32,
    /// The lowest rank merges first, and the leftmost of equal ranks.
    pub rank: u32,
}

/// A token that is found in the text before it is cut into words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub content: String,
    /// Left out of decoded text, and not recognised in text from strangers.
    pub special: bool,
    /// Takes the whitespace before it.
    pub strip_left: bool,
    /// Takes the whitespace after it.
    pub strip_right: bool,
    /// Sought only in what other added tokens leave, in the form that normalization gives text and token.
    pub normalized: bool,
}

/// What to do about a tokenizer that is of another kind than those that are read.
const WITHOUT_TOKENIZER: &str = "this version reads no such tokenizer: convert with \
                                 --no-tokenizer, and give token ids instead of texts (--ids)";

impl Spec {
    /// The id of the token with this text.
    pub(crate) fn id_of(&self, text: &str) -> Option<u32> {
        let added = self.added.iter().find(|token| token.content == text).map(|token| token.id);
        let piece = || self.pieces.iter().position(|piece| piece == text.as_bytes());
        added.or_else(|| piece().and_then(|id| u32::try_from(id).ok()))
    }

    fn malformed(
        &self,
        field: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Error {
        Error::malformed(&self.origin, field, found, expected, remedy)
    }

    /// Checks that every id is in the vocabulary and every added token can be found in text.
    fn check(&self) -> Result<()> {
        let count = self.pieces.len();
        if count == 0 || count >= CHARACTER as usize {
            return Err(self.malformed(
                "vocabulary",
                format!("{count} tokens"),
                format!("1 to {}", CHARACTER - 1),
                "use another tokenizer",
            ));
        }
        let merges = self.merges.iter().flat_map(|m| [m.left, m.right, m.merged]);
        let others =
            self.added.iter().map(|a| a.id).chain(self.unknown).chain(self.before.iter().copied());
        if let Some(id) =
            merges.chain(others).chain(self.after.iter().copied()).find(|&id| id as usize >= count)
        {
            return Err(self.malformed(
                "ids",
                format!("id {id}"),
                format!("ids below {count}"),
                "write the file again: it is damaged",
            ));
        }
        let mut ids: Vec<u32> = self.added.iter().map(|token| token.id).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(self.malformed(
                "added tokens",
                format!("two with id {}", pair[0]),
                "different ids",
                "write the file again: it is damaged",
            ));
        }
        lookup::check(self)
    }
}

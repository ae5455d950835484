//! Texts of any length, encoded within a bound on memory.

use super::nfc;
use omex_core::token::{
    CachedWord, EncodeError, EncodeOptions, Full, Symbol, TableSource, Tokenizer,
};
use std::borrow::Cow;

/// Words that encoding a text keeps: 256 KiB.
const CACHED_WORDS: usize = 8192;
/// Symbols of the longest word that encoding a text expects.
const WORD_SYMBOLS: usize = 4096;
/// Bytes of a text and its ids that are always at hand.
pub const TEXT_BYTES: u64 = 16 << 10;
/// Bytes that encoding works with, besides what of a text and its ids is more than [`TEXT_BYTES`],
/// and what a word takes that is longer than expected.
pub const ENCODING_BYTES: usize = CACHED_WORDS * size_of::<CachedWord>()
    + WORD_SYMBOLS * size_of::<Symbol>()
    + TEXT_BYTES as usize;

/// Why a text was not encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEncoded {
    /// Tables that are damaged or cannot be read.
    #[error("{0}")]
    Tables(EncodeError),
    /// The text takes more memory than it may.
    #[error(
        "encoding a text of {text} bytes takes up to {needed} bytes of memory, and {most} are left \
         for it: raise --memory, or give a shorter text"
    )]
    Memory {
        /// Bytes of the text.
        text: u64,
        /// Bytes that are enough.
        needed: u64,
        /// Bytes that may be used.
        most: u64,
    },
}

/// A text as a tokenizer asks for it: in Unicode's normalization form C, or in lower case.
pub fn normalized<'t, S: TableSource>(tokenizer: &Tokenizer<S>, text: &'t str) -> Cow<'t, str> {
    let text = if tokenizer.wants_nfc() { nfc(text) } else { text.into() };
    match tokenizer.wants_lower_case() {
        true => text.chars().flat_map(char::to_lowercase).collect(),
        false => text,
    }
}

/// The ids of a text of any length, brought into the form that the tokenizer asks for.
///
/// # Errors
/// Tables that are damaged or cannot be read.
pub fn encode<S: TableSource>(
    tokenizer: &mut Tokenizer<S>,
    text: &str,
    options: EncodeOptions,
) -> Result<Vec<u32>, NotEncoded> {
    encode_within(tokenizer, text, options, u64::MAX)
}

/// As [`encode`], in bounded memory: besides [`ENCODING_BYTES`], the text and what encoding it takes
/// stay within `most` bytes.
///
/// # Errors
/// Those of [`encode`], or a text that takes more memory.
pub fn encode_within<S: TableSource>(
    tokenizer: &mut Tokenizer<S>,
    text: &str,
    options: EncodeOptions,
    most: u64,
) -> Result<Vec<u32>, NotEncoded> {
    let length = text.len() as u64;
    let text = normalized(tokenizer, text);
    let enough = tokenizer.scratch_for(text.len());
    let copied = if matches!(text, Cow::Owned(_)) { text.len() as u64 } else { 0 };
    // A text has no more ids than bytes after normalization, but for those around it.
    let needed = length + copied + ids_bytes(enough) + word_bytes(enough);
    let too_much = NotEncoded::Memory { text: length, needed, most };
    let left = |taken: u64| most.saturating_add(TEXT_BYTES).checked_sub(taken).ok_or(too_much);
    let mut cache = vec![CachedWord::EMPTY; text.len().min(CACHED_WORDS)];
    // Memory for a longer word is only got if there is one: by and by, since text may be much longer.
    let mut symbols = enough.min(WORD_SYMBOLS);
    loop {
        let room = left(length + copied + word_bytes(symbols))? / size_of::<u32>() as u64;
        let mut ids = Vec::with_capacity(text.len() / 4);
        let mut scratch = vec![Symbol::EMPTY; symbols];
        let encoded = tokenizer.encode_cached(&text, options, &mut scratch, &mut cache, |id| {
            if ids.len() as u64 >= room {
                return Err(Full);
            }
            ids.push(id);
            Ok(())
        });
        let encoded = encoded.map_err(|error| match error {
            EncodeError::Full => too_much,
            error => NotEncoded::Tables(error),
        })?;
        if encoded.cuts == 0 || symbols == enough {
            return Ok(ids);
        }
        symbols = (4 * symbols).min(enough);
    }
}

fn ids_bytes(count: usize) -> u64 {
    (count * size_of::<u32>()) as u64
}

/// What scratch memory takes that is longer than expected.
fn word_bytes(symbols: usize) -> u64 {
    (symbols.saturating_sub(WORD_SYMBOLS) * size_of::<Symbol>()) as u64
}

/// What to say of a text whose ids begin or end with one that was put around it, although the text
/// had it already.
pub fn doubled<S: TableSource>(tokenizer: &Tokenizer<S>, ids: &[u32]) -> Option<String> {
    let [before, after] = tokenizer.template();
    let inner = ids.get(before..ids.len().checked_sub(after)?)?;
    let first = ids.get(before.wrapping_sub(1)).filter(|id| inner.first() == Some(id));
    let last = ids.get(before + inner.len()).filter(|id| inner.last() == Some(id));
    let (place, verb, id) = match (first, last) {
        (Some(id), _) => ("before", "begins", id),
        (None, Some(id)) => ("behind", "ends", id),
        (None, None) => return None,
    };
    Some(format!(
        "the prompt {verb} with token {id}, which is put {place} every text: it is there twice; \
         leave it out of the prompt"
    ))
}

//! Strings that end a text.

use crate::{Error, Result, tokenizer};
use omex_core::token::{DecodeError, Decoder, EncodeOptions, Tokenizer};

/// Bytes that a string which ends texts takes at most, with its tokens.
const MOST_BYTES: u64 = 1 << 20;

/// Ends a text before the first of some strings: what may begin one is held back until it is known.
/// The text is the same in any pieces.
#[derive(Clone, Debug, Default)]
pub struct Stops {
    strings: Vec<String>,
    /// Control tokens that the strings spell: they are no part of a text.
    tokens: Vec<u32>,
    held: String,
    reached: bool,
}

impl Stops {
    /// With the control tokens that some of the strings spell. Empty strings end nothing.
    ///
    /// # Errors
    /// Damaged tables, or a string that is too long.
    pub fn new(strings: &[String], tokenizer: Option<&mut Tokenizer<&[u8]>>) -> Result<Self> {
        let strings: Vec<_> = strings.iter().filter(|text| !text.is_empty()).cloned().collect();
        let mut stops = Self { strings, ..Self::default() };
        let Some(tokenizer) = tokenizer else { return Ok(stops) };
        let options = EncodeOptions { add_special: false, parse_special: true };
        for text in &stops.strings {
            let ids = tokenizer::encode_within(tokenizer, text, options, MOST_BYTES);
            let ids = ids.map_err(Error::Text)?;
            if let [id] = ids[..]
                && is_control(tokenizer, id)?
            {
                stops.tokens.push(id);
            }
        }
        Ok(stops)
    }

    /// Whether nothing ends a text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.strings.is_empty()
    }

    /// Whether the text has ended.
    #[must_use]
    pub fn reached(&self) -> bool {
        self.reached
    }

    /// Ends the text if this token is one of the control tokens.
    pub fn see(&mut self, token: u32) {
        self.reached |= self.tokens.contains(&token);
    }

    /// Adds to a text what can be told once a piece has come.
    pub fn push(&mut self, piece: &str, told: &mut String) {
        if self.reached {
            return;
        }
        self.held.push_str(piece);
        let first = self.first();
        self.reached = first.is_some();
        let known = first.unwrap_or_else(|| self.held.len() - self.may_begin());
        told.push_str(&self.held[..known]);
        self.held.drain(..if self.reached { self.held.len() } else { known });
    }

    /// Adds what was held back of a text that has ended otherwise.
    pub fn finish(&mut self, told: &mut String) {
        told.push_str(&std::mem::take(&mut self.held));
    }

    /// Where the string begins that is complete first.
    fn first(&self) -> Option<usize> {
        let ends = self.strings.iter().filter_map(|text| {
            self.held.find(text.as_str()).map(|start| (start + text.len(), start))
        });
        ends.min().map(|(_, start)| start)
    }

    /// Bytes at the end that may begin one of the strings.
    fn may_begin(&self) -> usize {
        let of = |text: &String| {
            let ends = text.char_indices().map(|(end, _)| end).rev();
            ends.into_iter().find(|end| self.held.ends_with(&text[..*end])).unwrap_or(0)
        };
        self.strings.iter().map(of).max().unwrap_or(0)
    }
}

fn is_control(tokenizer: &mut Tokenizer<&[u8]>, id: u32) -> Result<bool> {
    let mut text = DecodedText::behind(Decoder::new(false), Stops::default());
    text.push(tokenizer, id)
        .map_err(|e| Error::Usage(format!("token {id} can't be decoded: {e}")))?;
    text.finish();
    Ok(text.all.is_empty())
}

/// Text that is decoded as tokens come, until it ends.
#[derive(Clone, Debug)]
pub(crate) struct DecodedText {
    decoder: Decoder,
    stops: Stops,
    /// What could be told so far.
    pub(crate) all: String,
}

impl DecodedText {
    /// What follows the tokens that a decoder has seen.
    pub(crate) fn behind(decoder: Decoder, stops: Stops) -> Self {
        Self { decoder, stops, all: String::new() }
    }

    /// Whether one of the strings has ended it.
    pub(crate) fn has_ended(&self) -> bool {
        self.stops.reached()
    }

    /// What can be told with this token.
    pub(crate) fn push(
        &mut self,
        tokenizer: &mut Tokenizer<&[u8]>,
        id: u32,
    ) -> Result<&str, DecodeError> {
        let Self { decoder, stops, all } = self;
        let start = all.len();
        stops.see(id);
        tokenizer.decode(decoder, id, &mut |piece| stops.push(piece, all))?;
        Ok(&self.all[start..])
    }

    /// The rest of it.
    pub(crate) fn finish(&mut self) -> &str {
        let Self { decoder, stops, all } = self;
        let start = all.len();
        decoder.finish(&mut |piece| stops.push(piece, all));
        stops.finish(all);
        &self.all[start..]
    }
}

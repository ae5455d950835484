//! Ids to text, one at a time.

use super::error::DecodeError;
use super::layout::flag;
#[cfg(feature = "piece-tries")]
use super::layout::{CONTINUATION, Kind};
use super::source::TableSource;
use super::tables::Tables;
use core::str;

/// Bytes of a piece that are read at a time.
const CHUNK: usize = 64;

/// What has no space before it, in tidied text.
#[cfg(feature = "piece-tries")]
const CLOSE: [&[u8]; 9] = [b".", b"?", b"!", b",", b"n't", b"'m", b"'s", b"'ve", b"'re"];

/// Where decoding is in a text: bytes of an unfinished character, and whether anything was written yet.
///
/// What comes out over a whole text is what `String::from_utf8_lossy` makes of all its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    pending: [u8; 3],
    pending_length: u8,
    started: bool,
    show_special: bool,
}

/// As [`super::Tokenizer::piece`].
pub(super) fn piece<S: TableSource>(
    tables: &mut Tables<S>,
    id: u32,
    emit: &mut impl FnMut(&[u8]),
) -> Result<Option<bool>, DecodeError> {
    if id >= tables.header.vocabulary {
        return Ok(None);
    }
    let piece = tables.piece(id)?.ok_or(DecodeError::Corrupt)?;
    let (mut offset, mut left) = (piece.offset, piece.length as usize);
    while left > 0 {
        let mut buffer = [0; CHUNK];
        let (chunk, _) = buffer.split_at_mut(left.min(CHUNK));
        tables.read(offset, chunk)?;
        emit(chunk);
        (offset, left) = (offset.saturating_add(CHUNK as u32), left - chunk.len());
    }
    Ok(Some(piece.special))
}

impl Decoder {
    /// The start of a text, which has no space before its first word. Special tokens are written out if
    /// `show_special`, and left out if not. What follows a prompt is no start of a text:
    /// [`super::Tokenizer::decoder_after`].
    pub const fn new(show_special: bool) -> Self {
        Self { pending: [0; 3], pending_length: 0, started: false, show_special }
    }

    /// Ends the text: writes a replacement character for a character that was never finished.
    pub fn finish(&mut self, emit: &mut impl FnMut(&str)) {
        if self.pending_length > 0 {
            emit("\u{FFFD}");
        }
        *self = Self::new(self.show_special);
    }

    pub(super) fn push<S: TableSource>(
        &mut self,
        tables: &mut Tables<S>,
        id: u32,
        emit: &mut impl FnMut(&str),
    ) -> Result<(), DecodeError> {
        // A model's embedding may have more rows than the vocabulary has pieces.
        if id >= tables.header.vocabulary {
            return Ok(());
        }
        let piece = tables.piece(id)?.ok_or(DecodeError::Corrupt)?;
        if piece.special && !self.show_special {
            return Ok(());
        }
        let (mut offset, mut left) = (piece.offset, piece.length as usize);
        #[cfg(feature = "piece-tries")]
        let begin = offset;
        // The unknown token may have a text of its own, whose spaces are none of the text's.
        let shown = cfg!(feature = "piece-tries") && id == tables.header.unknown;
        while left > 0 {
            let mut buffer = [0; CHUNK];
            let length = left.min(CHUNK);
            let (chunk, _) = buffer.split_at_mut(length);
            tables.read(offset, chunk)?;
            left -= length;
            #[cfg(feature = "piece-tries")]
            let chunk = match tables.header.kind {
                Kind::WordPiece if offset == begin => self.joined(tables.header.flags, chunk, emit),
                _ => &*chunk,
            };
            offset = offset.saturating_add(CHUNK as u32);
            let chunk = match chunk {
                [b' ', rest @ ..]
                    if !self.started && tables.header.has(flag::STRIP_START) && !shown =>
                {
                    rest
                }
                all => all,
            };
            // Where spaces collapse in SentencePiece's Unigram, none of any piece begins a text.
            let blank = cfg!(feature = "piece-tries")
                && chunk.is_empty()
                && tables.header.has(flag::SINGLE)
                && tables.header.has(flag::COLLAPSE_SPACES);
            self.started |= !blank;
            self.bytes(chunk, emit);
        }
        Ok(())
    }

    /// The start of a WordPiece token without the mark that it goes on with a word; or with a space before it, if it
    /// begins one.
    #[cfg(feature = "piece-tries")]
    fn joined<'c>(&mut self, flags: u32, chunk: &'c [u8], emit: &mut impl FnMut(&str)) -> &'c [u8] {
        if !self.started {
            return chunk;
        }
        if let Some(rest) = chunk.strip_prefix(CONTINUATION) {
            return rest;
        }
        if flags & flag::CLEANUP == 0 || !CLOSE.iter().any(|close| chunk.starts_with(close)) {
            self.bytes(b" ", emit);
        }
        chunk
    }

    /// Writes all the characters that `chunk`, of at most [`CHUNK`] bytes, completes, and keeps the rest.
    fn bytes(&mut self, chunk: &[u8], emit: &mut impl FnMut(&str)) {
        let mut buffer = [0; CHUNK + 3];
        let kept = self.pending.iter().take(usize::from(self.pending_length));
        let length = buffer.iter_mut().zip(kept.chain(chunk)).map(|(to, from)| *to = *from).count();
        let mut rest = buffer.get(..length).unwrap_or_default();
        self.pending_length = 0;
        while !rest.is_empty() {
            match str::from_utf8(rest) {
                Ok(text) => {
                    emit(text);
                    return;
                }
                Err(error) => {
                    let (valid, bad) =
                        rest.split_at_checked(error.valid_up_to()).unwrap_or((&[], rest));
                    if let Ok(text) = str::from_utf8(valid)
                        && !text.is_empty()
                    {
                        emit(text);
                    }
                    let Some(skip) = error.error_len() else { return self.keep(bad) };
                    emit("\u{FFFD}");
                    rest = bad.get(skip..).unwrap_or_default();
                }
            }
        }
    }

    /// Keeps the start of a character: at most three bytes.
    fn keep(&mut self, bytes: &[u8]) {
        let kept = self.pending.iter_mut().zip(bytes).map(|(to, from)| *to = *from).count();
        self.pending_length = kept as u8;
    }
}

//! Words cut into pieces that a trie holds: the longest first (WordPiece; Wu et al., 2016).

use super::cache::{Found, Key};
use super::encode::Encoder;
use super::error::{EncodeError, Full};
use super::layout::{CONTINUATION, class};
use super::merge::Symbol;
use super::normal::Normalized;
use super::source::TableSource;
use core::mem;

impl<S: TableSource, F: FnMut(u32) -> Result<(), Full>> Encoder<'_, S, F> {
    /// Encodes text between added tokens: words end at white space, and punctuation is words of one character.
    pub(super) fn words_of_pieces(&mut self, text: &str) -> Result<(), EncodeError> {
        let mut normalized = Normalized::new(text);
        while let Some(c) = normalized.next(self.tables)? {
            if c.is_whitespace() {
                self.greedy_word()?;
            } else if self.tables.class_of(c)? & class::PUNCTUATION != 0 {
                self.greedy_word()?;
                self.put(c)?;
                self.greedy_word()?;
            } else {
                self.put(c)?;
            }
        }
        self.greedy_word()
    }

    /// Adds a character to the word, as its bytes.
    fn put(&mut self, c: char) -> Result<(), EncodeError> {
        self.length = self.length.saturating_add(1);
        // A longer word is one unknown token, whatever else it holds.
        if self.length > self.tables.second.longest_word {
            return Ok(());
        }
        if self.symbols + c.len_utf8() > self.scratch.len() {
            self.done.cuts = self.done.cuts.saturating_add(1);
            self.greedy_word()?;
            self.length = 1;
        }
        self.put_bytes(c);
        Ok(())
    }

    /// Adds the bytes of a character to the word, which has room for them.
    pub(super) fn put_bytes(&mut self, c: char) {
        let mut bytes = [0; 4];
        let places = self.scratch.get_mut(self.symbols..).unwrap_or_default();
        let bytes = c.encode_utf8(&mut bytes).bytes();
        places.iter_mut().zip(bytes).for_each(|(place, byte)| *place = Symbol::of_byte(byte));
        self.symbols += c.len_utf8();
    }

    /// Emits the ids of the word so far, and begins another.
    fn greedy_word(&mut self) -> Result<(), EncodeError> {
        let whole = mem::take(&mut self.length) <= self.tables.second.longest_word;
        let symbols = mem::take(&mut self.symbols);
        if symbols == 0 && whole {
            return Ok(());
        }
        let key = self.key(symbols).filter(|_| whole);
        if self.cached(key)? {
            return Ok(());
        }
        self.found = Found::NOTHING;
        match self.pieces(symbols)?.filter(|_| whole) {
            Some(count) => (0..count).try_for_each(|at| {
                let id = self.scratch.get(at).map(|symbol| symbol.piece());
                self.emit_found(id.ok_or(EncodeError::Corrupt)?)
            })?,
            None if self.tables.header.unknown < self.tables.header.vocabulary => {
                self.emit_found(self.tables.header.unknown)?;
            }
            None => {}
        }
        if let Some(key) = key {
            self.found.keep(key, self.cache);
        }
        Ok(())
    }

    pub(super) fn emit_found(&mut self, id: u32) -> Result<(), EncodeError> {
        self.found.push(id);
        self.emit(id)
    }

    /// The cache's key of the word in the first symbols.
    pub(super) fn key(&self, symbols: usize) -> Option<Key> {
        let mut bytes = [0; 16];
        let word = self.scratch.get(..symbols)?.iter().map(|symbol| symbol.byte());
        bytes.iter_mut().zip(word).for_each(|(to, from)| *to = from);
        Key::new(&bytes, symbols)
    }

    /// Cuts the word in the first symbols into the longest pieces, which replace them: their number, or none if some
    /// of the word is in no piece.
    fn pieces(&mut self, symbols: usize) -> Result<Option<usize>, EncodeError> {
        let (mut at, mut count) = (0, 0);
        while at < symbols {
            let trie = self.tables.header.pieces_trie();
            let mut node = self.tables.root(trie)?;
            for &byte in CONTINUATION.iter().filter(|_| at > 0) {
                let Some(parent) = node else { return Ok(None) };
                node = self.tables.child(trie, parent, byte)?;
            }
            let Some(node) = node else { return Ok(None) };
            let word = self.scratch.get(at..symbols).unwrap_or_default();
            let bytes = word.iter().map(|symbol| symbol.byte());
            let Some((id, length)) = self.tables.longest(trie, node, bytes)? else {
                return Ok(None);
            };
            self.done.steps += length as u64;
            at += length;
            let place = self.scratch.get_mut(count).ok_or(EncodeError::Corrupt)?;
            place.set_piece(id);
            count += 1;
        }
        Ok(Some(count))
    }
}

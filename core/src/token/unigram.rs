//! Words cut into the pieces whose scores have the greatest sum (the Unigram model; Kudo, 2018), by Viterbi's
//! algorithm, as SentencePiece and `tokenizers` have it: of equal sums, that found first.

use super::cache::Found;
use super::encode::Encoder;
use super::error::{EncodeError, Full};
use super::layout::{NONE, flag};
use super::merge::Symbol;
use super::normal::Normalized;
use super::source::TableSource;
use core::mem;

/// The character that stands for a space.
const MARK: char = '\u{2581}';

/// Where a stretch of text is.
struct Stretch {
    /// A mark comes before the first character.
    prefix: bool,
    /// Marks that come before the next character, and are dropped at the end.
    pending: u32,
    /// The last character was a space that is one with those that follow.
    blank: bool,
}

impl<S: TableSource, F: FnMut(u32) -> Result<(), Full>> Encoder<'_, S, F> {
    fn has(&self, flag: u32) -> bool {
        self.tables.header.has(flag)
    }

    /// Encodes text between added tokens; a mark is put before it if it is `prefixed`.
    pub(super) fn best_pieces(&mut self, text: &str, prefixed: bool) -> Result<(), EncodeError> {
        self.sum = 0.0;
        let unless = self.has(flag::PREFIX_UNLESS_SPACE);
        let mut stretch = Stretch { prefix: prefixed, pending: 0, blank: !unless };
        let mut normalized = Normalized::new(text);
        while let Some(c) = normalized.next(self.tables)? {
            if self.has(flag::SPLIT_BLANKS) && c.is_whitespace() {
                self.best_word()?;
                stretch.prefix = prefixed;
            } else if self.has(flag::COLLAPSE_SPACES) && c == ' ' {
                stretch.pending += u32::from(!mem::replace(&mut stretch.blank, true));
            } else {
                stretch.blank = false;
                self.next_character(&mut stretch, if c == ' ' { MARK } else { c })?;
            }
        }
        self.best_word()
    }

    fn next_character(&mut self, stretch: &mut Stretch, c: char) -> Result<(), EncodeError> {
        let unless = self.has(flag::PREFIX_UNLESS_SPACE);
        if self.has(flag::COLLAPSE_SPACES) && !unless && c == MARK {
            // SentencePiece drops these at the end as it does spaces.
            stretch.pending = stretch.pending.saturating_add(1);
            return Ok(());
        }
        let marked = stretch.pending > 0 || c == MARK;
        if mem::take(&mut stretch.prefix) && !(unless && marked) {
            self.put_marked(MARK)?;
        }
        for _ in 0..mem::take(&mut stretch.pending) {
            self.put_marked(MARK)?;
        }
        self.put_marked(c)
    }

    /// Adds a character to the word, or to the next if the word ends before it.
    fn put_marked(&mut self, c: char) -> Result<(), EncodeError> {
        let ends =
            self.has(flag::SPLIT_SPACES) || (self.has(flag::SPLIT_WORDS) && !self.after_mark);
        if c == MARK && ends {
            self.best_word()?;
        }
        self.after_mark = c == MARK;
        // One symbol more holds the end of the best path.
        if self.symbols + c.len_utf8() >= self.scratch.len() {
            self.done.cuts = self.done.cuts.saturating_add(1);
            self.best_word()?;
        }
        self.put_bytes(c);
        Ok(())
    }

    /// Emits the ids of the word so far, and begins another.
    fn best_word(&mut self) -> Result<(), EncodeError> {
        let symbols = mem::take(&mut self.symbols);
        if symbols == 0 {
            return Ok(());
        }
        // Elsewhere, sums go on from word to word, and unknown tokens are one across them.
        let alone = self.has(flag::SPLIT_SPACES) || self.has(flag::SPLIT_BLANKS);
        let key = self.key(symbols).filter(|_| alone);
        if alone {
            (self.sum, self.after_unknown) = (0.0, false);
        }
        if self.cached(key)? {
            return Ok(());
        }
        self.found = Found::NOTHING;
        self.paths(symbols)?;
        self.turn(symbols);
        self.emit_path(symbols)?;
        if let Some(key) = key {
            self.found.keep(key, self.cache);
        }
        Ok(())
    }

    fn at(&self, position: usize) -> Symbol {
        self.scratch.get(position).copied().unwrap_or(Symbol::EMPTY)
    }

    /// Finds the best path to each place of the word.
    fn paths(&mut self, symbols: usize) -> Result<(), EncodeError> {
        *self.scratch.get_mut(symbols).ok_or(EncodeError::Scratch)? = Symbol::of_byte(0);
        let mut start = 0;
        while start < symbols {
            let sum = if start == 0 { self.sum } else { self.at(start).sum() };
            let width = self.character_width(start, symbols);
            let alone = self.extend(start, symbols, width, sum)?;
            if !alone {
                self.offer(start, start + width, NONE, self.add(self.tables.second.unknown, sum));
            }
            start += width;
        }
        self.sum = self.at(symbols).sum();
        Ok(())
    }

    /// Bytes of the character at `start`.
    fn character_width(&self, start: usize, symbols: usize) -> usize {
        let rest = self.scratch.get(start..symbols).unwrap_or_default();
        let behind = rest.iter().skip(1).take_while(|symbol| symbol.byte() & 0xC0 == 0x80).count();
        1 + behind
    }

    /// Offers every piece that the word has at `start`; says whether its first character is one.
    fn extend(
        &mut self,
        start: usize,
        symbols: usize,
        width: usize,
        sum: f64,
    ) -> Result<bool, EncodeError> {
        let trie = self.tables.header.pieces_trie();
        let mut node = self.tables.root(trie)?;
        let mut alone = false;
        for end in (start + 1..=symbols).take(super::layout::MAX_KEY) {
            let Some(parent) = node else { break };
            node = self.tables.child(trie, parent, self.at(end - 1).byte())?;
            self.done.steps += 1;
            let Some(child) = node else { break };
            if let Some(id) = self.tables.value(trie, child)? {
                let score = self.tables.score(id)?;
                alone |= end - start == width;
                self.offer(start, end, id, score + sum);
            }
        }
        Ok(alone)
    }

    /// The sum of an unknown character: SentencePiece rounds it before it compares, as it does no other.
    fn add(&self, score: f64, sum: f64) -> f64 {
        let sum = score + sum;
        if self.has(flag::SINGLE) { f64::from(sum as f32) } else { sum }
    }

    /// Makes a piece the last of the best path to `end`, if its sum is greater.
    fn offer(&mut self, start: usize, end: usize, id: u32, sum: f64) {
        let single = self.has(flag::SINGLE);
        if let Some(symbol) = self.scratch.get_mut(end)
            && (!symbol.reached() || sum > symbol.sum())
        {
            let kept = if single { f64::from(sum as f32) } else { sum };
            symbol.reach(start as u32, id, kept);
        }
    }

    /// Makes the best path lead from the start to the end.
    fn turn(&mut self, symbols: usize) {
        let (mut end, mut id) = (symbols, NONE);
        let mut behind = symbols;
        loop {
            let symbol = self.at(end);
            if let Some(place) = self.scratch.get_mut(end) {
                place.lead(behind as u32, id);
            }
            if end == 0 {
                return;
            }
            (behind, id) = (end, symbol.piece());
            // A path never goes back to where it was.
            end = (symbol.start() as usize).min(end - 1);
        }
    }

    /// Emits the pieces of the best path, and what stands for characters in no piece.
    fn emit_path(&mut self, symbols: usize) -> Result<(), EncodeError> {
        let mut at = 0;
        while at < symbols {
            let symbol = self.at(at);
            let end = (symbol.start() as usize).clamp(at + 1, symbols);
            match symbol.piece() {
                NONE => self.unknown_piece(at, end)?,
                id => {
                    self.after_unknown = false;
                    self.emit_found(id)?;
                }
            }
            at = end;
        }
        Ok(())
    }

    /// Emits the tokens of a character's bytes, or the unknown token if one of them is missing.
    fn unknown_piece(&mut self, start: usize, end: usize) -> Result<(), EncodeError> {
        let mut known = true;
        for at in start..end {
            known &= self.tables.byte(self.at(at).byte())?.is_some();
        }
        for at in (start..end).filter(|_| known) {
            if let Some(id) = self.tables.byte(self.at(at).byte())? {
                self.emit_found(id)?;
            }
        }
        let after = mem::replace(&mut self.after_unknown, !known);
        let unknown = self.tables.header.unknown;
        if known
            || unknown >= self.tables.header.vocabulary
            || (after && self.has(flag::FUSE_UNKNOWN))
        {
            return Ok(());
        }
        self.emit_found(unknown)
    }
}

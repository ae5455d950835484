//! Text to ids: added tokens are found first, what lies between them is cut into words, words are merged.

use super::cache::{CachedWord, Found, Key};
use super::error::{EncodeError, Full};
#[cfg(feature = "scanners")]
use super::layout::PreTokenizer;
use super::layout::{Kind, MAX_ADDED, added, flag};
use super::merge::{Symbol, merge};
use super::source::{SourceError, TableSource};
use super::tables::{Added, Pass, Tables, TokenizerHeader};
use super::{EncodeOptions, Encoded};
use core::iter;

/// Scratch memory is at least this many symbols.
pub const MIN_SCRATCH: usize = 16;
/// No more than this many symbols are used: positions in a word, doubled, fit in 32 bits.
const MAX_SCRATCH: usize = 1 << 30;
/// The character that stands for a space in SentencePiece's vocabularies.
const SPACE_MARK: char = '\u{2581}';

/// An added token found in a text, and the bytes that it covers.
struct Match {
    token: Added,
    start: usize,
    end: usize,
    /// It covers the space that is put before the text, too.
    with_prefix: bool,
}

/// How added tokens are compared with a text.
#[derive(Clone, Copy)]
struct Search {
    pass: Pass,
    /// Tokens begin with a space that they are stored without.
    spaced: bool,
    /// U+2581 and a space are the same.
    marked: bool,
}

impl Search {
    fn new(header: &TokenizerHeader, pass: Pass) -> Self {
        let normalized = pass == Pass::Second && header.has(flag::SECOND_IN_NORMALIZED);
        let spaced = normalized && header.has(flag::PREFIX_ALWAYS);
        Self { pass, spaced, marked: normalized && header.has(flag::SPACE_MARK) }
    }

    /// The byte of a text that is next to be compared, and how many bytes it stands for.
    fn next(self, text: &[u8]) -> Option<(u8, usize)> {
        if self.marked && text.starts_with("\u{2581}".as_bytes()) {
            return Some((b' ', SPACE_MARK.len_utf8()));
        }
        text.first().map(|&byte| (byte, 1))
    }

    /// White space that a token takes, as the text has it where tokens are sought.
    fn is_blank(self, c: char) -> bool {
        c.is_whitespace() && !(self.marked && c == ' ')
    }
}

impl<S: TableSource> Tables<S> {
    /// The first added token in `text` at or after byte `from`: of several at one place, the longest. A space is put
    /// before the text if it is `prefixed`.
    fn find_added(
        &mut self,
        search: Search,
        text: &str,
        from: usize,
        prefixed: bool,
    ) -> Result<Option<Match>, SourceError> {
        let (first, end) = self.header.sought(search.pass);
        if first >= end {
            return Ok(None);
        }
        if search.spaced
            && prefixed
            && let Some((token, end)) = self.added_at(search, text, 0)?
        {
            return Ok(Some(Match { token, start: 0, end, with_prefix: true }));
        }
        let first_bytes = self.header.first_bytes;
        let starts = |b: u8| {
            first_bytes.get(usize::from(b >> 3)).is_some_and(|bits| bits >> (b & 7) & 1 == 1)
        };
        for start in from..text.len() {
            let Some((byte, width)) = search.next(text.as_bytes().get(start..).unwrap_or_default())
            else {
                break;
            };
            let space = match byte {
                b' ' if search.spaced => width,
                byte if !search.spaced && starts(byte) => 0,
                _ => continue,
            };
            if let Some((token, end)) = self.added_at(search, text, start + space)? {
                return Ok(Some(Match { token, start, end, with_prefix: false }));
            }
        }
        Ok(None)
    }

    /// The longest added token at a place of a text, and where it ends.
    fn added_at(
        &mut self,
        search: Search,
        text: &str,
        start: usize,
    ) -> Result<Option<(Added, usize)>, SourceError> {
        let here = text.as_bytes().get(start..).unwrap_or_default();
        let found = self.longest_added(search, here)?;
        let end = |(token, length)| (token, start + length);
        let whole = |at: usize| text.is_char_boundary(at);
        Ok(found.map(end).filter(|(_, end)| whole(start) && whole(*end)))
    }

    /// The longest added token that `text` starts with, and its bytes there. The table is sorted, so each byte narrows
    /// a range of it.
    fn longest_added(
        &mut self,
        search: Search,
        text: &[u8],
    ) -> Result<Option<(Added, usize)>, SourceError> {
        let (mut low, mut high) = self.header.sought(search.pass);
        let (mut found, mut at) = (None, 0);
        for depth in 0..MAX_ADDED {
            let rest = text.get(at..).unwrap_or_default();
            let Some((b, width)) = search.next(rest) else { break };
            at += width;
            let byte = Some(b);
            let (first, last) = (self.added(low)?, self.added(high.saturating_sub(1))?);
            let (least, most) = (self.added_byte(first, depth)?, self.added_byte(last, depth)?);
            // Mostly, no token goes on with this byte, or all of them do.
            if byte < least || byte > most {
                break;
            }
            if least != byte {
                low = self.partition_added(low, high, |other| other < byte, depth)?;
            }
            if most != byte {
                high = self.partition_added(low, high, |other| other <= byte, depth)?;
            }
            if low >= high {
                break;
            }
            let token = self.added(low)?;
            if self.added_byte(token, depth + 1)?.is_none() {
                found = Some((token, at));
            }
        }
        Ok(found)
    }

    fn partition_added(
        &mut self,
        mut low: u32,
        mut high: u32,
        before: impl Fn(Option<u8>) -> bool,
        depth: usize,
    ) -> Result<u32, SourceError> {
        while low < high {
            let middle = low + (high - low) / 2;
            let token = self.added(middle)?;
            if before(self.added_byte(token, depth)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Byte `index` of an added token, none past its end.
    fn added_byte(&mut self, token: Added, index: usize) -> Result<Option<u8>, SourceError> {
        let Some(piece) = self.piece(token.id)? else { return Ok(None) };
        if index >= piece.length as usize {
            return Ok(None);
        }
        let mut byte = [0];
        self.read(piece.offset.saturating_add(index as u32), &mut byte)?;
        Ok(byte.first().copied())
    }
}

/// The text from the last of the spaces on that it begins with.
fn last_space(text: &str) -> &str {
    let spaces = text.len() - text.trim_start_matches(' ').len();
    text.get(spaces.saturating_sub(1)..).unwrap_or("")
}

/// One call of encode: the caller's memory and sink, and what has been done.
pub(super) struct Encoder<'a, S, F> {
    pub(super) tables: &'a mut Tables<S>,
    pub(super) scratch: &'a mut [Symbol],
    pub(super) cache: &'a mut [CachedWord],
    sink: F,
    /// Symbols of the word so far.
    pub(super) symbols: usize,
    /// Characters of the word so far, those without symbols too.
    #[cfg(feature = "piece-tries")]
    pub(super) length: u32,
    /// The sum of the scores of the stretch so far.
    #[cfg(feature = "piece-tries")]
    pub(super) sum: f64,
    /// The last character of the word so far stands for a space.
    #[cfg(feature = "piece-tries")]
    pub(super) after_mark: bool,
    /// Ids of the word so far.
    pub(super) found: Found,
    /// Some of the word so far is unknown.
    unknown: bool,
    pub(super) after_unknown: bool,
    pub(super) done: Encoded,
}

impl<'a, S: TableSource, F: FnMut(u32) -> Result<(), Full>> Encoder<'a, S, F> {
    pub(super) fn new(
        tables: &'a mut Tables<S>,
        scratch: &'a mut [Symbol],
        cache: &'a mut [CachedWord],
        sink: F,
    ) -> Result<Self, EncodeError> {
        if scratch.len() < MIN_SCRATCH {
            return Err(EncodeError::Scratch);
        }
        let usable = scratch.len().min(MAX_SCRATCH);
        let scratch = scratch.get_mut(..usable).ok_or(EncodeError::Scratch)?;
        Ok(Self {
            tables,
            scratch,
            cache,
            sink,
            symbols: 0,
            #[cfg(feature = "piece-tries")]
            length: 0,
            #[cfg(feature = "piece-tries")]
            sum: 0.0,
            #[cfg(feature = "piece-tries")]
            after_mark: false,
            found: Found::NOTHING,
            unknown: false,
            after_unknown: false,
            done: Encoded::default(),
        })
    }

    pub(super) fn run(
        mut self,
        text: &str,
        options: EncodeOptions,
    ) -> Result<Encoded, EncodeError> {
        let (before, after) = (self.tables.header.before, self.tables.header.after);
        if options.add_special {
            self.template(0, before)?;
        }
        self.around(Pass::First, text, true, options)?;
        if options.add_special {
            self.template(before, after)?;
        }
        Ok(self.done)
    }

    /// Encodes a text around the added tokens of a pass; `first` if it begins the whole text.
    fn around(
        &mut self,
        pass: Pass,
        text: &str,
        first: bool,
        options: EncodeOptions,
    ) -> Result<(), EncodeError> {
        if text.is_empty() {
            return Ok(());
        }
        let search = Search::new(&self.tables.header, pass);
        let (mut plain, mut from) = (0, 0);
        while let Some(found) = self.tables.find_added(search, text, from, from == 0)? {
            let Match { token, start, end, with_prefix } = found;
            from = end;
            if token.special() && !options.parse_special {
                continue;
            }
            let mut between = text.get(plain..start).unwrap_or("");
            // The prefix is a space itself, where spaces are not marked.
            let mut prefix = plain == 0 && !with_prefix;
            if token.is(added::STRIP_LEFT) {
                between = between.trim_end_matches(|c| search.is_blank(c));
                prefix &= search.marked || !between.is_empty();
            }
            self.between(search, between, first && plain == 0, prefix, options)?;
            self.emit(token.id)?;
            plain = end;
            // A token may begin with white space that this one takes.
            if token.is(added::STRIP_RIGHT) {
                let rest = text.get(end..).unwrap_or("");
                plain += rest.len() - rest.trim_start_matches(|c| search.is_blank(c)).len();
            }
        }
        let rest = text.get(plain..).unwrap_or("");
        self.between(search, rest, first && plain == 0, plain == 0, options)
    }

    /// Encodes what a pass left between added tokens; a space is put before it only if it has its `prefix` still.
    fn between(
        &mut self,
        search: Search,
        text: &str,
        first: bool,
        prefix: bool,
        options: EncodeOptions,
    ) -> Result<(), EncodeError> {
        match search.pass {
            Pass::First => self.around(Pass::Second, text, first, options),
            Pass::Second if search.spaced => self.stretch(text, first, prefix),
            Pass::Second if text.is_empty() => Ok(()),
            Pass::Second => self.stretch(text, first, true),
        }
    }

    fn template(&mut self, from: u16, count: u16) -> Result<(), EncodeError> {
        for index in from..from.saturating_add(count) {
            let id = self.tables.template(index)?;
            self.emit(id)?;
        }
        Ok(())
    }

    pub(super) fn emit(&mut self, id: u32) -> Result<(), EncodeError> {
        if id >= self.tables.header.vocabulary {
            return Err(EncodeError::Corrupt);
        }
        (self.sink)(id)?;
        self.done.ids = self.done.ids.wrapping_add(1);
        Ok(())
    }

    /// Encodes text between added tokens; `first` if it begins the whole text, `prefix` if a space may be put before it.
    fn stretch(&mut self, text: &str, first: bool, prefix: bool) -> Result<(), EncodeError> {
        self.after_unknown = false;
        match self.tables.header.kind {
            Kind::Bytes => self.words_of_bytes(text),
            Kind::Characters => self.words_of_characters(text, first, prefix),
            #[cfg(feature = "piece-tries")]
            Kind::WordPiece => self.words_of_pieces(text),
            #[cfg(feature = "piece-tries")]
            Kind::Unigram => {
                let prefixed = prefix && self.prefixed(first);
                self.best_pieces(text, prefixed)
            }
            #[cfg(not(feature = "piece-tries"))]
            Kind::WordPiece | Kind::Unigram => Err(EncodeError::Corrupt),
        }
    }

    /// Whether flags ask for a space before a stretch; `first` if it begins the whole text.
    #[cfg(feature = "piece-tries")]
    fn prefixed(&self, first: bool) -> bool {
        let header = &self.tables.header;
        header.has(flag::PREFIX_ALWAYS) || (first && header.has(flag::PREFIX_FIRST))
    }

    fn words_of_bytes(&mut self, mut text: &str) -> Result<(), EncodeError> {
        while !text.is_empty() {
            let length = self.tables.first_word(text)?;
            #[cfg(feature = "scanners")]
            let ended = self.tables.header.pre_tokenizer == PreTokenizer::Clip;
            #[cfg(feature = "scanners")]
            if ended && text.starts_with(char::is_whitespace) {
                text = text.get(length..).ok_or(EncodeError::Corrupt)?;
                continue;
            }
            text = self.word(text, length, |encoder, word| {
                for &byte in word.as_bytes() {
                    encoder.make_room(1)?;
                    let id = encoder.tables.byte(byte)?;
                    encoder.symbol(id)?;
                }
                #[cfg(feature = "scanners")]
                if ended {
                    encoder.make_room(1)?;
                    encoder.symbol(Some(encoder.tables.header.unknown))?;
                }
                encoder.merge()
            })?;
        }
        Ok(())
    }

    fn words_of_characters(
        &mut self,
        mut text: &str,
        first: bool,
        prefix: bool,
    ) -> Result<(), EncodeError> {
        let header = self.tables.header;
        let space = if header.has(flag::SPACE_MARK) { SPACE_MARK } else { ' ' };
        let marked = |c| if c == ' ' { space } else { c };
        let prefixed = prefix
            && (header.has(flag::PREFIX_ALWAYS) || (first && header.has(flag::PREFIX_FIRST)))
            && !(header.has(flag::PREFIX_UNLESS_SPACE)
                && text.chars().next().map(marked) == Some(space));
        if header.has(flag::COLLAPSE_SPACES) {
            return self.collapsed(text, prefixed, space);
        }
        if prefixed {
            // The word with this space is not the word as it stands in the text: neither cache nor table has it.
            let length = self.tables.first_marked_word(text, true);
            let (word, rest) = text.split_at_checked(length).ok_or(EncodeError::Corrupt)?;
            self.characters(iter::once(space).chain(word.chars().map(marked)))?;
            text = rest;
        }
        while !text.is_empty() {
            let length = self.tables.first_marked_word(text, false);
            text = self
                .word(text, length, |encoder, word| encoder.characters(word.chars().map(marked)))?;
        }
        Ok(())
    }

    /// Encodes the words between runs of spaces, with one space before each, but before the first only if there is a
    /// prefix.
    fn collapsed(&mut self, text: &str, prefixed: bool, space: char) -> Result<(), EncodeError> {
        let marked = |c| if c == ' ' { space } else { c };
        let words = text.split(' ').filter(|word| !word.is_empty());
        if !self.tables.header.has(flag::SPLIT_WORDS) {
            let spaces = iter::once(prefixed).chain(iter::repeat(true));
            let marks = spaces.map(|spaced| spaced.then_some(space).into_iter());
            let words = marks.zip(words);
            return self.characters(words.flat_map(|(mark, word)| mark.chain(word.chars())));
        }
        let text = text.trim_matches(' ');
        let first = text.find(' ').unwrap_or(text.len());
        let (word, rest) = text.split_at_checked(first).unwrap_or((text, ""));
        if !word.is_empty() {
            self.characters(prefixed.then_some(space).into_iter().chain(word.chars()))?;
        }
        let mut rest = last_space(rest);
        while let Some(behind) = rest.get(1..) {
            let length = 1 + behind.find(' ').unwrap_or(behind.len());
            let characters =
                |encoder: &mut Self, word: &str| encoder.characters(word.chars().map(marked));
            rest = last_space(self.word(rest, length, characters)?);
        }
        Ok(())
    }

    /// Merges the characters of a word.
    fn characters(&mut self, characters: impl Iterator<Item = char>) -> Result<(), EncodeError> {
        for c in characters {
            self.make_room(c.len_utf8())?;
            match self.tables.character(c)? {
                Some(id) => self.symbol(Some(id))?,
                None => self.byte_tokens(c)?,
            }
        }
        self.merge()
    }

    /// Encodes the first `length` bytes of `text`, a word: from the cache, as one token, or by `merge`. Returns what
    /// follows.
    #[inline]
    fn word<'t>(
        &mut self,
        text: &'t str,
        length: usize,
        merge: impl FnOnce(&mut Self, &str) -> Result<(), EncodeError>,
    ) -> Result<&'t str, EncodeError> {
        let (word, rest) = text.split_at_checked(length).ok_or(EncodeError::Corrupt)?;
        let key = Key::new(text.as_bytes(), length);
        if !self.cached(key)? {
            self.uncached(word, key, merge)?;
        }
        Ok(rest)
    }

    /// Emits the ids of a word that is in the cache; says whether it is.
    #[inline]
    pub(super) fn cached(&mut self, key: Option<Key>) -> Result<bool, EncodeError> {
        let Some(ids) = key.and_then(|key| key.ids(self.cache)) else { return Ok(false) };
        // Only words without unknown characters are in the cache.
        self.after_unknown = false;
        for id in ids {
            self.emit(id)?;
        }
        Ok(true)
    }

    /// Encodes a word, and keeps it in the cache if its ids depend on nothing else.
    #[inline(never)]
    fn uncached(
        &mut self,
        word: &str,
        key: Option<Key>,
        merge: impl FnOnce(&mut Self, &str) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let cuts = self.done.cuts;
        (self.found, self.unknown) = (Found::NOTHING, false);
        if let Some(id) = self.tables.whole_word(word.as_bytes())? {
            self.after_unknown = false;
            self.found.push(id);
            self.emit(id)?;
        } else {
            merge(self, word)?;
        }
        if let Some(key) = key
            && cuts == self.done.cuts
            && !self.unknown
        {
            self.found.keep(key, self.cache);
        }
        Ok(())
    }

    /// A character that the vocabulary lacks: the tokens of its bytes, or the unknown token if one of them is missing.
    fn byte_tokens(&mut self, c: char) -> Result<(), EncodeError> {
        let mut buffer = [0; 4];
        let bytes = c.encode_utf8(&mut buffer).as_bytes();
        for &byte in bytes {
            if self.tables.byte(byte)?.is_none() {
                return self.symbol(None);
            }
        }
        for &byte in bytes {
            let id = self.tables.byte(byte)?;
            self.symbol(id)?;
        }
        Ok(())
    }

    /// Adds a symbol to the word: without an id the unknown token, or nothing where there is none.
    fn symbol(&mut self, id: Option<u32>) -> Result<(), EncodeError> {
        let header = &self.tables.header;
        let fused = self.after_unknown && header.has(flag::FUSE_UNKNOWN);
        self.after_unknown = id.is_none();
        self.unknown |= id.is_none();
        let id = match id {
            Some(id) => id,
            None if header.unknown < header.vocabulary && !fused => header.unknown,
            None => return Ok(()),
        };
        let place = self.scratch.get_mut(self.symbols).ok_or(EncodeError::Scratch)?;
        *place = Symbol::new(id);
        self.symbols += 1;
        Ok(())
    }

    /// Cuts the word here if the scratch memory has no room for `count` symbols more.
    fn make_room(&mut self, count: usize) -> Result<(), EncodeError> {
        if self.symbols + count > self.scratch.len() {
            self.done.cuts = self.done.cuts.saturating_add(1);
            self.merge()?;
        }
        Ok(())
    }

    /// Merges the word so far and emits its ids.
    fn merge(&mut self) -> Result<(), EncodeError> {
        let Self { tables, scratch, sink, symbols, found, done, .. } = self;
        let word = scratch.get_mut(..*symbols).ok_or(EncodeError::Scratch)?;
        *symbols = 0;
        let ids = &mut done.ids;
        done.steps += merge(
            word,
            |left, right| tables.merge(left, right).map_err(EncodeError::from),
            |id| {
                *ids = ids.wrapping_add(1);
                found.push(id);
                sink(id).map_err(EncodeError::from)
            },
        )?;
        Ok(())
    }
}

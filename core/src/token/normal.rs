//! Text as a tokenizer's normalization makes it, character by character: the section says what becomes of each.

use super::layout::{class, flag};
use super::source::{SourceError, TableSource};
use super::tables::Tables;
use core::mem;

/// The first Hangul syllable, and the jamo that syllables are counted by (The Unicode Standard, section 3.12).
const SYLLABLE: u32 = 0xAC00;
const SYLLABLES: u32 = 11172;
const LEADING: u32 = 0x1100;
const VOWEL: u32 = 0x1161;
const TRAILING: u32 = 0x11A7;
const VOWELS: u32 = 21;
const TRAILINGS: u32 = 28;

/// A text while it is normalized.
pub(super) struct Normalized<'t> {
    rest: &'t str,
    /// Where in the replacements the next character is.
    replacement: Option<u32>,
    /// Characters that come before all others.
    queue: [Option<char>; 2],
    /// The class of the last character, if that was not replaced with its whole cluster.
    before: Option<u32>,
}

/// Clusters of no more bytes than this are replaced as a whole.
const CLUSTER: usize = 5;

/// Whether a character goes on with the cluster of the one before it (Unicode Standard Annex 29), where clusters of
/// at most [`CLUSTER`] bytes may end: other rules join more bytes than these.
fn joins(before: u32, class: u32) -> bool {
    before & class::CONTROL == 0
        && (class & class::EXTEND != 0
            || before & class::PREPEND != 0 && class & class::CONTROL == 0)
}

impl<'t> Normalized<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self { rest: text, replacement: None, queue: [None; 2], before: None }
    }

    /// The next character, none at the end.
    pub(super) fn next<S: TableSource>(
        &mut self,
        tables: &mut Tables<S>,
    ) -> Result<Option<char>, SourceError> {
        loop {
            let [first, second] = &mut self.queue;
            if let Some(c) = mem::replace(first, second.take()) {
                return Ok(Some(c));
            }
            if let Some(offset) = self.replacement {
                let c = tables.replacement(offset)?;
                self.replacement = c.map(|c| offset.saturating_add(c.len_utf8() as u32));
                if c.is_some() {
                    return Ok(c);
                }
            }
            let Some(c) = self.rest.chars().next() else { return Ok(None) };
            if let Some(c) = self.take(tables, c)? {
                return Ok(Some(c));
            }
        }
    }

    /// Takes a character from the text: what it becomes first, if that is known at once.
    #[inline]
    fn take<S: TableSource>(
        &mut self,
        tables: &mut Tables<S>,
        c: char,
    ) -> Result<Option<char>, SourceError> {
        if tables.header.has(flag::CLUSTERS) {
            return self.take_cluster(tables, c);
        }
        let class = tables.class_of(c)?;
        if class & class::REPLACED != 0
            && let Some((value, length)) = tables.replaced(self.rest)?
        {
            self.skip(length);
            self.replacement = Some(value);
            return Ok(None);
        }
        self.skip(c.len_utf8());
        if class & class::REMOVED != 0 {
            return Ok(None);
        }
        if class & class::BLANK != 0 {
            return Ok(Some(' '));
        }
        if class & class::PADDED != 0 {
            self.queue = [Some(c), Some(' ')];
            return Ok(Some(' '));
        }
        if (SYLLABLE..SYLLABLE + SYLLABLES).contains(&u32::from(c))
            && tables.header.has(flag::HANGUL)
        {
            return Ok(self.syllable(u32::from(c) - SYLLABLE));
        }
        Ok(Some(c))
    }

    /// Takes a cluster that is replaced as a whole, or a character.
    fn take_cluster<S: TableSource>(
        &mut self,
        tables: &mut Tables<S>,
        c: char,
    ) -> Result<Option<char>, SourceError> {
        let class = tables.class_of(c)?;
        let inside = self.before.is_some_and(|before| joins(before, class));
        let width = c.len_utf8();
        let length = if inside { width } else { tables.cluster(self.rest, class)? };
        if class & class::REPLACED != 0 {
            let parts = [length, width].into_iter().filter(|&length| length <= CLUSTER);
            for length in parts {
                let key = self.rest.as_bytes().get(..length).unwrap_or_default();
                let value = tables.shortest(tables.second.replaced, key)?;
                if value.is_some() {
                    self.skip(length);
                    self.before = Some(class).filter(|_| inside || length == width);
                    self.replacement = value;
                    return Ok(None);
                }
            }
        }
        self.before = Some(class);
        self.skip(width);
        Ok(Some(c))
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or("");
    }

    /// Takes a syllable apart.
    fn syllable(&mut self, index: u32) -> Option<char> {
        let trailing = TRAILING + index % TRAILINGS;
        let vowel = VOWEL + index / TRAILINGS % VOWELS;
        let trailing = char::from_u32(trailing).filter(|_| trailing != TRAILING);
        self.queue = [char::from_u32(vowel), trailing];
        char::from_u32(LEADING + index / TRAILINGS / VOWELS)
    }
}

impl<S: TableSource> Tables<S> {
    /// The class bits of a character, whatever it is.
    #[inline]
    pub(super) fn class_of(&mut self, c: char) -> Result<u32, SourceError> {
        match self.second.ascii.get(c as usize) {
            Some(&class) => Ok(class.into()),
            None => self.class(c),
        }
    }

    /// The bytes of the cluster that a text begins with, whose first character is of `class`; but more than
    /// [`CLUSTER`] are not counted.
    fn cluster(&mut self, text: &str, mut class: u32) -> Result<usize, SourceError> {
        let mut characters = text.char_indices();
        let first = characters.next();
        if text.starts_with("\r\n") {
            return Ok(2);
        }
        let mut length = first.map_or(0, |(_, c)| c.len_utf8());
        for (at, c) in characters {
            let next = self.class_of(c)?;
            if at > CLUSTER || !joins(class, next) {
                break;
            }
            (class, length) = (next, at + c.len_utf8());
        }
        Ok(length)
    }

    /// The longest key of the replacements that a text begins with: where its replacement is, and its bytes.
    fn replaced(&mut self, text: &str) -> Result<Option<(u32, usize)>, SourceError> {
        let trie = self.second.replaced;
        let Some(root) = self.root(trie)? else { return Ok(None) };
        let found = self.longest(trie, root, text.bytes())?;
        Ok(found.filter(|&(_, length)| text.is_char_boundary(length)))
    }

    /// The character at a place of the replacements: none where one ends, or what is there is no text.
    fn replacement(&mut self, offset: u32) -> Result<Option<char>, SourceError> {
        let left = self.second.replacements_length.saturating_sub(offset).min(4);
        let mut bytes = [0; 4];
        let (bytes, _) = bytes.split_at_mut(left as usize);
        self.read(self.second.replacements.saturating_add(offset), bytes)?;
        let valid = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        Ok(valid.chars().next().filter(|&c| c != '\0'))
    }
}

//! The tables of kinds that look pieces up: tries, and what becomes of each character.

use super::bert::{BertNormalizer, is_punctuation};
use super::characters::{byte_token, characters};
pub use super::charsmap::Charsmap;
use super::{Kind, Spec};
use crate::Result;
use omex_core::token::layout::{MAX_KEY, MAX_WORD, class, flag};
use regex_syntax::hir::ClassUnicode;
use std::collections::{BTreeMap, BTreeSet};
use yada::builder::DoubleArrayBuilder;

/// How text is cut into pieces that are looked up; merged kinds have none of this.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lookup {
    /// What becomes of characters first.
    pub normalizer: Normalizer,
    /// WordPiece makes words of more characters one unknown token.
    pub longest_word: u32,
    /// The score of each id: Unigram's.
    pub scores: Vec<f64>,
    /// The score of a character that is in no piece: Unigram's.
    pub unknown_score: f64,
}

/// What becomes of a text's characters before it is cut into words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Normalizer {
    /// They stay as they are.
    #[default]
    Plain,
    /// BERT's rules.
    Bert(BertNormalizer),
    /// SentencePiece's compiled rules.
    Charsmap(Charsmap),
}

impl Normalizer {
    fn push(&self, c: char, out: &mut String) {
        match self {
            Self::Plain | Self::Charsmap(_) => out.push(c),
            Self::Bert(rules) => rules.push(c, out),
        }
    }
}

/// What becomes of characters, as tables.
pub(super) struct CharacterTables {
    /// Classes of the ASCII characters.
    pub(super) ascii: [u8; 128],
    /// First character, and last character with its class in the high byte, of the ranges beyond ASCII.
    pub(super) ranges: Vec<u32>,
    /// A trie of characters that others replace.
    pub(super) replaced: Vec<u8>,
    /// What they become, each with a zero behind it.
    pub(super) replacements: Vec<u8>,
    /// The most bytes that a byte becomes.
    pub(super) growth: u32,
    /// Flags that the tables ask for.
    pub(super) flags: u32,
}

impl CharacterTables {
    pub(super) fn new(spec: &Spec) -> Result<Self> {
        match (&spec.lookup.normalizer, spec.kind) {
            (Normalizer::Charsmap(charsmap), _) => Self::of_charsmap(spec, charsmap),
            (Normalizer::Plain, Kind::Unigram) => Ok(Self::none()),
            _ => Self::of_characters(spec),
        }
    }

    fn none() -> Self {
        Self {
            ascii: [0; 128],
            ranges: vec![],
            replaced: vec![],
            replacements: vec![],
            growth: 1,
            flags: 0,
        }
    }

    /// The map as it is; classes say where its keys and clusters begin.
    fn of_charsmap(spec: &Spec, charsmap: &Charsmap) -> Result<Self> {
        let mut tables = Self {
            replaced: charsmap.trie.clone(),
            replacements: charsmap.replacements.clone(),
            growth: charsmap.growth(),
            ..Self::none()
        };
        let clusters: Vec<(ClassUnicode, u32)> = if spec.flags & flag::CLUSTERS != 0 {
            let parts = [
                (r"[\p{gcb=CR}\p{gcb=LF}\p{gcb=Control}]", class::CONTROL),
                (r"[\p{gcb=Extend}\p{gcb=ZWJ}\p{gcb=SpacingMark}]", class::EXTEND),
                (r"\p{gcb=Prepend}", class::PREPEND),
            ];
            parts
                .map(|(text, bit)| characters(spec, text).map(|found| (found, bit)))
                .into_iter()
                .collect::<Result<_>>()?
        } else {
            vec![]
        };
        let mut at = vec![0; clusters.len()];
        for c in '\0'..=char::MAX {
            let mut class = if charsmap.begins(c) { class::REPLACED } else { 0 };
            for ((found, bit), at) in clusters.iter().zip(&mut at) {
                while found.ranges().get(*at).is_some_and(|range| range.end() < c) {
                    *at += 1;
                }
                let inside = found.ranges().get(*at).is_some_and(|range| range.start() <= c);
                class |= if inside { *bit } else { 0 };
            }
            tables.add(c, class);
        }
        Ok(tables)
    }

    fn of_characters(spec: &Spec) -> Result<Self> {
        let mut tables = Self::none();
        let mut replaced = BTreeMap::new();
        let mut became = String::new();
        for c in '\0'..=char::MAX {
            became.clear();
            spec.lookup.normalizer.push(c, &mut became);
            let punctuation = if is_punctuation(c) { class::PUNCTUATION } else { 0 };
            let class = tables.class(c, &became, &mut replaced) | punctuation;
            tables.add(c, class);
        }
        tables.replaced = trie(spec, "normalizer", &replaced)?;
        Ok(tables)
    }

    /// The class of a character by what it becomes, which is noted where no class says it.
    fn class(&mut self, c: char, became: &str, replaced: &mut BTreeMap<Vec<u8>, u32>) -> u32 {
        self.growth = self.growth.max(became.len().div_ceil(c.len_utf8()) as u32);
        let rest = || became.strip_prefix(' ')?.strip_suffix(' ');
        let is = |text: &str| text.chars().eq([c]);
        if is(became) {
            0
        } else if became.is_empty() {
            class::REMOVED
        } else if became == " " {
            class::BLANK
        } else if rest().is_some_and(is) {
            class::PADDED
        } else if ('\u{AC00}'..='\u{D7A3}').contains(&c) {
            self.flags |= flag::HANGUL;
            0
        } else {
            let mut key = [0; 4];
            let key = c.encode_utf8(&mut key).as_bytes().to_vec();
            replaced.insert(key, self.replacements.len() as u32);
            self.replacements.extend_from_slice(became.as_bytes());
            self.replacements.push(0);
            class::REPLACED
        }
    }

    /// Adds the next character to the classes.
    fn add(&mut self, c: char, class: u32) {
        if let Some(place) = self.ascii.get_mut(c as usize) {
            *place = class as u8;
            return;
        }
        if class == 0 {
            return;
        }
        let c = u32::from(c);
        match self.ranges.last_mut() {
            Some(last) if *last == (c - 1) | class << 24 => *last += 1,
            _ => self.ranges.extend([c, c | class << 24]),
        }
    }
}

/// The trie of the pieces of text, whose values are their ids. Added tokens are found before.
pub(super) fn pieces(spec: &Spec) -> Result<Vec<u8>> {
    let added: BTreeSet<u32> = spec.added.iter().map(|token| token.id).collect();
    let mut keys = BTreeMap::new();
    // SentencePiece finds no byte tokens in text.
    let bytes = spec.byte_fallback && spec.flags & flag::SINGLE != 0;
    let is_byte = |piece: &[u8]| bytes && byte_token(piece).is_some();
    for (piece, id) in spec.pieces.iter().zip(0..).filter(|(_, id)| !added.contains(id)) {
        // No text that is looked up has a zero.
        if !piece.is_empty() && !piece.contains(&0) && spec.unknown != Some(id) && !is_byte(piece) {
            keys.insert(piece.clone(), id);
        }
    }
    let mut trie = trie(spec, "vocabulary", &keys)?;
    trie.resize(trie.len().next_multiple_of(64), 0);
    Ok(trie)
}

/// A trie of keys and their values.
fn trie(spec: &Spec, field: &str, keys: &BTreeMap<Vec<u8>, u32>) -> Result<Vec<u8>> {
    let wrong = |found: String| {
        let expected = format!("texts of 1 to {MAX_KEY} bytes");
        spec.malformed(field, found, expected, "use another tokenizer")
    };
    if let Some(key) = keys.keys().find(|key| key.len() > MAX_KEY) {
        return Err(wrong(format!("one of {} bytes", key.len())));
    }
    if keys.is_empty() {
        return Ok(vec![]);
    }
    let keys: Vec<(&[u8], u32)> = keys.iter().map(|(key, &id)| (key.as_slice(), id)).collect();
    DoubleArrayBuilder::build(&keys).map_err(|e| wrong(e.to_string()))
}

/// Checks what only kinds with a trie have.
pub(super) fn check(spec: &Spec) -> Result<()> {
    let longest = spec.lookup.longest_word;
    if spec.kind == Kind::WordPiece && !(1..=MAX_WORD).contains(&longest) {
        let (field, expected) = ("model.max_input_chars_per_word", format!("1 to {MAX_WORD}"));
        return Err(spec.malformed(field, longest.to_string(), expected, "use another tokenizer"));
    }
    let scores = spec.lookup.scores.len();
    if spec.kind == Kind::Unigram && scores != spec.pieces.len() {
        let (found, expected) = (format!("{scores} scores"), format!("{}", spec.pieces.len()));
        return Err(spec.malformed("model.vocab", found, expected, "save the tokenizer again"));
    }
    Ok(())
}

//! The header behind the first one, of kinds with tries.

use super::error::OpenError;
use super::layout::{MAX_KEY, MAX_WORD, SECOND_HEADER, second};

/// Where a trie is, and how many units it has: none if it has no keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trie {
    pub(super) offset: u32,
    pub(super) units: u32,
}

/// The second header: every table that it describes lies inside the section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Second {
    pub(super) replaced: Trie,
    pub(super) replacements: u32,
    pub(super) replacements_length: u32,
    pub(super) longest_word: u32,
    pub(super) growth: u32,
    pub(super) scores: u32,
    /// The score of a character that is in no piece.
    pub(super) unknown: f64,
    pub(super) ascii: [u8; 128],
}

impl Second {
    /// That of a kind without one.
    pub(super) const NONE: Self = Self {
        replaced: Trie { offset: 0, units: 0 },
        replacements: 0,
        replacements_length: 0,
        longest_word: 0,
        growth: 1,
        scores: 0,
        unknown: 0.0,
        ascii: [0; 128],
    };

    /// Checks a second header of a section of `length` bytes, with so many scores.
    pub(super) fn parse(
        bytes: &[u8; SECOND_HEADER],
        scores: u32,
        length: u32,
    ) -> Result<Self, OpenError> {
        let word = |at: usize| {
            let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
            word.map_or(0, |&bytes| u32::from_le_bytes(bytes))
        };
        let ascii = bytes.get(second::ASCII..).and_then(|rest| rest.first_chunk());
        let header = Self {
            replaced: Trie { offset: word(second::REPLACED), units: word(second::REPLACED_UNITS) },
            replacements: word(second::REPLACEMENTS),
            replacements_length: word(second::REPLACEMENTS_LENGTH),
            longest_word: word(second::LONGEST_WORD),
            growth: word(second::GROWTH),
            scores: word(second::SCORES),
            unknown: f64::from_bits(
                u64::from(word(second::UNKNOWN_SCORE + 4)) << 32
                    | u64::from(word(second::UNKNOWN_SCORE)),
            ),
            ascii: *ascii.ok_or(OpenError::Bounds)?,
        };
        let inside = |offset: u32, bytes: u64| u64::from(offset) + bytes <= u64::from(length);
        let good = inside(header.replaced.offset, 4 * u64::from(header.replaced.units))
            && inside(header.replacements, header.replacements_length.into())
            && (scores == 0 || inside(header.scores, 8 * u64::from(scores)))
            && header.longest_word <= MAX_WORD
            && (1..=MAX_KEY as u32).contains(&header.growth);
        if good { Ok(header) } else { Err(OpenError::Bounds) }
    }
}

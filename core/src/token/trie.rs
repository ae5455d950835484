//! Tries in double arrays (Aoe, 1989), as darts-clone lays them out: SentencePiece stores such, and its are kept as
//! they are.
//!
//! A unit of 32 bits is a node: bits 0 to 7 the byte that leads to it, bit 8 whether a key ends there, bits 10 to 30
//! how far its children are, times 256 if bit 9 is set. The child by a byte is the node's unit number, exclusive-or the
//! distance, exclusive-or the byte. The child by zero holds the value of the key that ends there, with bit 31 set.

use super::error::OpenError;
use super::layout::{MAX_KEY, MAX_WORD, SECOND_HEADER, second};
use super::source::{SourceError, TableSource};
use super::tables::Tables;

/// Where a trie is, and how many units it has: none if it has no keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trie {
    pub(super) offset: u32,
    pub(super) units: u32,
}

/// Where a walk is: its children are at this unit, exclusive-or their bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    children: u32,
    has_value: bool,
}

/// How far the children of a node are.
fn distance(unit: u32) -> u32 {
    unit >> 10 << ((unit & 1 << 9) >> 6)
}

impl<S: TableSource> Tables<S> {
    fn unit(&mut self, trie: Trie, index: u32) -> Result<Option<u32>, SourceError> {
        if index >= trie.units {
            return Ok(None);
        }
        self.word(trie.offset, index).map(Some)
    }

    /// Where walks begin; none in a trie without keys.
    pub(super) fn root(&mut self, trie: Trie) -> Result<Option<Node>, SourceError> {
        let unit = self.unit(trie, 0)?;
        Ok(unit.map(|unit| Node { children: distance(unit), has_value: false }))
    }

    /// The child of a node by a byte.
    #[inline]
    pub(super) fn child(
        &mut self,
        trie: Trie,
        node: Node,
        byte: u8,
    ) -> Result<Option<Node>, SourceError> {
        let index = node.children ^ u32::from(byte);
        let leads = |unit: &u32| unit & (1 << 31 | 0xFF) == u32::from(byte);
        let unit = self.unit(trie, index)?.filter(leads);
        Ok(unit
            .map(|unit| Node { children: index ^ distance(unit), has_value: unit & 1 << 8 != 0 }))
    }

    /// The value of the key that ends at a node.
    #[inline]
    pub(super) fn value(&mut self, trie: Trie, node: Node) -> Result<Option<u32>, SourceError> {
        if !node.has_value {
            return Ok(None);
        }
        Ok(self.unit(trie, node.children)?.map(|unit| unit & !(1 << 31)))
    }

    /// The longest key that `bytes` begin with, below a node: its value and its bytes.
    #[inline]
    pub(super) fn longest(
        &mut self,
        trie: Trie,
        mut node: Node,
        bytes: impl Iterator<Item = u8>,
    ) -> Result<Option<(u32, usize)>, SourceError> {
        let mut found = None;
        for (byte, length) in bytes.take(MAX_KEY).zip(1..) {
            let Some(child) = self.child(trie, node, byte)? else { break };
            node = child;
            if let Some(value) = self.value(trie, node)? {
                found = Some((value, length));
            }
        }
        Ok(found)
    }
}

/// The second header: every table that it describes lies inside the section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Second {
    pub(super) replaced: Trie,
    pub(super) replacements: u32,
    pub(super) replacements_length: u32,
    pub(super) longest_word: u32,
    pub(super) growth: u32,
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
        ascii: [0; 128],
    };

    /// Checks a second header of a section of `length` bytes.
    pub(super) fn parse(bytes: &[u8; SECOND_HEADER], length: u32) -> Result<Self, OpenError> {
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
            ascii: *ascii.ok_or(OpenError::Bounds)?,
        };
        let inside = |offset: u32, bytes: u64| u64::from(offset) + bytes <= u64::from(length);
        let good = inside(header.replaced.offset, 4 * u64::from(header.replaced.units))
            && inside(header.replacements, header.replacements_length.into())
            && header.longest_word <= MAX_WORD
            && (1..=MAX_KEY as u32).contains(&header.growth);
        if good { Ok(header) } else { Err(OpenError::Bounds) }
    }
}

//! Tries in double arrays (Aoe, 1989), as darts-clone lays them out: SentencePiece stores such, and its are kept as
//! they are.
//!
//! A unit of 32 bits is a node: bits 0 to 7 the byte that leads to it, bit 8 whether a key ends there, bits 10 to 30
//! how far its children are, times 256 if bit 9 is set. The child by a byte is the node's unit number, exclusive-or the
//! distance, exclusive-or the byte. The child by zero holds the value of the key that ends there, with bit 31 set.

use super::layout::MAX_KEY;
use super::second::Trie;
use super::source::{SourceError, TableSource};
use super::tables::Tables;

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

    /// The value of the shortest key that `bytes` begin with.
    pub(super) fn shortest(
        &mut self,
        trie: Trie,
        bytes: &[u8],
    ) -> Result<Option<u32>, SourceError> {
        let mut node = self.root(trie)?;
        for &byte in bytes {
            let Some(parent) = node else { break };
            node = self.child(trie, parent, byte)?;
            if let Some(child) = node
                && let Some(value) = self.value(trie, child)?
            {
                return Ok(Some(value));
            }
        }
        Ok(None)
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

impl<S: TableSource> Tables<S> {
    /// The score of a piece; of what is none, no sum with it is greater than another.
    pub(super) fn score(&mut self, id: u32) -> Result<f64, SourceError> {
        if id >= self.header.vocabulary {
            return Ok(f64::NEG_INFINITY);
        }
        let (low, high) = self.words(self.second.scores, id)?;
        Ok(f64::from_bits(u64::from(high) << 32 | u64::from(low)))
    }
}

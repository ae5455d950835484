//! SentencePiece's compiled rules of normalization: u32 bytes of a trie, the trie, and what its keys become.

use base64::prelude::{BASE64_STANDARD, Engine};
use omex_core::token::layout::MAX_KEY;

/// A compiled map of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charsmap {
    /// A double array.
    pub(super) trie: Vec<u8>,
    /// What keys become, each with a zero behind it.
    pub(super) replacements: Vec<u8>,
}

impl Charsmap {
    /// Takes a map apart; none if it is none, or one that makes too much of a character.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (trie, replacements) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let longest = replacements.split(|&byte| byte == 0).map(<[u8]>::len).max()?;
        let good = trie.len().is_multiple_of(4) && longest <= MAX_KEY;
        good.then(|| Self { trie: trie.to_vec(), replacements: replacements.to_vec() })
    }

    pub(super) fn from_base64(text: &str) -> Option<Self> {
        Self::new(&BASE64_STANDARD.decode(text).ok()?)
    }

    pub(super) fn to_base64(&self) -> String {
        BASE64_STANDARD.encode(self.to_bytes())
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let length = self.trie.len() as u32;
        [&length.to_le_bytes(), &*self.trie, &self.replacements].concat()
    }

    /// Whether some key begins with a character.
    pub(super) fn begins(&self, c: char) -> bool {
        let unit = |at: usize| {
            let bytes = self.trie.get(4 * at..).and_then(|rest| rest.first_chunk());
            bytes.map(|&bytes| u32::from_le_bytes(bytes))
        };
        let distance = |unit: u32| (unit >> 10 << ((unit & 1 << 9) >> 6)) as usize;
        let mut node = unit(0).map(distance);
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            node = node.and_then(|children| {
                let at = children ^ usize::from(byte);
                let unit = unit(at).filter(|unit| unit & (1 << 31 | 0xFF) == u32::from(byte))?;
                Some(at ^ distance(unit))
            });
        }
        node.is_some()
    }

    /// The most bytes that a byte becomes.
    pub(super) fn growth(&self) -> u32 {
        let longest = self.replacements.split(|&byte| byte == 0).map(<[u8]>::len).max();
        longest.unwrap_or(1).max(1) as u32
    }
}

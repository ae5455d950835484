//! Words whose ids are known, in the caller's memory: most words of a text were in it before.
//!
//! A word has two places, side by side in one cache line, and the latest two of those that share them stay. An entry
//! holds the word itself, so what is found is right whatever else has the same places; words that do not fit are
//! merged each time.

use super::layout::NONE;

/// Words longer than this are not kept.
const MAX_WORD: usize = 15;
/// Words of more ids than this are not kept.
const MAX_IDS: usize = 4;

/// Working memory for one word that was encoded before: the caller supplies a slice of them.
#[derive(Clone, Copy, Debug)]
pub struct CachedWord {
    key: Key,
    /// [`NONE`] where there are fewer.
    ids: [u32; MAX_IDS],
}

impl CachedWord {
    /// An entry that holds no word.
    pub const EMPTY: Self = Self { key: Key([0; 2]), ids: [0; MAX_IDS] };
}

impl Default for CachedWord {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// A short word: its bytes, zeros, and its length in the last byte, so that no word is the key of an empty entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key([u64; 2]);

impl Key {
    /// The key of the first `length` bytes of `text`; none if they are not a word that can be kept, as none is in
    /// a build without a cache.
    #[inline]
    pub(super) fn new(text: &[u8], length: usize) -> Option<Self> {
        if !cfg!(feature = "word-cache") || !(1..=MAX_WORD).contains(&length) {
            return None;
        }
        let mut bytes = [0; MAX_WORD + 1];
        match text.first_chunk() {
            Some(chunk) => bytes = *chunk,
            None => bytes.iter_mut().zip(text).for_each(|(to, from)| *to = *from),
        }
        let all = u128::from_le_bytes(bytes);
        let word = all & !(u128::MAX << (8 * length)) | (length as u128) << (8 * MAX_WORD);
        Some(Self([word as u64, (word >> 64) as u64]))
    }

    /// The two places of the word; none if there is no cache.
    #[inline]
    fn places(self, cache: &mut [CachedWord]) -> Option<&mut [CachedWord; 2]> {
        let (places, _) = cache.as_chunks_mut();
        let Self([low, high]) = self;
        let hash = (low ^ high.rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let hash = (hash ^ hash >> 32).wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
        places.get_mut((((hash >> 32) * places.len() as u64) >> 32) as usize)
    }

    /// The ids of the word, if it is in the cache.
    #[inline]
    pub(super) fn ids(self, cache: &mut [CachedWord]) -> Option<impl Iterator<Item = u32> + use<>> {
        let word = self.places(cache)?.iter().find(|word| word.key == self)?;
        Some(word.ids.into_iter().take_while(|&id| id != NONE))
    }
}

/// The ids of a word that is being encoded, as long as they are few enough to be kept.
#[derive(Clone, Copy)]
pub(super) struct Found {
    ids: [u32; MAX_IDS],
    count: usize,
}

impl Found {
    pub(super) const NOTHING: Self = Self { ids: [NONE; MAX_IDS], count: 0 };

    pub(super) fn push(&mut self, id: u32) {
        if let Some(place) = self.ids.get_mut(self.count) {
            *place = id;
        }
        self.count = self.count.saturating_add(1);
    }

    /// Keeps the word `key`, whose ids these are.
    pub(super) fn keep(self, key: Key, cache: &mut [CachedWord]) {
        if (1..=MAX_IDS).contains(&self.count)
            && let Some([first, second]) = key.places(cache)
        {
            *second = *first;
            *first = CachedWord { key, ids: self.ids };
        }
    }
}

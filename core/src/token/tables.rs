//! A section whose header has been checked, and the look-ups in its tables.

use super::error::OpenError;
use super::layout::{
    BUCKET, BUCKET_ENTRIES, CHARACTER, HEADER, ID_BITS, KEY_MASK, Kind, MAGIC, MAX_TEMPLATE, NONE,
    OFFSET_MASK, PreTokenizer, SPECIAL, VERSION, added, field, homes, key, word_key,
};
#[cfg(feature = "piece-tries")]
use super::second::{Second, Trie};
use super::source::{SourceError, TableSource};

/// A merge: its rank, lowest first, and the id that it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Merge {
    pub(super) rank: u32,
    pub(super) id: u32,
}

/// What a bucket tells of a key.
enum Search {
    Found(Merge),
    Absent,
    /// Not here, but some key that belongs here is in its other bucket.
    Overflow,
}

/// Where a piece's bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) special: bool,
}

/// An added token's entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Added {
    pub(super) id: u32,
    flags: u32,
}

impl Added {
    pub(super) fn is(self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn special(self) -> bool {
        self.is(added::SPECIAL)
    }
}

/// Added tokens are sought in the whole text first, others in what is left between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    First,
    Second,
}

/// Where a hash table is, and how many buckets it has: none if it is empty.
#[derive(Clone, Copy, Debug)]
struct HashTable {
    offset: u32,
    buckets: u32,
}

/// The header's fields: every table they describe lies inside the section.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenizerHeader {
    pub(super) kind: Kind,
    pub(super) pre_tokenizer: PreTokenizer,
    pub(super) flags: u32,
    pub(super) vocabulary: u32,
    pub(super) unknown: u32,
    index: u32,
    pieces: u32,
    pieces_length: u32,
    merges: HashTable,
    classes: u32,
    class_count: u32,
    words: HashTable,
    added: u32,
    added_count: u32,
    second_count: u32,
    template: u32,
    pub(super) before: u16,
    pub(super) after: u16,
    bytes: u32,
    pub(super) first_bytes: [u8; 32],
}

fn u16_at(header: &[u8; HEADER], at: usize) -> u16 {
    header.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |&b| u16::from_le_bytes(b))
}

fn u32_at(header: &[u8; HEADER], at: usize) -> u32 {
    header.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |&b| u32::from_le_bytes(b))
}

fn byte_at(header: &[u8; HEADER], at: usize) -> u8 {
    header.get(at).copied().unwrap_or(0)
}

fn kind(byte: u8) -> Result<Kind, OpenError> {
    let kind = Kind::new(byte).ok_or(OpenError::Setting)?;
    if kind.has_trie() && !cfg!(feature = "piece-tries") { Err(OpenError::Kind) } else { Ok(kind) }
}

impl TokenizerHeader {
    /// Checks the fixed fields, then that every table lies between the header and the end.
    fn parse(bytes: &[u8; HEADER]) -> Result<(Self, u32), OpenError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(OpenError::Magic);
        }
        if u16_at(bytes, field::VERSION) != VERSION {
            return Err(OpenError::Version);
        }
        let flags = u32_at(bytes, field::FLAGS);
        if flags & !super::layout::flag::ALL != 0 {
            return Err(OpenError::Setting);
        }
        let header = Self {
            kind: kind(byte_at(bytes, field::KIND))?,
            pre_tokenizer: PreTokenizer::new(byte_at(bytes, field::PRE_TOKENIZER))
                .ok_or(OpenError::Setting)?,
            flags,
            vocabulary: u32_at(bytes, field::VOCABULARY),
            unknown: u32_at(bytes, field::UNKNOWN),
            index: u32_at(bytes, field::INDEX),
            pieces: u32_at(bytes, field::PIECES),
            pieces_length: u32_at(bytes, field::MERGES)
                .saturating_sub(u32_at(bytes, field::PIECES)),
            merges: HashTable {
                offset: u32_at(bytes, field::MERGES),
                buckets: u32_at(bytes, field::MERGE_BUCKETS),
            },
            classes: u32_at(bytes, field::CLASSES),
            class_count: u32_at(bytes, field::CLASS_COUNT),
            words: HashTable {
                offset: u32_at(bytes, field::WORDS),
                buckets: u32_at(bytes, field::WORD_BUCKETS),
            },
            added: u32_at(bytes, field::ADDED),
            added_count: u32_at(bytes, field::ADDED_COUNT),
            second_count: u32_at(bytes, field::SECOND_COUNT),
            template: u32_at(bytes, field::TEMPLATE),
            before: u16_at(bytes, field::BEFORE),
            after: u16_at(bytes, field::AFTER),
            bytes: u32_at(bytes, field::BYTES),
            first_bytes: bytes
                .get(field::FIRST_BYTES..)
                .and_then(|rest| rest.first_chunk())
                .copied()
                .unwrap_or([0; 32]),
        };
        let length = u32_at(bytes, field::LENGTH);
        header.check(length)?;
        Ok((header, length))
    }

    fn check(&self, length: u32) -> Result<(), OpenError> {
        let inside = |offset: u32, count: u32, size: u64| {
            u64::from(offset) >= HEADER as u64
                && u64::from(count).saturating_mul(size).saturating_add(u64::from(offset))
                    <= u64::from(length)
        };
        let tables = inside(self.index, self.vocabulary.saturating_add(1), 4)
            && inside(self.pieces, self.pieces_length, 1)
            && self.merges.offset >= self.pieces
            && inside(self.merges.offset, self.merges.buckets, BUCKET as u64)
            && inside(self.classes, self.class_count, 8)
            && inside(self.words.offset, self.words.buckets, BUCKET as u64)
            && inside(self.added, self.added_count, 8)
            && inside(self.template, u32::from(self.before) + u32::from(self.after), 4)
            && inside(self.bytes, 256, 4);
        let counts = self.vocabulary < CHARACTER
            && self.second_count <= self.added_count
            && (self.unknown == NONE || self.unknown < self.vocabulary)
            && self.before <= MAX_TEMPLATE
            && self.after <= MAX_TEMPLATE;
        if tables && counts { Ok(()) } else { Err(OpenError::Bounds) }
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// The trie of pieces, in kinds that have one.
    #[cfg(feature = "piece-tries")]
    pub(super) fn pieces_trie(&self) -> Trie {
        Trie { offset: self.merges.offset, units: self.merges.buckets.saturating_mul(16) }
    }

    /// The added tokens that are sought in a pass: the first, and the one behind the last.
    pub(super) fn sought(&self, pass: Pass) -> (u32, u32) {
        let middle = self.added_count.saturating_sub(self.second_count);
        match pass {
            Pass::First => (0, middle),
            Pass::Second => (middle, self.added_count),
        }
    }
}

/// The tables, and where they are read from.
#[derive(Clone, Debug)]
pub(super) struct Tables<S> {
    source: S,
    pub(super) header: TokenizerHeader,
    #[cfg(feature = "piece-tries")]
    pub(super) second: Second,
    /// Where the last character was that is not ASCII: the next one is near.
    range: Range,
}

/// Characters of one class.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: u32,
    last: u32,
    class: u32,
}

impl Range {
    const EMPTY: Self = Self { first: 1, last: 0, class: 0 };
}

impl<S: TableSource> Tables<S> {
    pub(super) fn open(mut source: S) -> Result<Self, OpenError> {
        let (header, length) = TokenizerHeader::parse(&source.array(0)?)?;
        source.array::<1>(length.saturating_sub(1))?;
        #[cfg(feature = "piece-tries")]
        let second = match header.kind {
            Kind::Unigram => {
                Second::parse(&source.array(HEADER as u32)?, header.vocabulary, length)?
            }
            kind if kind.has_trie() => Second::parse(&source.array(HEADER as u32)?, 0, length)?,
            _ => Second::NONE,
        };
        Ok(Self {
            source,
            header,
            #[cfg(feature = "piece-tries")]
            second,
            range: Range::EMPTY,
        })
    }

    #[inline(always)]
    pub(super) fn word(&mut self, table: u32, index: u32) -> Result<u32, SourceError> {
        self.source.array(table.saturating_add(index.saturating_mul(4))).map(u32::from_le_bytes)
    }

    #[inline(always)]
    pub(super) fn words(&mut self, table: u32, index: u32) -> Result<(u32, u32), SourceError> {
        let [a, b, c, d, e, f, g, h] =
            self.source.array(table.saturating_add(index.saturating_mul(8)))?;
        Ok((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
    }

    /// The merge of a pair of ids, or the id of a character where `right` is [`CHARACTER`].
    #[inline]
    pub(super) fn merge(&mut self, left: u32, right: u32) -> Result<Option<Merge>, SourceError> {
        self.look_up(self.header.merges, key(left, right))
    }

    #[inline]
    fn look_up(&mut self, table: HashTable, wanted: u64) -> Result<Option<Merge>, SourceError> {
        let (first, second) = homes(wanted, table.buckets);
        match self.search(table, first, wanted)? {
            Search::Overflow => match self.search(table, second, wanted)? {
                Search::Found(found) => Ok(Some(found)),
                Search::Overflow | Search::Absent => Ok(None),
            },
            Search::Found(found) => Ok(Some(found)),
            Search::Absent => Ok(None),
        }
    }

    #[inline]
    fn search(
        &mut self,
        table: HashTable,
        bucket: u32,
        wanted: u64,
    ) -> Result<Search, SourceError> {
        let offset = table.offset.saturating_add(bucket.saturating_mul(BUCKET as u32));
        let bytes: [u8; BUCKET] = self.source.array(offset)?;
        let (keys, ranks) = bytes.split_at(BUCKET_ENTRIES * 8);
        let (ranks, _) = ranks.as_chunks::<4>();
        // Every entry is looked at, without a branch: which one it is cannot be predicted.
        let mut found = (0, NONE);
        for (entry, &rank) in keys.as_chunks::<8>().0.iter().zip(ranks) {
            let entry = u64::from_le_bytes(*entry);
            found =
                if entry & KEY_MASK == wanted { (entry, u32::from_le_bytes(rank)) } else { found };
        }
        let (entry, rank) = found;
        let id = (entry >> (2 * ID_BITS)) as u32 & CHARACTER;
        if entry != 0 && id < self.header.vocabulary {
            return Ok(Search::Found(Merge { rank, id }));
        }
        Ok(if ranks.last() == Some(&[0; 4]) { Search::Absent } else { Search::Overflow })
    }

    /// The id of a character that is a token by itself.
    #[inline]
    pub(super) fn character(&mut self, c: char) -> Result<Option<u32>, SourceError> {
        Ok(self.merge(u32::from(c), CHARACTER)?.map(|found| found.id))
    }

    /// The id of the token that stands for one byte.
    #[inline]
    pub(super) fn byte(&mut self, byte: u8) -> Result<Option<u32>, SourceError> {
        let id = self.word(self.header.bytes, u32::from(byte))?;
        Ok((id < self.header.vocabulary).then_some(id))
    }

    /// Where the piece of `id` is; none for an id outside the vocabulary, or if the index is corrupt.
    pub(super) fn piece(&mut self, id: u32) -> Result<Option<Piece>, SourceError> {
        if id >= self.header.vocabulary {
            return Ok(None);
        }
        let word = self.word(self.header.index, id)?;
        let start = word & OFFSET_MASK;
        let end = self.word(self.header.index, id.saturating_add(1))? & OFFSET_MASK;
        let inside = start <= end && end <= self.header.pieces_length;
        let offset = self.header.pieces.saturating_add(start);
        Ok(inside.then_some(Piece {
            offset,
            length: end.saturating_sub(start),
            special: word & SPECIAL != 0,
        }))
    }

    /// Fills `out` with bytes of a piece, from `offset` of the section.
    pub(super) fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), SourceError> {
        self.source.read(offset, out)
    }

    /// The class bits of a character: those of the range that it is in, or 0 between ranges.
    pub(super) fn class(&mut self, c: char) -> Result<u32, SourceError> {
        let c = u32::from(c);
        if !(self.range.first..=self.range.last).contains(&c) {
            self.range = self.range_of(c)?;
        }
        Ok(self.range.class)
    }

    /// The range that a character is in, or the gap between ranges.
    fn range_of(&mut self, c: u32) -> Result<Range, SourceError> {
        let (mut low, mut high) = (0, self.header.class_count);
        let mut gap = Range { first: 0, last: u32::MAX, class: 0 };
        while low < high {
            let middle = low + (high - low) / 2;
            let (first, end) = self.words(self.header.classes, middle)?;
            let last = end & 0x00FF_FFFF;
            if c < first {
                (high, gap.last) = (middle, first - 1);
            } else if c > last {
                (low, gap.first) = (middle + 1, last + 1);
            } else {
                return Ok(Range { first, last, class: end >> 24 });
            }
        }
        Ok(gap)
    }

    /// The id of a word that is one token as a whole.
    pub(super) fn whole_word(&mut self, word: &[u8]) -> Result<Option<u32>, SourceError> {
        if self.header.words.buckets == 0 {
            return Ok(None);
        }
        match self.look_up(self.header.words, word_key(word))? {
            Some(Merge { id, .. }) if self.piece_is(id, word)? => Ok(Some(id)),
            _ => Ok(None),
        }
    }

    fn piece_is(&mut self, id: u32, bytes: &[u8]) -> Result<bool, SourceError> {
        let Some(piece) = self.piece(id)? else { return Ok(false) };
        if piece.length as usize != bytes.len() {
            return Ok(false);
        }
        let mut offset = piece.offset;
        for chunk in bytes.chunks(16) {
            // The merges follow the pieces: 16 bytes can be read wherever a piece is.
            let read: [u8; 16] = self.source.array(offset)?;
            if !read.starts_with(chunk) {
                return Ok(false);
            }
            offset = offset.saturating_add(16);
        }
        Ok(true)
    }

    pub(super) fn added(&mut self, index: u32) -> Result<Added, SourceError> {
        let (id, flags) = self.words(self.header.added, index)?;
        Ok(Added { id, flags })
    }

    /// Template id number `index`: first those before the text, then those after it.
    pub(super) fn template(&mut self, index: u16) -> Result<u32, SourceError> {
        self.word(self.header.template, u32::from(index))
    }
}

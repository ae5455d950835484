//! Where everything lies in a tokenizer section: shared by the compiler on the host and the reader here.
//!
//! `docs/format-tokenizer.md` draws the same bytes. All numbers are little-endian.

/// The first four bytes.
pub const MAGIC: [u8; 4] = *b"OMTK";
/// The format's version.
pub const VERSION: u16 = 3;
/// Bytes of the header.
pub const HEADER: usize = 128;
/// Bytes of the second header, which kinds with a trie of pieces have behind the first.
pub const SECOND_HEADER: usize = 192;
/// "No such id" in a field that holds an id.
pub const NONE: u32 = u32::MAX;

/// Bits of an id, and of a character, in a merge key.
pub const ID_BITS: u32 = 21;
/// Ids are below this; as the right half of a merge key it means "the left half is a character".
pub const CHARACTER: u32 = (1 << ID_BITS) - 1;
/// Bytes of a bucket of merges or words: five keys of eight bytes, five ranks of four, the overflow word.
pub const BUCKET: usize = 64;
/// Entries in a bucket.
pub const BUCKET_ENTRIES: usize = 5;
/// The bit that marks a key as present.
pub const OCCUPIED: u64 = 1 << 63;

/// Bits of a piece's offset in its index word; the highest bit marks a special token.
pub const OFFSET_MASK: u32 = (1 << 31) - 1;
/// Marks a special token in its index word.
pub const SPECIAL: u32 = 1 << 31;
/// An added token is no longer than this.
pub const MAX_ADDED: usize = 255;
/// The template holds no more ids than this on either side.
pub const MAX_TEMPLATE: u16 = 16;
/// A key of a trie is no longer than this, so that no text takes more steps than these for each of its bytes.
pub const MAX_KEY: usize = 256;
/// The longest word that WordPiece may be asked to cut, in characters.
pub const MAX_WORD: u32 = 4096;
/// What the pieces of a word begin with that do not begin it.
pub const CONTINUATION: &[u8] = b"##";

/// What the symbols that merging starts from are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Characters, with byte tokens for those that the vocabulary lacks (SentencePiece's BPE).
    Characters = 0,
    /// Bytes (GPT-2's byte-level BPE).
    Bytes = 1,
    /// Words, cut into the longest pieces from the left (BERT's WordPiece).
    WordPiece = 2,
    /// Words, cut into the pieces with the greatest sum of scores (SentencePiece's Unigram).
    Unigram = 3,
}

impl Kind {
    pub(super) fn new(byte: u8) -> Option<Self> {
        [Self::Characters, Self::Bytes, Self::WordPiece, Self::Unigram]
            .into_iter()
            .find(|&k| k as u8 == byte)
    }

    /// Whether pieces are found in a trie, after characters were replaced; merges find the others.
    pub const fn has_trie(self) -> bool {
        matches!(self, Self::WordPiece | Self::Unigram)
    }
}

/// How text is cut into words that are merged one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PreTokenizer {
    /// Not at all, except at spaces where flags say so.
    None = 0,
    /// GPT-2's expression.
    Gpt2 = 1,
    /// Every digit alone, then GPT-2's expression (SmolLM).
    Gpt2Digits = 2,
    /// Llama 3's expression: numbers in groups of up to three.
    Llama3 = 3,
    /// Qwen2's expression: Llama 3's with every digit alone.
    Qwen2 = 4,
    #[cfg(feature = "scanners")]
    /// Qwen3.5's expression: Qwen2's, where marks are letters.
    Qwen3_5 = 5,
    #[cfg(feature = "scanners")]
    /// GPT-4o's expression: capitals begin words.
    Gpt4o = 6,
    #[cfg(feature = "scanners")]
    /// Tekken's, of Mistral: GPT-4o's with every digit alone, and without contractions.
    Tekken = 7,
    #[cfg(feature = "scanners")]
    /// DeepSeek-V3's expressions.
    DeepSeekV3 = 8,
    #[cfg(feature = "scanners")]
    /// CLIP's expression, for text in lower case: white space is left out, and behind each word stands the unknown
    /// token, which merges with its last byte.
    Clip = 9,
}

impl PreTokenizer {
    pub(super) fn new(byte: u8) -> Option<Self> {
        [
            Self::None,
            Self::Gpt2,
            Self::Gpt2Digits,
            Self::Llama3,
            Self::Qwen2,
            #[cfg(feature = "scanners")]
            Self::Qwen3_5,
            #[cfg(feature = "scanners")]
            Self::Gpt4o,
            #[cfg(feature = "scanners")]
            Self::Tekken,
            #[cfg(feature = "scanners")]
            Self::DeepSeekV3,
            #[cfg(feature = "scanners")]
            Self::Clip,
        ]
        .into_iter()
        .find(|&k| k as u8 == byte)
    }
}

/// Bits of the header's flags.
pub mod flag {
    /// A space in the text is the character U+2581.
    pub const SPACE_MARK: u32 = 1;
    /// A space is put before every stretch of text.
    pub const PREFIX_ALWAYS: u32 = 1 << 1;
    /// A space is put before a stretch of text that starts the whole text.
    pub const PREFIX_FIRST: u32 = 1 << 2;
    /// No space is put before text that has one already.
    pub const PREFIX_UNLESS_SPACE: u32 = 1 << 3;
    /// Words may be cut before a space that follows something else: no merge crosses there.
    pub const SPLIT_WORDS: u32 = 1 << 4;
    /// Words are cut before every space.
    pub const SPLIT_SPACES: u32 = 1 << 5;
    /// Consecutive unknown characters are one unknown token.
    pub const FUSE_UNKNOWN: u32 = 1 << 6;
    /// Decoding drops one space at the start.
    pub const STRIP_START: u32 = 1 << 7;
    /// The text must be in Unicode's normalization form C.
    pub const NFC: u32 = 1 << 8;
    /// Added tokens of the second pass are sought in text that has its prefix and its marked spaces, and begin with
    /// the prefix themselves.
    pub const SECOND_IN_NORMALIZED: u32 = 1 << 9;
    /// Runs of spaces are one space, and those around a stretch of text are none.
    pub const COLLAPSE_SPACES: u32 = 1 << 10;
    /// Hangul syllables are taken apart.
    pub const HANGUL: u32 = 1 << 11;
    /// Decoding puts no space before punctuation and contractions.
    pub const CLEANUP: u32 = 1 << 12;
    /// What is replaced is the shortest key that a cluster of fewer than six bytes begins with, for all of it, or
    /// characters one by one; not the longest key.
    pub const CLUSTERS: u32 = 1 << 13;
    /// Words end at white space, which is left out; each has the prefix.
    pub const SPLIT_BLANKS: u32 = 1 << 14;
    /// Sums of scores are of single precision.
    pub const SINGLE: u32 = 1 << 15;
    /// All the flags of this version.
    pub const ALL: u32 = (1 << 16) - 1;
}

/// Bits of an added token's flags.
pub mod added {
    /// Whitespace before the token belongs to it.
    pub const STRIP_LEFT: u32 = 1;
    /// Whitespace after the token belongs to it.
    pub const STRIP_RIGHT: u32 = 1 << 1;
    /// The token is a special one: text may be encoded without recognising it.
    pub const SPECIAL: u32 = 1 << 2;
}

/// Bits of a character's class.
pub mod class {
    /// `\p{L}`: for scanners.
    pub const LETTER: u32 = 1;
    /// `\p{N}`: for scanners.
    pub const NUMBER: u32 = 2;
    /// For scanners that tell capitals: may begin a word (`\p{Lu}`, `\p{Lt}`, `\p{Lm}`, `\p{Lo}`, `\p{M}`).
    pub const CAPITAL: u32 = 1 << 2;
    /// For scanners that tell capitals: may go on with a word (`\p{Ll}`, `\p{Lm}`, `\p{Lo}`, `\p{M}`).
    pub const SMALL: u32 = 1 << 3;
    /// For DeepSeek-V3's scanner: ideographs and kana.
    pub const IDEOGRAPH: u32 = 1 << 4;

    /// Left out of the text.
    pub const REMOVED: u32 = 1 << 2;
    /// A space in the text.
    pub const BLANK: u32 = 1 << 3;
    /// Has a space on either side.
    pub const PADDED: u32 = 1 << 4;
    /// A key of the replacements begins with it.
    pub const REPLACED: u32 = 1 << 5;
    /// A word by itself.
    pub const PUNCTUATION: u32 = 1 << 6;

    /// With [`super::flag::CLUSTERS`]: ends a cluster, and begins none with what follows.
    pub const CONTROL: u32 = 1 << 2;
    /// With [`super::flag::CLUSTERS`]: goes on with a cluster.
    pub const EXTEND: u32 = 1 << 3;
    /// With [`super::flag::CLUSTERS`]: the next character goes on with its cluster.
    pub const PREPEND: u32 = 1 << 4;
}

/// Byte positions of the header's fields.
pub mod field {
    /// u16: [`super::VERSION`].
    pub const VERSION: usize = 4;
    /// u8: [`super::Kind`].
    pub const KIND: usize = 6;
    /// u8: [`super::PreTokenizer`].
    pub const PRE_TOKENIZER: usize = 7;
    /// u32: [`super::flag`].
    pub const FLAGS: usize = 8;
    /// u32: bytes of the whole section.
    pub const LENGTH: usize = 12;
    /// u32: number of ids.
    pub const VOCABULARY: usize = 16;
    /// u32: the unknown token's id.
    pub const UNKNOWN: usize = 20;
    /// u32: where the index of pieces is: one word an id, and one more.
    pub const INDEX: usize = 24;
    /// u32: where the bytes of the pieces are.
    pub const PIECES: usize = 28;
    /// u32: where the merge buckets are, or the trie of pieces.
    pub const MERGES: usize = 32;
    /// u32: number of merge buckets, at least one, or of blocks of 64 bytes that the trie has.
    pub const MERGE_BUCKETS: usize = 36;
    /// u32: where the character classes are.
    pub const CLASSES: usize = 40;
    /// u32: number of ranges of classes.
    pub const CLASS_COUNT: usize = 44;
    /// u32: where the buckets of whole words are.
    pub const WORDS: usize = 48;
    /// u32: number of their buckets; 0 if there are no whole words.
    pub const WORD_BUCKETS: usize = 52;
    /// u32: where the added tokens are.
    pub const ADDED: usize = 56;
    /// u32: number of added tokens.
    pub const ADDED_COUNT: usize = 60;
    /// u32: where the template's ids are.
    pub const TEMPLATE: usize = 64;
    /// u16: template ids before the text.
    pub const BEFORE: usize = 68;
    /// u16: template ids after the text.
    pub const AFTER: usize = 70;
    /// u32: where the 256 ids of single bytes are.
    pub const BYTES: usize = 72;
    /// u32: number of added tokens, the last ones, that are sought in a second pass.
    pub const SECOND_COUNT: usize = 76;
    /// 32 bytes: a bit for every byte that some added token starts with.
    pub const FIRST_BYTES: usize = 80;
}

/// Byte positions of the second header's fields, from its own start.
pub mod second {
    /// u32: where the trie of replaced characters is.
    pub const REPLACED: usize = 0;
    /// u32: number of its units.
    pub const REPLACED_UNITS: usize = 4;
    /// u32: where the replacements are, each with a zero byte behind it.
    pub const REPLACEMENTS: usize = 8;
    /// u32: their bytes.
    pub const REPLACEMENTS_LENGTH: usize = 12;
    /// u32: WordPiece makes longer words one unknown token; in characters.
    pub const LONGEST_WORD: usize = 16;
    /// u32: normalization makes no more bytes than this of one.
    pub const GROWTH: usize = 20;
    /// u32: where the scores are, one for each id.
    pub const SCORES: usize = 24;
    /// f64: the score of a character that is in no piece.
    pub const UNKNOWN_SCORE: usize = 32;
    /// 128 bytes: classes of the ASCII characters.
    pub const ASCII: usize = 64;
}

/// The merge key of a pair of ids, or of a character and [`CHARACTER`].
#[inline]
pub const fn key(left: u32, right: u32) -> u64 {
    (left as u64) | ((right as u64) << ID_BITS) | OCCUPIED
}

/// The part of an entry that is its key; the rest is the id that it gives.
pub const KEY_MASK: u64 = OCCUPIED | ((1 << (2 * ID_BITS)) - 1);

/// The two buckets, of `buckets`, that `key` may be in: the second only if the first one's overflow word says so.
#[inline]
pub const fn homes(key: u64, buckets: u32) -> (u32, u32) {
    (
        home(key.wrapping_mul(0x9E37_79B9_7F4A_7C15), buckets),
        home(key.wrapping_mul(0xC2B2_AE3D_27D4_EB4F), buckets),
    )
}

/// The high half of a product (Fibonacci hashing), scaled to the number of buckets.
#[inline]
const fn home(product: u64, buckets: u32) -> u32 {
    (((product >> 32) * buckets as u64) >> 32) as u32
}

/// The key of a whole word of any number of bytes: the high bits of their 64-bit FNV-1a hash.
#[inline]
pub fn word_key(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, &b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    hash >> (64 - 2 * ID_BITS) | OCCUPIED
}

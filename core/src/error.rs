//! What can go wrong in the core: small, `Copy`, and without text.

use crate::state::kv::KvFormat;
use core::fmt;
use omex_hal::PageError;

/// Why a model can't be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// The image does not begin with OMEX's magic.
    Magic,
    /// The image is of this version, which this build does not read.
    Version(u32),
    /// The image needs something that this build does not have.
    Lack(Lack),
    /// A part of the image does not match its checksum, or lies outside of it.
    Section(Section),
    /// An operation can't be read, or refers to what is not there.
    Record {
        /// Its place among the records.
        index: u16,
        /// What is wrong.
        fault: Fault,
    },
    /// A tensor has an unknown format, or lies outside of the pages.
    Tensor(u32),
    /// The plan does not fit the program.
    Plan,
    /// The memory given is too small: this many bytes are needed.
    Memory {
        /// Bytes needed.
        needed: u64,
        /// Bytes given.
        given: u64,
    },
    /// The memory given is not aligned to 16 bytes.
    Alignment,
    /// A page could not be had.
    Page(PageError),
}

/// Something that this build does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The operation of this code.
    Op(u8),
    /// The format of weights of this number.
    Format(u8),
    /// KV caches of this format.
    Kv(KvFormat),
}

/// A part of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The header.
    Header,
    /// The program.
    Program,
    /// The tensor table.
    Tensors,
    /// The tokenizer's tables.
    Tokenizer,
    /// The pages' checksums.
    Checksums,
    /// The pages.
    Pages,
}

/// What is wrong with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are not an operation.
    Encoding,
    /// A value lies outside of the slots, or overlaps with another that must be apart.
    Value,
    /// A tensor is missing or has another shape or format.
    Tensor,
    /// A width or count is zero, too large, or does not fit the others.
    Shape,
    /// A state is missing or has another kind or shape.
    State,
    /// A part is missing or has another kind.
    Part,
    /// A repetition inside a repetition, or past the program's end.
    Repeat,
    /// Keys and values are stored, and the next operation does not attend to them.
    Order,
    /// This build has no operation of this code.
    Unknown(u8),
}

impl Fault {
    /// What is wrong, in a word: shorter in firmware than a derived form, which formats fields.
    const fn name(self) -> &'static str {
        match self {
            Self::Encoding => "Encoding",
            Self::Value => "Value",
            Self::Tensor => "Tensor",
            Self::Shape => "Shape",
            Self::State => "State",
            Self::Part => "Part",
            Self::Repeat => "Repeat",
            Self::Order => "Order",
            Self::Unknown(_) => "Unknown",
        }
    }
}

/// Why a pass failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunError {
    /// No tokens, or more than the plan's columns.
    TokenCount {
        /// Tokens given.
        given: u32,
        /// The most that the plan takes at once.
        limit: u32,
    },
    /// A token outside of the vocabulary.
    Token(u32),
    /// A sequence that the plan does not have.
    Sequence(u32),
    /// A part that is no adapter of the program.
    Adapter(u16),
    /// A segment that the model does not have.
    #[cfg(feature = "float")]
    Segment(u8),
    /// A position that is too far on, or too far back for a cache that is full.
    Position(u32),
    /// Inputs branch, and the cache has no spare place for each of them behind the last position, or
    /// the build does not play branches.
    Branches,
    /// A page of weights could not be had.
    Page(PageError),
    /// A KV cache could not be had.
    Kv(KvError),
    /// A value is infinite or not a number: the weights are damaged, or out of the format's range.
    NotFinite,
    /// The program is not the one that was checked when it was loaded.
    Program,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => write!(f, "not an OMEX image"),
            Self::Version(v) => write!(f, "image version {v} is not supported"),
            Self::Lack(lack) => write!(f, "the image needs {lack}, which this build does not have"),
            Self::Section(s) => write!(f, "{s:?} section is damaged or outside of the image"),
            Self::Record { fault: Fault::Unknown(code), .. } => {
                let lack = Lack::Op(*code);
                write!(f, "the program needs {lack}, which this build does not have")
            }
            Self::Record { index, fault } => write!(f, "operation {index}: bad {}", fault.name()),
            Self::Tensor(i) => {
                write!(f, "tensor {i} has an unknown format or lies outside of the pages")
            }
            Self::Plan => write!(f, "the plan does not fit the program"),
            Self::Memory { needed, given } => {
                write!(f, "{needed} bytes of memory needed, {given} given")
            }
            Self::Alignment => write!(f, "memory is not aligned to 16 bytes"),
            Self::Page(e) => e.fmt(f),
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenCount { given, limit } => {
                write!(f, "{given} tokens given, 1 to {limit} fit")
            }
            Self::Token(t) => write!(f, "token {t} is outside of the vocabulary"),
            Self::Sequence(s) => write!(f, "the plan has no sequence {s}"),
            Self::Adapter(a) => write!(f, "the program has no adapter {a}"),
            #[cfg(feature = "float")]
            Self::Segment(s) => write!(f, "the model has no segment {s}"),
            Self::Position(p) => write!(f, "position {p} does not follow what the cache holds"),
            Self::Branches => write!(f, "the cache has no room left for inputs that branch"),
            Self::Page(e) => e.fmt(f),
            Self::Kv(e) => e.fmt(f),
            Self::NotFinite => write!(f, "a value is infinite or not a number"),
            Self::Program => write!(f, "the program changed after it was checked"),
        }
    }
}

impl core::error::Error for LoadError {}
impl core::error::Error for RunError {}

impl From<PageError> for LoadError {
    fn from(e: PageError) -> Self {
        Self::Page(e)
    }
}

impl From<PageError> for RunError {
    fn from(e: PageError) -> Self {
        Self::Page(e)
    }
}

/// A KV cache that could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvError {
    /// The cache's number.
    pub cache: u32,
    /// What went wrong.
    pub kind: KvErrorKind,
}

/// What went wrong with a KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvErrorKind {
    /// It could not be written; the text can't go on.
    Write,
    /// It could not be read.
    Read,
    /// The bytes do not match their checksum, even when read again.
    Checksum,
}

impl fmt::Display for KvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            KvErrorKind::Write => "could not be written",
            KvErrorKind::Read => "could not be read",
            KvErrorKind::Checksum => "does not match its checksum, read twice",
        };
        write!(f, "KV cache {} {what}", self.cache)
    }
}

impl core::error::Error for KvError {}

impl From<KvError> for RunError {
    fn from(e: KvError) -> Self {
        Self::Kv(e)
    }
}

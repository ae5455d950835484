//! What can go wrong, one small enum an operation.

use super::source::SourceError;
use core::fmt;

/// Why a section was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The storage failed, or the section is shorter than its header says.
    Source,
    /// The first bytes are not a tokenizer section's.
    Magic,
    /// A version that this code does not know.
    Version,
    /// A kind, a pre-tokenizer or a flag that this version does not have.
    Setting,
    /// A kind that this build was made without.
    Kind,
    /// A table that lies outside the section, or a count that is out of range.
    Bounds,
}

/// Why a text was not encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The storage failed.
    Source,
    /// A table holds an id or an offset that is out of range.
    Corrupt,
    /// The scratch memory is shorter than [`super::MIN_SCRATCH`] symbols.
    Scratch,
    /// The caller's sink takes no more ids.
    Full,
}

/// Why an id was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The storage failed.
    Source,
    /// The tables hold an offset that is out of range.
    Corrupt,
}

/// A sink that takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "the tokenizer section cannot be read, or is cut short",
            Self::Magic => "this is not a tokenizer section",
            Self::Version => "a tokenizer section of an unknown version",
            Self::Setting => "the tokenizer section asks for what this version does not have",
            Self::Kind => {
                "a tokenizer other than byte-pair encoding: build omex-core with the feature \
                 piece-tries"
            }
            Self::Bounds => "a table lies outside the tokenizer section",
        })
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "the tokenizer's tables cannot be read",
            Self::Corrupt => "the tokenizer's tables are corrupt",
            Self::Scratch => "too little scratch memory to encode text",
            Self::Full => "the text has more tokens than there is room for",
        })
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "the tokenizer's tables cannot be read",
            Self::Corrupt => "the tokenizer's tables are corrupt",
        })
    }
}

impl core::error::Error for OpenError {}
impl core::error::Error for EncodeError {}
impl core::error::Error for DecodeError {}

impl From<SourceError> for OpenError {
    fn from(_: SourceError) -> Self {
        Self::Source
    }
}

impl From<SourceError> for EncodeError {
    fn from(_: SourceError) -> Self {
        Self::Source
    }
}

impl From<SourceError> for DecodeError {
    fn from(_: SourceError) -> Self {
        Self::Source
    }
}

impl From<Full> for EncodeError {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

//! What can go wrong on the board, in words.

use core::fmt;
use omex_core::error::{LoadError, RunError};
use omex_core::token::{DecodeError, EncodeError, OpenError};
use omex_hal::PageError;
use omex_hal_adapters::{SdCardError, SetupError};

/// Why an image is refused whose operations this firmware has, but not what the image takes.
#[cfg(not(all(feature = "text", feature = "int8")))]
pub const OTHER_KIND: &str = if cfg!(feature = "text") {
    "the image takes arrays: build the firmware with the feature int8"
} else {
    "the image takes tokens: build the firmware with the feature text"
};

/// Why there is no output.
pub enum Failure {
    /// What is asked for can't be done: why, or what was expected.
    Task(&'static str),
    /// The card does not work.
    Card(SdCardError),
    /// The pages don't suit the memory.
    Setup(SetupError),
    /// The image can't be loaded; with the damaged page's first byte.
    Load(LoadError, Option<u64>),
    /// Generating failed; with the damaged page's first byte.
    Run(RunError, Option<u64>),
    /// The tokenizer can't be opened.
    Tokenizer(OpenError),
    /// The prompt can't be encoded.
    Encode(EncodeError),
    /// A token can't be decoded.
    Decode(DecodeError),
}

impl Failure {
    /// A failure to load from pages of `page_size` bytes.
    pub fn load(error: LoadError, page_size: u32) -> Self {
        let page = if let LoadError::Page(e) = &error { Some(e) } else { None };
        Self::Load(error, page.map(|e| first_byte(e, page_size)))
    }

    /// A failure to run from pages of `page_size` bytes.
    pub fn run(error: RunError, page_size: u32) -> Self {
        let page = if let RunError::Page(e) = &error { Some(e) } else { None };
        Self::Run(error, page.map(|e| first_byte(e, page_size)))
    }
}

fn first_byte(error: &PageError, page_size: u32) -> u64 {
    u64::from(error.page) * u64::from(page_size)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(reason) => f.write_str(reason),
            Self::Card(error) => error.fmt(f),
            Self::Setup(error) => error.fmt(f),
            Self::Load(error, _) => error.fmt(f),
            Self::Run(error, _) => error.fmt(f),
            Self::Tokenizer(error) => error.fmt(f),
            Self::Encode(error) => error.fmt(f),
            Self::Decode(error) => error.fmt(f),
        }?;
        match self {
            Self::Load(_, Some(byte)) | Self::Run(_, Some(byte)) => {
                write!(f, ", at byte {byte} of the image")
            }
            _ => Ok(()),
        }
    }
}

impl From<SdCardError> for Failure {
    fn from(error: SdCardError) -> Self {
        Self::Card(error)
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        Self::Setup(error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Tokenizer(error)
    }
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

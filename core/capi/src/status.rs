//! What came of a call.

use core::ffi::{CStr, c_char};
use omex_core::error::{LoadError, RunError};
use omex_hal::{PageError, PageErrorKind};
use omex_hal_adapters::SetupError;

/// What came of a call; omex_status_text has each in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Status {
    /// It is done.
    Ok = 0,
    /// The model has ended the text: no error.
    End = 1,
    /// A pointer is null, or a number is none that can be.
    Argument = 2,
    /// Not an image that `omex pack` wrote.
    NotAnImage = 3,
    /// An image of a version that this library does not read.
    Version = 4,
    /// The image needs an operation, a format or a tokenizer that the library was built without.
    Unsupported = 5,
    /// The image is cut short, or does not match its checksums.
    Damaged = 6,
    /// The arena is too small.
    Memory = 7,
    /// The arena or the image does not begin on a multiple of OMEX_ALIGNMENT.
    Alignment = 8,
    /// The read callback failed.
    Read = 9,
    /// The model takes tokens and not tensors, or tensors and not tokens.
    Kind = 10,
    /// There is no input or output of that number.
    NoSuchTensor = 11,
    /// A token is outside of the vocabulary.
    Token = 12,
    /// No tokens were given, or more than there is room for.
    Length = 13,
    /// The image has no tokenizer.
    NoTokenizer = 14,
    /// The text is not UTF-8.
    Encoding = 15,
    /// A value became infinite or not a number.
    NotFinite = 16,
}

impl Status {
    const fn text(self) -> &'static CStr {
        match self {
            Self::Ok => c"done",
            Self::End => c"the model has ended the text",
            Self::Argument => c"a pointer is null, or a number is none that can be",
            Self::NotAnImage => c"not an OMEX image: make one with omex pack",
            Self::Version => c"the image's version is not supported: pack it again with this version's omex",
            Self::Unsupported => {
                c"the image needs an operation or a format that this library was built without: build it with more features"
            }
            Self::Damaged => c"the image is cut short or does not match its checksums: write it to the device again",
            Self::Memory => c"the arena is too small: omex_open says how many bytes are needed",
            Self::Alignment => c"the arena or the image is not aligned to 16 bytes",
            Self::Read => c"the image could not be read",
            Self::Kind => c"the model takes tokens and not tensors, or tensors and not tokens",
            Self::NoSuchTensor => c"the model has no input or output of that number",
            Self::Token => c"a token is outside of the vocabulary",
            Self::Length => c"no tokens were given, or more than there is room for",
            Self::NoTokenizer => c"the image has no tokenizer: give tokens",
            Self::Encoding => c"the text is not UTF-8",
            Self::NotFinite => c"a value became infinite or not a number: the weights are damaged",
        }
    }
}

/// A status in words: text that is there for ever.
#[unsafe(no_mangle)]
pub extern "C" fn omex_status_text(status: i32) -> *const c_char {
    let known = KNOWN.iter().find(|known| **known as i32 == status);
    known.map_or(c"no status of this library", |known| known.text()).as_ptr()
}

const KNOWN: [Status; 17] = [
    Status::Ok,
    Status::End,
    Status::Argument,
    Status::NotAnImage,
    Status::Version,
    Status::Unsupported,
    Status::Damaged,
    Status::Memory,
    Status::Alignment,
    Status::Read,
    Status::Kind,
    Status::NoSuchTensor,
    Status::Token,
    Status::Length,
    Status::NoTokenizer,
    Status::Encoding,
    Status::NotFinite,
];

/// `OMEX_OK`, or why not.
pub(crate) fn of(result: Result<(), Status>) -> Status {
    result.err().unwrap_or(Status::Ok)
}

impl From<PageError> for Status {
    fn from(error: PageError) -> Self {
        match error.kind {
            PageErrorKind::Device => Self::Read,
            _ => Self::Damaged,
        }
    }
}

impl From<LoadError> for Status {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Magic => Self::NotAnImage,
            LoadError::Version(_) => Self::Version,
            LoadError::Lack(_) => Self::Unsupported,
            LoadError::Memory { .. } => Self::Memory,
            LoadError::Alignment => Self::Alignment,
            LoadError::Page(error) => error.into(),
            _ => Self::Damaged,
        }
    }
}

impl From<RunError> for Status {
    fn from(error: RunError) -> Self {
        match error {
            RunError::TokenCount { .. } | RunError::Position(_) => Self::Length,
            RunError::Token(_) => Self::Token,
            RunError::NotFinite => Self::NotFinite,
            RunError::Page(error) => error.into(),
            _ => Self::Damaged,
        }
    }
}

impl From<SetupError> for Status {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Memory => Self::Memory,
            SetupError::PageSize => Self::Damaged,
        }
    }
}

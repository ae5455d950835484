//! What can go wrong on the board, in words.

use core::fmt;
use omex_core::error::{LoadError, RunError};
use omex_hal_adapters::{SdCardError, SetupError, StorageError};

/// Why there is no text.
pub enum Failure {
    /// The command line is missing, too long, or no command.
    CommandLine,
    /// The prompt has no tokens, too many, or something that is no token id.
    Prompt,
    /// The card does not work.
    Card(SdCardError),
    /// A block of the card can't be read.
    Block(StorageError),
    /// The pages don't suit the memory.
    Setup(SetupError),
    /// The image can't be loaded.
    Load(LoadError, PageSize),
    /// Generating failed.
    Run(RunError, PageSize),
}

/// Bytes a page, to say where a damaged one lies.
#[derive(Clone, Copy)]
pub struct PageSize(pub u32);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("command line: MAX_TOKENS ids 1,2,3 or MAX_TOKENS text PROMPT"),
            Self::Prompt => f.write_str("the prompt has no tokens, too many, or a word that is no token id"),
            Self::Card(error) => error.fmt(f),
            Self::Block(StorageError::End) => f.write_str("the SD card is smaller than the image"),
            Self::Block(StorageError::Device) => f.write_str("the SD card fails to read a block"),
            Self::Setup(error) => error.fmt(f),
            Self::Load(error, page_size) => {
                error.fmt(f)?;
                if let LoadError::Page(e) = error { page_size.locate(e.page, f) } else { Ok(()) }
            }
            Self::Run(error, page_size) => {
                error.fmt(f)?;
                if let RunError::Page(e) = error { page_size.locate(e.page, f) } else { Ok(()) }
            }
        }
    }
}

impl PageSize {
    fn locate(self, page: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " (byte {} of the card)", u64::from(page) * u64::from(self.0))
    }
}

impl From<SdCardError> for Failure {
    fn from(error: SdCardError) -> Self {
        Self::Card(error)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Block(error)
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        Self::Setup(error)
    }
}

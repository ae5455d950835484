//! What can go wrong on the host, said so that the user knows what to do.

use crate::package::CONVERT_AGAIN;
use crate::printable::printable;
use crate::tokenizer::NotEncoded;
use omex_core::error::{LoadError, RunError};
use omex_core::state::KvError;
use omex_hal::PageError;
use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{path}: cannot {action}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb: "read", "create".
        action: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file does not hold what it must.
    #[error(transparent)]
    Malformed(#[from] Box<Malformed>),
    /// The command can't be carried out as it was given.
    #[error("{0}")]
    Usage(String),
    /// The memory budget is too small.
    #[error(
        "the budget of {given} bytes is {short} bytes too small: {needed} bytes needed; \
         raise --memory, or lower --context",
        short = needed.saturating_sub(*given)
    )]
    Budget {
        /// Bytes that the smallest plan needs.
        needed: u64,
        /// Bytes given.
        given: u64,
    },
    /// A board has too little of something.
    #[error(
        "{board}: {given} bytes of {what}, {needed} needed: {short} too few; convert to a smaller --quantization, or \
         take another board",
        short = needed.saturating_sub(*given)
    )]
    Board {
        /// The board's name.
        board: &'static str,
        /// What of it.
        what: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        given: u64,
    },
    /// Texts and their tokens take more memory than the budget leaves.
    #[error(
        "the budget of {given} bytes is too small: the model and the first {done} of {all} texts with their tokens \
         take {needed}; raise --memory, or give fewer at a time"
    )]
    Texts {
        /// Texts whose tokens are counted.
        done: usize,
        /// All of them.
        all: usize,
        /// Bytes that these need.
        needed: u64,
        /// Bytes given.
        given: u64,
    },
    /// A conversion takes more memory than it may.
    #[error(
        "{path}: converting it takes {needed} bytes of memory, most of them for {part}, {short} more than the \
         {given} that it may: raise --memory",
        path = path.display(), short = needed.saturating_sub(*given)
    )]
    Room {
        /// The model.
        path: PathBuf,
        /// What takes the most, and how to do without.
        part: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes given.
        given: u64,
    },
    /// A text takes more memory than the budget leaves.
    #[error("{0}")]
    Text(NotEncoded),
    /// A text that is to be JSON has none.
    #[error(
        "found no object or list in JSON in a text of {bytes} bytes: ask for it with --json-schema, raise --max-tokens, \
         or take another --formatter"
    )]
    NoJson {
        /// Bytes of the text.
        bytes: usize,
    },
    /// The core refused to load a model.
    #[error("{path}: {error}; {remedy}", path = path.display(), remedy = CONVERT_AGAIN)]
    Load {
        /// The package or image.
        path: PathBuf,
        /// Why.
        error: LoadError,
    },
    /// A pass failed.
    #[error("{path}: {error}", path = path.display())]
    Run {
        /// The package or image.
        path: PathBuf,
        /// Why.
        error: RunError,
    },
    /// A pass came to a value that is no number.
    #[error(
        "{path}: a value is infinite or not a number; weights may be damaged (omex validate), or keys \
         out of the range of the cache's format, {format}: try another one with --kv",
        path = path.display()
    )]
    NotFinite {
        /// The package or image.
        path: PathBuf,
        /// Of the KV cache.
        format: crate::plan::Kv,
    },
    /// A page of weights could not be had.
    #[error(
        "{file}: at byte {offset}: {error}; the file is damaged or can't be read: copy it again, or \
         convert the model again",
        file = file.display()
    )]
    Page {
        /// The file that the page lies in.
        file: PathBuf,
        /// Where in the file it begins.
        offset: u64,
        /// The page in the paged space, and what went wrong.
        error: PageError,
    },
    /// A KV cache that lies on storage could not be had.
    #[error(
        "{folder}: the file of spilled keys and values: {error}; see that there is room and that \
         the disk is sound, set XDG_CACHE_HOME to a folder on another disk, or raise --memory",
        folder = folder.display()
    )]
    Kv {
        /// The folder that the file lies in; it has no name.
        folder: PathBuf,
        /// The cache, and what went wrong.
        error: KvError,
    },
    /// A package, an image, or a file of prompts was checked and is not valid.
    #[error("{path}: {count} problems", path = path.display())]
    Invalid {
        /// The package, the image, or the prompts.
        path: PathBuf,
        /// How many problems were found.
        count: usize,
    },
    /// A chat template made no prompt.
    #[error(transparent)]
    Chat(#[from] crate::chat::NotRendered),
    /// A hub that models come from can't be asked, refuses, or says what can't be true.
    #[error("{url}: {reason}; {remedy}")]
    Hub {
        /// What was asked.
        url: String,
        /// What came of it.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// The work was cancelled, as by Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// A file that does not hold what it must.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {field}: found {found}, expected {expected}; {remedy}", file = file.display())]
pub struct Malformed {
    /// The file.
    pub file: PathBuf,
    /// The field, tensor, or byte position.
    pub field: String,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
    /// What to do about it.
    pub remedy: String,
}

impl Error {
    /// An operating system error on `path` while trying to `action` it.
    pub fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Error::Io { path: path.to_owned(), action, source }
    }

    /// A model that the core refused to load.
    #[must_use]
    pub fn load(path: &Path, error: LoadError) -> Self {
        Error::Load { path: path.to_owned(), error }
    }

    /// A field of `file` that does not hold what it must.
    pub fn malformed(
        file: &Path,
        field: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Error::Malformed(Box::new(Malformed {
            file: file.to_owned(),
            field: printable(field.into()),
            found: printable(found.into()),
            expected: printable(expected.into()),
            remedy: printable(remedy.into()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_files_cannot_flood_or_control_a_terminal() {
        let found = format!("\x1b[2J{}", "x".repeat(10_000));
        let error = Error::malformed(Path::new("f"), "name", found, "a name", "get it again");
        let text = error.to_string();
        assert!(
            text.contains("\\u{1b}[2J") && !text.contains('\x1b') && text.len() < 600,
            "{text}"
        );
    }
}

//! What can go wrong on the host, said so that the user knows what to do.

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

/// Shortens what a file may have made long, and escapes what it could control a terminal with.
fn printable(text: String) -> String {
    const MAX: usize = 400;
    if text.len() <= MAX && !text.contains(char::is_control) {
        return text;
    }
    let mut shown = String::new();
    for c in text.chars() {
        if shown.len() > MAX {
            shown.push_str("...");
            break;
        }
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
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

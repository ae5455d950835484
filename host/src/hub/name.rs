//! What a model is called on a hub: `ORGANISATION/NAME`, perhaps `@REVISION`, perhaps `:FILE`.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The longest part of a name that a hub allows.
const MAX_PART: usize = 96;
/// The longest name of a file.
const MAX_FILE: usize = 1024;

/// What is asked of a hub.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    /// `ORGANISATION/NAME`, or `NAME` alone for the oldest models.
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// One file of it, or a part of the name of a GGUF file.
    pub file: Option<String>,
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (place, file) = match text.split_once(':') {
            Some((place, file)) => (place, Some(file)),
            None => (text, None),
        };
        let (repository, revision) = place.split_once('@').unwrap_or((place, "main"));
        let valid =
            is_repository(repository) && is_plain_path(revision) && file.is_none_or(is_plain_path);
        if !valid {
            return Err(Error::Usage(format!(
                "\"{}\" names no model of a hub: expected ORGANISATION/NAME, perhaps with @REVISION \
                 or :FILE behind it",
                text.escape_debug()
            )));
        }
        Ok(Self {
            repository: repository.to_owned(),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        self.file.iter().try_for_each(|file| write!(f, ":{file}"))
    }
}

fn is_repository(text: &str) -> bool {
    let part = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        (1..=MAX_PART).contains(&part.len())
            && part.chars().all(plain)
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.', '-'])
            && !part.contains("..")
            // The cache has these between organisation and name.
            && !part.contains("--")
    };
    text.split('/').count() <= 2 && text.split('/').all(part)
}

/// Whether this is a path that leads down from a folder, and nowhere else, on any system.
pub(super) fn is_plain_path(path: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.len() <= MAX_FILE
        && path.split('/').all(part)
        && !path.contains(|c: char| c.is_control() || c == '\\' || c == ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_revision_and_a_file_or_not() {
        let parsed = |text: &str| {
            let name: Name = text.parse().unwrap();
            assert_eq!(name.to_string(), text.replace("@main", ""));
            (name.repository, name.revision, name.file)
        };
        let all = |r: &str, v: &str, f: Option<&str>| (r.into(), v.into(), f.map(str::to_owned));
        assert_eq!(parsed("gpt2"), all("gpt2", "main", None));
        assert_eq!(parsed("a/b-1.5@main"), all("a/b-1.5", "main", None));
        assert_eq!(parsed("a/b@refs/pr/1:c/d.gguf"), all("a/b", "refs/pr/1", Some("c/d.gguf")));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = "x".repeat(97);
        for wrong in [
            "",
            "/",
            "a/",
            "/b",
            "a/b/c",
            "..",
            "../b",
            "a/..",
            "a--b/c",
            "a/b@",
            "a/b@../c",
            "a/b:",
            "a/b:/etc/passwd",
            "a/b:../c",
            "a/b:c/../d",
            "a/b:c\\d",
            "a/b:c:d",
            "a b/c",
            "a/b\n",
            &long,
        ] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong:?}");
        }
    }
}

//! What a repository has in it.

use super::client::{Client, hub_error};
use super::name::{Name, is_plain_path};
use crate::Result;
use serde::Deserialize;

/// The longest list of files.
const MAX_LISTING: usize = 32 << 20;

/// A repository at a commit.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<File>,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Its path in the repository.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// By which its content is known.
    pub(super) digest: Digest,
}

/// A checksum of a file's content.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Digest {
    /// SHA-256 of a large file, as Git LFS has it.
    Sha256(String),
    /// SHA-1 of a small one, behind its length, as git has it.
    GitBlob(String),
}

impl Digest {
    /// What the file is called among the cache's blobs: the hub's ETag.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }
}

/// As the hub writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// Whether this is so many lower-case hexadecimal digits: nothing else becomes the name of a file.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Asks the hub what a repository has in it.
pub(super) fn listing(client: &Client, name: &Name) -> Result<Listing> {
    let (repository, revision) = (&name.repository, escaped(&name.revision, false));
    let url = client.url(&format!("api/models/{repository}/revision/{revision}?blobs=true"));
    let refused = |field: &str| {
        let remedy = "check HF_ENDPOINT, and try again later";
        hub_error(&url, format!("answers with no list of files: {field}"), remedy)
    };
    let text = client.read(&url, MAX_LISTING)?;
    let written: Written = serde_json::from_slice(&text).map_err(|e| refused(&e.to_string()))?;
    if !is_hex(&written.sha, 40) {
        return Err(refused("its sha is no commit"));
    }
    let file = |sibling: Sibling| {
        let name = sibling.rfilename.clone();
        sibling.file().ok_or_else(|| refused(&format!("its file \"{name}\" is not described")))
    };
    // A file that can't be placed is nobody's weights, but a name that leads elsewhere is an attack.
    if let Some(bad) = written.siblings.iter().find(|s| !is_plain_path(&s.rfilename)) {
        return Err(refused(&format!("a file is called \"{}\"", bad.rfilename)));
    }
    let files = written.siblings.into_iter().map(file).collect::<Result<_>>()?;
    Ok(Listing { commit: written.sha, files })
}

impl Sibling {
    fn file(self) -> Option<File> {
        let (size, digest) = match (self.lfs, self.blob_id) {
            (Some(lfs), _) if is_hex(&lfs.sha256, 64) => (lfs.size, Digest::Sha256(lfs.sha256)),
            (None, Some(blob)) if is_hex(&blob, 40) => (self.size?, Digest::GitBlob(blob)),
            _ => return None,
        };
        Some(File { name: self.rfilename, size, digest })
    }
}

/// A path as it is written in an address; `slashes` says whether they stay.
pub(super) fn escaped(path: &str, slashes: bool) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain || (slashes && byte == b'/') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

//! One file, however often the connection is cut, and nothing but that file: what has come is kept and
//! gone on from, and counts when its checksum is right.

use super::client::{Answer, Attempts, Client, Failure, header, hub_error};
use super::listing::{Digest, File};
use crate::{Error, Result, durable};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes that are read again at once of what has come before.
const PIECE: usize = 1 << 20;

/// Is told how many bytes of a file are here.
pub(super) type Told<'t> = &'t mut dyn FnMut(u64);

/// What has come of a file.
struct Partial<'f> {
    path: PathBuf,
    file: std::fs::File,
    wanted: &'f File,
    context: Context,
    length: u64,
}

/// Has `blob` hold the file that is at an address.
pub(super) fn download(
    client: &Client,
    url: &str,
    wanted: &File,
    commit: &str,
    blob: &Path,
    told: Told<'_>,
) -> Result<()> {
    let mut partial = Partial::open(blob, wanted, client)?;
    loop {
        let resumed = partial.length > 0;
        partial.complete(client, url, commit, told)?;
        match partial.check() {
            Ok(()) => return partial.persist(blob),
            // What came before may be damaged; what comes in one piece is the hub's fault.
            Err(found) if !resumed => {
                partial.clear()?;
                return Err(wrong_checksum(url, wanted, &found));
            }
            Err(_) => partial.clear()?,
        }
    }
}

fn wrong_checksum(url: &str, wanted: &File, found: &str) -> Error {
    let expected = wanted.digest.as_str();
    let reason = format!("sends a file with the checksum {found}, expected {expected}");
    hub_error(url, reason, "try again; nothing of it is kept")
}

fn context(wanted: &File) -> Context {
    match wanted.digest {
        Digest::Sha256(_) => Context::new(&SHA256),
        Digest::GitBlob(_) => {
            let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
            context.update(format!("blob {}\0", wanted.size).as_bytes());
            context
        }
    }
}

impl<'f> Partial<'f> {
    /// What has come before, if it has, is read to go on with its checksum.
    fn open(blob: &Path, wanted: &'f File, client: &Client) -> Result<Self> {
        // So Hugging Face's programs call it, and go on from it.
        let path = blob.with_extension("incomplete");
        let failed = |e| Error::io(&path, "write", e);
        durable::check_replaceable(&path)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(failed)?;
        let (mut context, mut length) = (context(wanted), 0);
        let mut piece = vec![0; PIECE];
        loop {
            client.cancel.check()?;
            let read = file.read(&mut piece).map_err(failed)?;
            context.update(piece.get(..read).unwrap_or_default());
            length += read as u64;
            if read == 0 {
                break;
            }
        }
        let mut partial = Self { path, file, wanted, context, length };
        if length > wanted.size {
            partial.clear()?;
        }
        Ok(partial)
    }

    /// Forgets what has come.
    fn clear(&mut self) -> Result<()> {
        (self.length, self.context) = (0, context(self.wanted));
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map(drop).map_err(|e| Error::io(&self.path, "write", e))
    }

    /// Gets what is missing.
    fn complete(&mut self, client: &Client, url: &str, commit: &str, told: Told<'_>) -> Result<()> {
        let mut attempts = Attempts::new(client, url);
        told(self.length);
        while self.length < self.wanted.size {
            let before = self.length;
            let answer = client.get(url, self.length);
            let failure = match answer.and_then(|answer| self.take(answer, url, commit, told)) {
                Ok(()) => Failure::Passing("the connection was closed".into(), None),
                Err(failure) => failure,
            };
            if self.length > before {
                attempts.succeeded();
            }
            if self.length < self.wanted.size {
                attempts.again(failure)?;
            } else if let Failure::Final(error) = failure {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes what an answer brings.
    fn take(
        &mut self,
        mut answer: Answer,
        url: &str,
        commit: &str,
        told: Told<'_>,
    ) -> Result<(), Failure> {
        self.check_identity(&answer, url, commit)?;
        let begins = match answer.status {
            206 => begin_of(header(&answer.last, "content-range").unwrap_or_default()),
            200 => Some(0),
            _ => None,
        };
        // Another part than was asked for, or none: the whole file is asked for next.
        if begins != Some(self.length) {
            self.clear()?;
            told(0);
            if begins != Some(0) {
                return Err(Failure::Passing("sends another part of the file".into(), None));
            }
        }
        while let Some(piece) = answer.next()? {
            if piece.len() as u64 > self.wanted.size - self.length {
                self.clear()?;
                let reason = format!("sends more than the {} bytes of the file", self.wanted.size);
                return Err(hub_error(url, reason, "try again; nothing of it is kept").into());
            }
            self.file.write_all(&piece).map_err(|e| Error::io(&self.path, "write", e))?;
            self.context.update(&piece);
            self.length += piece.len() as u64;
            told(self.length);
        }
        Ok(())
    }

    /// Refuses what the hub says is another file.
    fn check_identity(&self, answer: &Answer, url: &str, commit: &str) -> Result<()> {
        let expected = self.wanted.digest.as_str();
        let tag = header(&answer.first, "x-linked-etag").or(header(&answer.first, "etag"));
        let tag = tag.map(|tag| tag.trim_start_matches("W/").trim_matches('"'));
        // Tags of other lengths are other servers' own.
        if let Some(tag) = tag.filter(|tag| tag.len() == expected.len() && *tag != expected) {
            let reason = format!("sends a file with the ETag {tag}, expected {expected}");
            return Err(hub_error(url, reason, "try again"));
        }
        match header(&answer.first, "x-repo-commit").filter(|found| *found != commit) {
            Some(found) => {
                let reason = format!("sends a file of commit {found}, expected {commit}");
                Err(hub_error(url, reason, "try again"))
            }
            None => Ok(()),
        }
    }

    /// Compares the checksum; returns the one found where it is another.
    fn check(&self) -> Result<(), String> {
        let found = self.context.clone().finish();
        let found: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        if found == self.wanted.digest.as_str() { Ok(()) } else { Err(found) }
    }

    /// Gives the file its name, on the disk.
    fn persist(self, blob: &Path) -> Result<()> {
        let persisted = self.file.sync_all().and_then(|()| std::fs::rename(&self.path, blob));
        persisted.map_err(|e| Error::io(blob, "write", e))?;
        durable::sync_folder(blob.parent().unwrap_or(blob))
    }
}

/// The first byte of a part, as `bytes 5-9/10` says.
fn begin_of(range: &str) -> Option<u64> {
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

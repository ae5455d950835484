//! A package under way, in a folder beside its place: what a conversion that was cut off has finished is
//! kept by the next one of the same model with the same settings.

use super::identity::Identity;
use super::told::{Note, Told};
use crate::cancel::Cancel;
use crate::durable::{self, folder_of, sync_folder};
use crate::package::{FileEntry, TensorEntry, parse_crc};
use crate::scratch::{is_at, is_scratch};
use crate::{Error, Result, input};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is converted, and how.
const IDENTITY: &str = "conversion.json";
/// The package that the model is shown texts with.
const CALIBRATION: &str = "calibration";
/// Where an old package is put where the file system can't exchange it with the new one.
const REPLACED: &str = "replaced";
/// The longest file that says what is converted.
const MAX_IDENTITY: u64 = 16 << 20;
/// How often a lock that another process has is tried.
const INTERVAL: Duration = Duration::from_millis(50);

/// Where the package lies that a conversion to `output` is making, until it is whole.
#[must_use]
pub fn partial_path(output: &Path) -> PathBuf {
    let mut name = output.file_name().map_or_else(|| "package".into(), OsString::from);
    name.push(".partial");
    output.with_file_name(name)
}

/// The folder, which no other conversion uses meanwhile.
pub(super) struct Partial {
    path: PathBuf,
    _lock: File,
    /// The source can be known again.
    resumable: bool,
}

impl Partial {
    /// The folder for `output`: a new one, or one that a conversion left which was cut off. Where another
    /// one is under way, it is refused or waited for.
    pub(super) fn open(output: &Path, wait: bool, cancel: &Cancel) -> Result<Self> {
        let path = partial_path(output);
        loop {
            match std::fs::create_dir(&path) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                    return Err(Error::io(folder_of(output), "write into", e));
                }
                _ => {}
            }
            let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let lock = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::io(&path, "open", e)),
                Ok(folder) => folder,
            };
            match lock.try_lock() {
                Err(TryLockError::WouldBlock) if wait => {
                    cancel.check()?;
                    std::thread::sleep(INTERVAL);
                }
                Err(TryLockError::WouldBlock) => return Err(busy(output, &path)),
                Err(TryLockError::Error(e)) => return Err(Error::io(&path, "lock", e)),
                // Whoever had the lock may have removed the folder.
                Ok(()) if !is_at(&lock, &path) => {}
                Ok(()) => return Ok(Self { path, _lock: lock, resumable: false }),
            }
        }
    }

    /// Keeps what is there if it is of the same conversion, and removes it otherwise.
    pub(super) fn begin(&mut self, identity: &Identity, told: Told<'_>) -> Result<()> {
        self.resumable = identity.is_of_files();
        let names = self.names()?;
        let found = names.contains(IDENTITY).then(|| self.identity()).transpose()?;
        if found.is_none() && !names.iter().all(|name| is_scratch(name)) {
            let shown = self.path.display();
            let remedy = "it is not replaced: move it, or name another output";
            return Err(Error::Usage(format!(
                "{shown}: exists already, and is not a conversion that was cut off: {remedy}"
            )));
        }
        let changed = found.as_ref().map(|found| identity.changed(found.as_ref()));
        if self.resumable && changed.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        if let Some(changed) = changed.filter(|_| self.stage().has_finished()) {
            told.of(&Note::Anew { folder: &self.path, changed: &changed });
        }
        self.clear()?;
        durable::write(&self.path.join(IDENTITY), identity.to_json()?.as_bytes())
    }

    fn identity(&self) -> Result<Option<Identity>> {
        let text = input::read_part(&self.path, IDENTITY, MAX_IDENTITY)?;
        Ok(serde_json::from_slice(&text).ok())
    }

    fn names(&self) -> Result<BTreeSet<String>> {
        let failed = |e| Error::io(&self.path, "read", e);
        let entries = std::fs::read_dir(&self.path).map_err(failed)?;
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned())
        };
        entries.map(name).collect()
    }

    /// The package that is asked for.
    pub(super) fn stage(&self) -> Stage {
        Stage::at(&self.path)
    }

    /// The package that only calibrating needs.
    pub(super) fn calibration(&self) -> Stage {
        Stage::at(&self.path.join(CALIBRATION))
    }

    /// Where an old package may be put.
    pub(super) fn replaced(&self) -> PathBuf {
        self.path.join(REPLACED)
    }

    /// True if the next conversion can go on with what is here.
    pub(super) fn is_worth_keeping(&self) -> bool {
        self.resumable && (self.stage().has_finished() || self.calibration().has_finished())
    }

    /// Removes all but what says what is converted, by which the folder is known. What says what is
    /// finished goes first.
    fn clear(&self) -> Result<()> {
        let names = ["done", "package", CALIBRATION, REPLACED];
        names.iter().try_for_each(|name| remove(&self.path.join(name)))
    }

    /// Removes the folder; `action` says in a message what that is.
    pub(super) fn remove(self, action: &'static str) -> Result<()> {
        self.clear()?;
        std::fs::remove_dir_all(&self.path).map_err(|e| Error::io(&self.path, action, e))
    }
}

fn busy(output: &Path, path: &Path) -> Error {
    let (output, path) = (output.display(), path.display());
    Error::Usage(format!(
        "{path}: another conversion is writing {output}: wait until it has ended, or name another output"
    ))
}

/// Removes a file or a folder, if it is there.
fn remove(path: &Path) -> Result<()> {
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    let removed = if found.is_dir() { std::fs::remove_dir_all } else { std::fs::remove_file };
    removed(path).map_err(|e| Error::io(path, "remove", e))
}

/// A package under way, and which of its files of weights are finished.
pub(super) struct Stage {
    pub(super) folder: PathBuf,
    pub(super) package: PathBuf,
    done: PathBuf,
}

/// A file of weights that is written, and what the index says of it.
#[derive(Serialize, Deserialize)]
pub(super) struct Finished {
    pub(super) file: FileEntry,
    pub(super) tensors: Vec<TensorEntry>,
}

impl Finished {
    /// True if this is what the index plans, whose checksums are not known yet.
    fn is_of(&self, file: &FileEntry, tensors: &[TensorEntry]) -> bool {
        let same = |(done, planned): (&TensorEntry, &TensorEntry)| {
            let TensorEntry { crc32c, error, .. } = planned;
            TensorEntry { crc32c: crc32c.clone(), error: *error, ..done.clone() } == *planned
        };
        (&self.file.name, self.file.length) == (&file.name, file.length)
            && self.file.page_crc32c.len() == file.page_crc32c.len()
            && self.tensors.len() == tensors.len()
            && self.tensors.iter().zip(tensors).all(same)
    }
}

impl Stage {
    fn at(folder: &Path) -> Self {
        let [package, done] = ["package", "done"].map(|name| folder.join(name));
        Self { folder: folder.to_owned(), package, done }
    }

    pub(super) fn weights(&self) -> PathBuf {
        self.package.join("weights")
    }

    fn note(&self, name: &str) -> PathBuf {
        self.done.join(format!("{name}.json"))
    }

    fn has_finished(&self) -> bool {
        std::fs::read_dir(&self.done).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// What is said of a file, if it is finished; its bytes are still to be checked.
    pub(super) fn finished(&self, file: &FileEntry, tensors: &[TensorEntry]) -> Option<Finished> {
        let text = input::read(&self.note(&file.name), input::MAX_JSON_BYTES).ok()?;
        let finished: Finished = serde_json::from_slice(&text).ok()?;
        finished.is_of(file, tensors).then_some(finished)
    }

    /// True if a file's bytes are those that its checksums are of; `step` is told of bytes that were read.
    pub(super) fn is_whole(
        &self,
        file: &FileEntry,
        page_size: u32,
        crc32c: fn(u32, &[u8]) -> u32,
        step: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<bool> {
        let Ok(mut bytes) = input::open_part(&self.weights(), &file.name) else {
            return Ok(false);
        };
        if bytes.metadata().map_or(0, |found| found.len()) != file.length {
            return Ok(false);
        }
        let mut page = vec![0; page_size as usize];
        for digits in file.page_crc32c.as_bytes().chunks(8) {
            let read = bytes.read_exact(&mut page);
            if read.is_err() || parse_crc(digits) != Some(crc32c(0, &page)) {
                return Ok(false);
            }
            step(page.len() as u64)?;
        }
        Ok(true)
    }

    /// Notes that a file is written, so that the next conversion keeps it.
    pub(super) fn finish(&self, finished: &Finished) -> Result<()> {
        create(&self.done)?;
        sync_folder(&self.weights())?;
        let path = self.note(&finished.file.name);
        let text = serde_json::to_vec(finished).map_err(|e| Error::io(&path, "write", e.into()))?;
        durable::write(&path, &text)
    }

    /// Removes all of the package but these files of weights.
    pub(super) fn keep_only(&self, kept: &BTreeSet<&str>) -> Result<()> {
        create(&self.weights())?;
        for (folder, kept) in [(&self.package, &["weights"].into()), (&self.weights(), kept)] {
            let failed = |e| Error::io(folder, "read", e);
            for entry in std::fs::read_dir(folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                if !entry.file_name().to_str().is_some_and(|name| kept.contains(name)) {
                    remove(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}

fn create(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))
}

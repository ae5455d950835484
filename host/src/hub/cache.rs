//! The cache of Hugging Face's own programs, which share it with us: a folder for each repository, with
//! contents by their checksums in `blobs`, links to them by the files' names in `snapshots/COMMIT`, and
//! the commits of branches in `refs`.

use super::listing::is_hex;
use crate::cancel::Cancel;
use crate::{Error, Result, durable};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a lock that another program holds is tried.
const INTERVAL: Duration = Duration::from_millis(50);

/// What the cache has of one repository.
pub(super) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

/// The folders of Hugging Face's programs, as the environment says: all repositories, and their settings.
pub(super) fn folders_of_environment() -> Option<[PathBuf; 2]> {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let caches = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let home = variable("HF_HOME").or_else(|| Some(caches()?.join("huggingface")));
    let hub = variable("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub")))?;
    Some([hub, home.unwrap_or_default()])
}

impl Cache {
    /// That of a repository in the folder of all.
    pub(super) fn new(all: &Path, repository: &str) -> Self {
        let name = format!("models--{}", repository.replace('/', "--"));
        Self { folder: all.join(&name), locks: all.join(".locks").join(name) }
    }

    /// The commit that a revision was when it was got last.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_hex(revision, 40) && self.snapshot(revision).is_dir() {
            return Some(revision.to_owned());
        }
        let commit = std::fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        is_hex(commit.trim(), 40).then(|| commit.trim().to_owned())
    }

    /// Keeps which commit a revision is.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let file = self.folder.join("refs").join(revision);
        create_folder_of(&file)?;
        durable::write(&file, commit.as_bytes())
    }

    /// The files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, checksum: &str) -> PathBuf {
        self.folder.join("blobs").join(checksum)
    }

    /// Gives a blob the name of a file in a commit.
    pub(super) fn link(&self, commit: &str, file: &str, checksum: &str) -> Result<PathBuf> {
        let link = self.snapshot(commit).join(file);
        let up = "../".repeat(2 + file.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{checksum}"));
        if std::fs::read_link(&link).is_ok_and(|found| found == target) {
            return Ok(link);
        }
        create_folder_of(&link)?;
        // The name appears with its new target, or keeps what it had.
        let new = tempfile::Builder::new()
            .prefix(".omex-new-")
            .make_in(link.parent().unwrap_or(&link), |path| {
                std::os::unix::fs::symlink(&target, path)
            });
        let failed = |e| Error::io(&link, "link", e);
        new.map_err(failed)?.into_temp_path().persist(&link).map_err(|e| failed(e.error))?;
        Ok(link)
    }

    /// The names of a commit's files that are here whole.
    pub(super) fn files(&self, commit: &str) -> Vec<(String, u64)> {
        let (root, mut files) = (self.snapshot(commit), vec![]);
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for path in folder.read_dir().into_iter().flatten().flatten().map(|e| e.path()) {
                if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                    folders.push(path);
                } else if let (Ok(found), Some(name)) =
                    (path.metadata(), path.strip_prefix(&root).ok().and_then(Path::to_str))
                {
                    files.push((name.to_owned(), found.len()));
                }
            }
        }
        files.sort();
        files
    }

    /// Keeps other programs from getting the same blob until it is dropped.
    pub(super) fn lock(&self, checksum: &str, cancel: &Cancel) -> Result<Option<File>> {
        let path = self.locks.join(format!("{checksum}.lock"));
        create_folder_of(&path)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| Error::io(&path, "create", e))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) => cancel.check()?,
                // A file system without locks.
                Err(TryLockError::Error(_)) => return Ok(None),
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

pub(super) fn create_folder_of(file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(file);
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))
}

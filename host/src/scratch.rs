//! Temporary files and folders that the next run removes where a process was killed: whoever makes
//! one holds its lock, so what nobody has locked is nobody's.

use crate::{Error, Result};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use tempfile::{NamedTempFile, TempDir};

/// How the names of temporary files begin.
const FILE_PREFIX: &str = ".omex-new-";

/// A folder, locked for as long as it is used, and then removed.
pub(crate) struct ScratchFolder {
    folder: TempDir,
    _lock: File,
}

impl ScratchFolder {
    /// A new folder in another; those of dead processes with this prefix are removed.
    pub(crate) fn new(parent: &Path, prefix: &str) -> Result<Self> {
        let failed = |e| Error::io(parent, "write into", e);
        remove_stale(parent, prefix);
        loop {
            let folder =
                tempfile::Builder::new().prefix(prefix).tempdir_in(parent).map_err(failed)?;
            let lock = File::open(folder.path()).map_err(failed)?;
            if is_kept(&lock, folder.path()) {
                return Ok(Self { folder, _lock: lock });
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A new file in a folder; those of dead processes are removed. It may be read by whom the umask
/// allows, where temporary files are their owner's alone.
pub(crate) fn scratch_file(folder: &Path) -> Result<NamedTempFile> {
    remove_stale(folder, FILE_PREFIX);
    let mut builder = tempfile::Builder::new();
    builder.prefix(FILE_PREFIX).permissions(Permissions::from_mode(0o666));
    loop {
        let file = builder.tempfile_in(folder).map_err(|e| Error::io(folder, "write into", e))?;
        if is_kept(file.as_file(), file.path()) {
            return Ok(file);
        }
    }
}

/// Locks what was just made; false if another process removed it before it was locked.
fn is_kept(made: &File, path: &Path) -> bool {
    // Where a file system has no locks, nobody removes anything.
    made.lock().is_err() || is_at(made, path)
}

/// True if what is open is what has this name.
pub(crate) fn is_at(open: &File, path: &Path) -> bool {
    let place = |found: io::Result<std::fs::Metadata>| found.ok().map(|m| (m.dev(), m.ino()));
    place(open.metadata()) == place(path.symlink_metadata())
}

/// True if a temporary file has this name.
pub(crate) fn is_scratch(name: &str) -> bool {
    name.starts_with(FILE_PREFIX)
}

/// Removes what has this prefix and no lock. What can't be removed is left: it may be another user's.
fn remove_stale(parent: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let _ = remove_unlocked(&entry.path());
        }
    }
}

fn remove_unlocked(path: &Path) -> io::Result<()> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.try_lock().is_err() {
        return Ok(());
    }
    let kind = file.metadata()?.file_type();
    match () {
        () if kind.is_dir() => std::fs::remove_dir_all(path),
        () if kind.is_file() => std::fs::remove_file(path),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_locked_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        std::fs::create_dir_all(at(".omex-x-dead/within")).unwrap();
        std::fs::write(at(".omex-new-dead"), "half").unwrap();
        std::fs::write(at("other"), "kept").unwrap();
        let folder = ScratchFolder::new(parent.path(), ".omex-x-").unwrap();
        let file = scratch_file(parent.path()).unwrap();
        let _others = (
            ScratchFolder::new(parent.path(), ".omex-x-").unwrap(),
            scratch_file(parent.path()).unwrap(),
        );
        assert!(folder.path().is_dir() && file.path().is_file() && at("other").is_file());
        assert!(!at(".omex-x-dead").exists() && !at(".omex-new-dead").exists());
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}

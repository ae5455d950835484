//! Files and folders that appear whole, stay after a loss of power, and take nothing with them that
//! was there before, unless they can take its place.

use crate::input::kind;
use crate::scratch::scratch_file;
use crate::{Error, Result};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use tempfile::NamedTempFile;

/// The folder that a path lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Has a file hold these bytes: all of them, or what it held before.
///
/// # Errors
/// A name that is a link's or a device's, or the operating system's.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = create_beside(path)?;
    file.write_all(bytes).map_err(|e| Error::io(path, "write", e))?;
    persist(file, path)
}

/// A new file beside `path`, which [`persist`] gives this name; it is removed unless it is persisted.
///
/// # Errors
/// A name that is a link's or a device's, a folder that can't be written to.
pub(crate) fn create_beside(path: &Path) -> Result<NamedTempFile> {
    check_replaceable(path)?;
    scratch_file(folder_of(path))
}

/// Writes a file of [`create_beside`] to the disk, and then gives it its name there.
///
/// # Errors
/// The operating system's.
pub(crate) fn persist(file: NamedTempFile, path: &Path) -> Result<()> {
    let failed = |e| Error::io(path, "write", e);
    file.as_file().sync_all().map_err(failed)?;
    check_replaceable(path)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    sync_folder(folder_of(path))
}

/// As [`persist`], where no file has the name yet.
///
/// # Errors
/// The operating system's, or that a file has the name.
pub(crate) fn persist_new(file: NamedTempFile, path: &Path) -> Result<File> {
    let failed = |e| Error::io(path, "create", e);
    file.as_file().sync_all().map_err(failed)?;
    let file = file.persist_noclobber(path).map_err(|e| failed(e.error))?;
    sync_folder(folder_of(path))?;
    Ok(file)
}

/// Refuses what a file must not take the place of: whoever named a link or a device means what is
/// behind it, and would lose it.
///
/// # Errors
/// Something else than a regular file.
pub(crate) fn check_replaceable(path: &Path) -> Result<()> {
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    if found.is_symlink() {
        return Err(link(path));
    }
    if !found.is_file() {
        let kind = kind(found.file_type());
        let message = format!("{}: is {kind}, expected a regular file", path.display());
        return Err(Error::Usage(format!("{message}, or a new name")));
    }
    Ok(())
}

/// Says that an output is a link, and where to.
pub(crate) fn link(path: &Path) -> Error {
    let target = std::fs::read_link(path).unwrap_or_default();
    let (path, target) = (path.display(), target.display());
    Error::Usage(format!("{path}: is a symbolic link to {target}: name what it stands for"))
}

/// Waits until a folder's names are on the disk.
///
/// # Errors
/// The operating system's.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    match synced {
        // Some file systems have nothing to write for a folder, and say so.
        Err(error) if !is_unsupported(&error) => Err(Error::io(folder, "write", error)),
        _ => Ok(()),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

/// Waits until all files of a folder and its names are on the disk.
fn sync_tree(folder: &Path) -> Result<()> {
    let failed = |e| Error::io(folder, "write", e);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path()).and_then(|file| file.sync_all()).map_err(failed)?;
        }
    }
    sync_folder(folder)
}

/// Gives a folder the name `output`, durably. What has the name before, a folder too, has the name
/// `new` afterwards, or `aside` where the file system can't exchange; after an error it has its own.
///
/// # Errors
/// The operating system's.
pub(crate) fn put_in_place(new: &Path, output: &Path, aside: &Path) -> Result<()> {
    sync_tree(new)?;
    let failed = |e| Error::io(output, "replace", e);
    if output.exists() {
        exchange(new, output).or_else(|error| {
            if !is_unsupported(&error) {
                return Err(error);
            }
            swap_by_steps(new, output, aside)
        })
    } else {
        std::fs::rename(new, output)
    }
    .map_err(failed)?;
    sync_folder(folder_of(output))
}

/// Exchanges two names at once.
#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(|error| match error {
        Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => ErrorKind::Unsupported.into(),
        error => error.into(),
    })
}

#[cfg(not(target_os = "linux"))]
fn exchange(_one: &Path, _other: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Moves what is at `output` aside and a new folder there; puts the old one back if that fails.
fn swap_by_steps(new: &Path, output: &Path, aside: &Path) -> io::Result<()> {
    std::fs::rename(output, aside)?;
    std::fs::rename(new, output).inspect_err(|_| {
        // The error that is reported is the first one.
        let _ = std::fs::rename(aside, output);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder_with(path: &Path, text: &str) {
        std::fs::create_dir(path).unwrap();
        std::fs::write(path.join("file"), text).unwrap();
    }

    #[test]
    fn a_folder_takes_anothers_place_or_leaves_it_there() {
        let parent = tempfile::tempdir().unwrap();
        let [new, output, aside] = ["new", "output", "aside"].map(|name| parent.path().join(name));
        let text = |folder: &Path| std::fs::read_to_string(folder.join("file")).unwrap();
        folder_with(&new, "first");
        put_in_place(&new, &output, &aside).unwrap();
        assert!(text(&output) == "first" && !new.exists());
        folder_with(&new, "second");
        put_in_place(&new, &output, &aside).unwrap();
        assert_eq!(text(&output), "second");
        let _ = std::fs::remove_dir_all(&new);
        folder_with(&new, "third");
        swap_by_steps(&new, &output, &aside).unwrap();
        assert_eq!((text(&output), text(&aside)), ("third".into(), "second".into()));
        std::fs::remove_dir_all(&aside).unwrap();
        // There is no new folder, so the second step fails.
        assert!(swap_by_steps(&new, &output, &aside).is_err());
        assert!(text(&output) == "third" && !aside.exists());
    }

    #[test]
    fn links_and_devices_are_not_written_to_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("target"), "kept").unwrap();
        symlink(at("target"), at("link")).unwrap();
        symlink(at("nothing"), at("dangling")).unwrap();
        for (path, said) in [
            (at("link"), "target: name what it stands for"),
            (at("dangling"), "nothing: name what it stands for"),
            ("/dev/null".into(), "is a device"),
            (folder.path().to_owned(), "is a folder"),
        ] {
            let error = create_beside(&path).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        persist(create_beside(&at("target")).unwrap(), &at("target")).unwrap();
        assert_eq!(std::fs::read(at("target")).unwrap(), b"");
    }
}

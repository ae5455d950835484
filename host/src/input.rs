//! The one way to open what is read: a regular file, never a pipe, a device, or what stands for
//! another file. So no input can hang a command or fill its memory, whatever lies under its name.

use crate::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The longest JSON file.
pub const MAX_JSON_BYTES: u64 = 256 << 20;
/// The longest tokenizer, compiled or as another program stored it.
pub const MAX_TOKENIZER_BYTES: u64 = 256 << 20;
/// The longest text that is held in memory.
pub const MAX_TEXT_BYTES: u64 = 256 << 20;

/// How a file begins that Git LFS left in place of a large one; it is never longer than the second.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
const MAX_POINTER_BYTES: u64 = 1024;

/// Opens a regular file that a user named, by a link or not.
///
/// # Errors
/// No such file, something else than a regular file, or a pointer of Git LFS.
pub fn open(path: &Path) -> Result<File> {
    checked(path, open_with(path, 0))
}

/// Opens a file of a package: neither it nor a folder on the way to it may be a link.
///
/// # Errors
/// Those of [`open`].
pub fn open_part(package: &Path, name: &str) -> Result<File> {
    let path = package.join(name);
    let mut folder = package.to_owned();
    for part in Path::new(name).parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        let kind = folder.symlink_metadata().map_err(|e| Error::io(&path, "read", e))?.file_type();
        if !kind.is_dir() {
            return Err(irregular(&folder, kind, "a folder of the package"));
        }
    }
    checked(&path, open_with(&path, libc::O_NOFOLLOW))
}

/// All bytes of a regular file of at most `most`.
///
/// # Errors
/// Those of [`open`], or a longer file.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    read_all(path, &open(path)?, most)
}

/// As [`read`], of a file of a package; see [`open_part`].
///
/// # Errors
/// Those of [`open_part`], or a longer file.
pub fn read_part(package: &Path, name: &str, most: u64) -> Result<Vec<u8>> {
    read_all(&package.join(name), &open_part(package, name)?, most)
}

/// A text of at most `most` bytes, and of [`MAX_TEXT_BYTES`].
///
/// # Errors
/// Those of [`read`], or bytes that are not UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    let file = open(path)?;
    check_text(path, file.metadata().map_err(|e| Error::io(path, "read", e))?.len(), most)?;
    text(path, read_all(path, &file, MAX_TEXT_BYTES)?)
}

/// The beginning of a text: at most so many bytes of it, in whole characters.
///
/// # Errors
/// Those of [`open`], or bytes that are not UTF-8.
pub fn read_start(path: &Path, most: u64) -> Result<String> {
    let mut bytes = vec![];
    let read = open(path)?.take(most).read_to_end(&mut bytes);
    read.map_err(|e| Error::io(path, "read", e))?;
    if bytes.len() as u64 == most {
        let last = bytes.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
        bytes.truncate(last);
    }
    text(path, bytes)
}

fn text(path: &Path, mut bytes: Vec<u8>) -> Result<String> {
    check_encoding(path, &bytes)?;
    let mark = bytes.len() - without_mark(&bytes).len();
    bytes.drain(..mark);
    String::from_utf8(bytes).map_err(|error| {
        let field = format!("byte {}", error.utf8_error().valid_up_to());
        Error::malformed(path, field, "bytes that are not UTF-8", "UTF-8 text", "convert it")
    })
}

/// A byte order mark, which some editors put before a text, and which is no part of it.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// A text in UTF-8 without its byte order mark.
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// Refuses what begins as UTF-16 does, by its name.
pub(crate) fn check_encoding(path: &Path, start: &[u8]) -> Result<()> {
    if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
        let remedy = "convert it (iconv -f UTF-16 -t UTF-8)";
        return Err(Error::malformed(path, "encoding", "UTF-16", "UTF-8", remedy));
    }
    Ok(())
}

/// Refuses a text that is longer than the memory for it, or than any may be.
fn check_text(path: &Path, found: u64, most: u64) -> Result<()> {
    if found <= most {
        return check_length(path, found, MAX_TEXT_BYTES);
    }
    let (found, expected) = (format!("{found} bytes or more"), format!("at most {most}"));
    let remedy = "raise --memory, or give a shorter text";
    Err(Error::malformed(path, "length", found, expected, remedy))
}

/// As [`read_text`], of what has no name, as standard input.
///
/// # Errors
/// A longer text, bytes that are not UTF-8, or the source's.
pub fn read_text_from(source: impl Read, name: &str, most: u64) -> Result<String> {
    let (path, mut bytes) = (Path::new(name), vec![]);
    let read = source.take(most.min(MAX_TEXT_BYTES) + 1).read_to_end(&mut bytes);
    check_text(path, read.map_err(|e| Error::io(path, "read", e))? as u64, most)?;
    text(path, bytes)
}

fn read_all(path: &Path, file: &File, most: u64) -> Result<Vec<u8>> {
    let failed = |e| Error::io(path, "read", e);
    check_length(path, file.metadata().map_err(failed)?.len(), most)?;
    let mut bytes = vec![];
    // A file may grow, and some do not tell their length.
    let read = file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    check_length(path, read as u64, most)?;
    Ok(bytes)
}

/// Refuses what is longer than `most` bytes.
///
/// # Errors
/// The length.
pub(crate) fn check_length(path: &Path, found: u64, most: u64) -> Result<()> {
    if found <= most {
        return Ok(());
    }
    let (found, expected) = (format!("{found} bytes"), format!("at most {most}"));
    Err(Error::malformed(path, "length", found, expected, "give another file"))
}

/// Opens without waiting, as a pipe without a writer would let one do.
fn open_with(path: &Path, flags: i32) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | flags).open(path)
}

/// What was opened, if it is a regular file with content of its own.
fn checked(path: &Path, opened: std::io::Result<File>) -> Result<File> {
    let expected = "a regular file";
    let file = opened.map_err(|error| match path.symlink_metadata() {
        Ok(found) if error.kind() != ErrorKind::NotFound && !found.is_file() => {
            irregular(path, found.file_type(), expected)
        }
        _ => Error::io(path, "read", error),
    })?;
    let metadata = file.metadata().map_err(|e| Error::io(path, "read", e))?;
    if !metadata.is_file() {
        return Err(irregular(path, metadata.file_type(), expected));
    }
    let mut start = [0; LFS_POINTER.len()];
    if metadata.len() <= MAX_POINTER_BYTES
        && file.read_exact_at(&mut start, 0).is_ok()
        && start == LFS_POINTER
    {
        let remedy = "install git-lfs and run `git lfs pull` in the folder of the model";
        let (found, expected) = ("a Git LFS pointer", "the file that it stands for");
        return Err(Error::malformed(path, "content", found, expected, remedy));
    }
    Ok(file)
}

fn irregular(path: &Path, found: std::fs::FileType, expected: &str) -> Error {
    let found = kind(found);
    Error::malformed(
        path,
        "type",
        found,
        expected,
        format!("put {expected} there, or name another"),
    )
}

/// What a file is, in words.
pub(crate) fn kind(file: std::fs::FileType) -> &'static str {
    match () {
        () if file.is_file() => "a regular file",
        () if file.is_dir() => "a folder",
        () if file.is_symlink() => "a symbolic link",
        () if file.is_fifo() => "a pipe",
        () if file.is_socket() => "a socket",
        () if file.is_block_device() => "a block device",
        () => "a device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let _socket = UnixListener::bind(at("socket")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        let said =
            [("pipe", "a pipe"), ("socket", "a socket"), ("zero", "a device"), ("", "a folder")];
        for (name, kind) in said {
            let error = read(&at(name), 100).unwrap_err().to_string();
            assert!(
                error.contains(&format!("type: found {kind}, expected a regular file")),
                "{error}"
            );
        }
    }

    #[test]
    fn files_of_a_package_are_not_links_and_not_reached_through_any() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        std::fs::write(at("real/file"), "text").unwrap();
        symlink(at("real"), at("folder")).unwrap();
        symlink(at("real/file"), at("link")).unwrap();
        assert_eq!(read_part(folder.path(), "real/file", 4).unwrap(), b"text");
        assert_eq!(read(&at("link"), 4).unwrap(), b"text");
        for name in ["link", "folder/file"] {
            let error = read_part(folder.path(), name, 4).unwrap_err().to_string();
            assert!(error.contains("found a symbolic link"), "{error}");
        }
    }

    #[test]
    fn files_that_are_too_long_are_not_read_and_texts_end_with_whole_characters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = read(&path, 100).unwrap_err().to_string();
        assert!(
            error.contains("length: found 1099511627776 bytes, expected at most 100"),
            "{error}"
        );
        std::fs::write(&path, "aé€").unwrap();
        for (most, start) in [(1, ""), (2, "a"), (3, "a"), (4, "aé"), (6, "aé"), (7, "aé€")] {
            assert_eq!(read_start(&path, most).unwrap(), start, "{most}");
        }
    }

    #[test]
    fn a_pointer_of_git_lfs_is_called_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n";
        std::fs::write(&path, pointer).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(
            error.contains("found a Git LFS pointer") && error.contains("git lfs pull"),
            "{error}"
        );
    }
}

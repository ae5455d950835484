//! A file of prompts, or standard input, line by line.

use crate::cancel::Cancel;
use crate::{Error, Result, input};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// The longest line that is read.
pub(super) const MAX_LINE_BYTES: usize = 16 << 20;

/// The most bytes and lines of prompts.
const MAX_BYTES: u64 = 4 << 30;
const MAX_LINES: u64 = 1 << 24;

/// What messages call standard input.
const STDIN: &str = "standard input";

/// A byte order mark, which some editors put before a text.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Lines of prompts.
pub struct Prompts {
    path: PathBuf,
    reader: BufReader<File>,
    crc32c: u32,
    lines: u64,
    read: u64,
}

impl Prompts {
    /// Opens a file; `-` is standard input, which is kept in a temporary file to be read twice.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn open(path: &Path, cancel: &Cancel) -> Result<Self> {
        let path = if path == Path::new("-") { Path::new(STDIN) } else { path };
        let failed = |error| Error::io(path, "read", error);
        let file = if path == Path::new(STDIN) {
            let stdin =
                || keep(io::stdin().lock()).map_err(|e| Error::io(Path::new(STDIN), "read", e));
            cancel.or_read(stdin)?
        } else {
            input::open(path)?
        };
        input::check_length(path, file.metadata().map_err(failed)?.len(), MAX_BYTES)?;
        let mut reader = BufReader::new(file);
        let (crc32c, lines) = survey(&mut reader).map_err(failed)?;
        if lines > MAX_LINES {
            let (found, expected) = (format!("{lines} lines"), format!("at most {MAX_LINES}"));
            return Err(Error::malformed(path, "length", found, expected, "split the prompts"));
        }
        Ok(Self { path: path.to_owned(), reader, crc32c, lines, read: 0 })
    }

    /// The file, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many lines there are.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// CRC-32C of all bytes.
    pub(super) fn crc32c(&self) -> u32 {
        self.crc32c
    }

    /// Reads the next line without its end, and returns its number, counted from 1. Of a line that
    /// is too long, [`MAX_LINE_BYTES`] and one more are returned.
    pub(super) fn next_line(&mut self, line: &mut Vec<u8>) -> Result<Option<u64>> {
        let failed = |error| Error::io(&self.path, "read", error);
        line.clear();
        let mut limited = (&mut self.reader).take(1 + MAX_LINE_BYTES as u64);
        if limited.read_until(b'\n', line).map_err(failed)? == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > MAX_LINE_BYTES {
            self.reader.skip_until(b'\n').map_err(failed)?;
        }
        if self.read == 0 && line.starts_with(MARK) {
            line.drain(..MARK.len());
        }
        self.read += 1;
        Ok(Some(self.read))
    }
}

/// Copies a source, up to one byte more than is allowed, into a temporary file.
fn keep(source: impl Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut source.take(MAX_BYTES + 1), &mut file)?;
    file.rewind()?;
    Ok(file)
}

/// CRC-32C and number of lines of a file; goes back to its beginning.
fn survey(reader: &mut BufReader<File>) -> io::Result<(u32, u64)> {
    let (mut crc, mut lines, mut last) = (0, 0, b'\n');
    loop {
        let bytes = reader.fill_buf()?;
        let Some(end) = bytes.last() else { break };
        last = *end;
        crc = crc32c::crc32c_append(crc, bytes);
        lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let length = bytes.len();
        reader.consume(length);
    }
    reader.rewind()?;
    Ok((crc, lines + u64::from(last != b'\n')))
}

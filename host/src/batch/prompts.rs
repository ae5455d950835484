//! A file of prompts, or standard input, line by line.

use crate::cancel::Cancel;
use crate::{Error, Result, input};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// The longest line that is read.
const MAX_LINE_BYTES: usize = 16 << 20;

/// The most bytes and lines of prompts.
const MAX_BYTES: u64 = 4 << 30;
const MAX_LINES: usize = 1 << 24;

/// What messages call standard input.
const STDIN: &str = "standard input";

/// Lines of prompts.
pub struct Prompts {
    path: PathBuf,
    reader: BufReader<File>,
    /// CRC-32C of each line.
    checksums: Vec<u32>,
    longest: u64,
    /// Bytes of the file.
    bytes: u64,
    /// The longest line that is read.
    most: usize,
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
        let bytes = file.metadata().map_err(failed)?.len();
        input::check_length(path, bytes, MAX_BYTES)?;
        let mut reader = BufReader::new(file);
        input::check_encoding(path, reader.fill_buf().map_err(failed)?)?;
        let (checksums, longest) = survey(&mut reader).map_err(failed)?;
        if checksums.len() > MAX_LINES {
            let (found, expected) = ("more lines", format!("at most {MAX_LINES}"));
            return Err(Error::malformed(path, "length", found, expected, "split the prompts"));
        }
        Ok(Self {
            path: path.to_owned(),
            reader,
            checksums,
            longest,
            bytes,
            most: MAX_LINE_BYTES,
            read: 0,
        })
    }

    /// The file, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many lines there are.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.checksums.len() as u64
    }

    /// Bytes of the longest line.
    #[must_use]
    pub fn longest(&self) -> u64 {
        self.longest.min(MAX_LINE_BYTES as u64)
    }

    /// Bytes of a line on average, rounded up.
    #[must_use]
    pub fn mean(&self) -> u64 {
        self.bytes.div_ceil(self.lines().max(1))
    }

    /// CRC-32C of each line.
    pub(super) fn checksums(&self) -> &[u32] {
        &self.checksums
    }

    /// CRC-32C of a line, counted from 1.
    pub(super) fn checksum(&self, line: u64) -> u32 {
        let place = usize::try_from(line - 1).ok();
        place.and_then(|place| self.checksums.get(place)).copied().unwrap_or(0)
    }

    /// Reads no longer lines than these bytes hold, and returns the most bytes of one.
    pub(super) fn limit(&mut self, bytes: u64) -> usize {
        self.most = usize::try_from(bytes).unwrap_or(usize::MAX).min(MAX_LINE_BYTES);
        self.most
    }

    /// Reads the next line without its end, and returns its number, counted from 1. Of a line that
    /// is too long, the most bytes and one more are returned.
    pub(super) fn next_line(&mut self, line: &mut Vec<u8>) -> Result<Option<u64>> {
        let failed = |error| Error::io(&self.path, "read", error);
        line.clear();
        let mut limited = (&mut self.reader).take(1 + self.most as u64);
        if limited.read_until(b'\n', line).map_err(failed)? == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > self.most {
            self.reader.skip_until(b'\n').map_err(failed)?;
        }
        if self.read == 0 {
            let mark = line.len() - input::without_mark(line).len();
            line.drain(..mark);
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

/// CRC-32C of each line of a file, and the bytes of the longest; goes back to its beginning. Stops
/// after more lines than are allowed.
fn survey(reader: &mut BufReader<File>) -> io::Result<(Vec<u32>, u64)> {
    let (mut checksums, mut longest) = (vec![], 0);
    let (mut crc, mut length) = (0, 0);
    while checksums.len() <= MAX_LINES {
        let bytes = reader.fill_buf()?;
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        (crc, length) = (crc32c::crc32c_append(crc, part), length + part.len() as u64);
        let (read, ended) = (part.len() + usize::from(end.is_some()), bytes.is_empty());
        if end.is_some() || (ended && length > 0) {
            checksums.push(crc);
            longest = longest.max(length);
            (crc, length) = (0, 0);
        }
        if ended {
            break;
        }
        reader.consume(read);
    }
    reader.rewind()?;
    Ok((checksums, longest))
}

//! A stretch of a file, read from its beginning to its end.

use crate::Result;
use crate::import::source_file::SourceFile;
use std::ops::Range;

/// Bytes that are read at once.
const BUFFER: u64 = 1 << 16;
/// The longest line: the name of a module or of something in it.
const MAX_LINE: usize = 1000;

/// A stretch of a file.
pub(super) struct Bytes<'f> {
    file: &'f SourceFile,
    /// What is still to be read into the buffer.
    rest: Range<u64>,
    buffer: Vec<u8>,
    used: usize,
}

impl<'f> Bytes<'f> {
    pub(super) fn new(file: &'f SourceFile, range: Range<u64>) -> Self {
        Self { file, rest: range, buffer: Vec::new(), used: 0 }
    }

    pub(super) fn file(&self) -> &'f SourceFile {
        self.file
    }

    /// The offset of the next byte in the file.
    pub(super) fn at(&self) -> u64 {
        self.rest.start - (self.buffer.len() - self.used) as u64
    }

    /// The next bytes.
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    /// The next `length` bytes, for which there is memory only if they are there.
    pub(super) fn text(&mut self, length: usize) -> Result<Vec<u8>> {
        self.check(length as u64)?;
        let mut out = vec![0; length];
        self.fill(&mut out)?;
        Ok(out)
    }

    pub(super) fn skip(&mut self, length: u64) -> Result<()> {
        self.check(length)?;
        let buffered = (self.buffer.len() - self.used) as u64;
        self.used += length.min(buffered) as usize;
        self.rest.start += length.saturating_sub(buffered);
        Ok(())
    }

    /// The bytes up to the end of a line, which is left out.
    pub(super) fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        while line.len() <= MAX_LINE {
            match self.take()? {
                [b'\n'] => return Ok(String::from_utf8_lossy(&line).into_owned()),
                [byte] => line.push(byte),
            }
        }
        let (expected, remedy) = ("a name", "the file is damaged: get it again");
        let found = format!("a line of more than {MAX_LINE} bytes");
        Err(self.file.malformed(format!("pickle, byte {}", self.at()), found, expected, remedy))
    }

    fn check(&self, length: u64) -> Result<()> {
        let left = self.rest.end - self.at();
        if length <= left {
            return Ok(());
        }
        let (found, expected) = (format!("{left} bytes"), format!("{length} more"));
        let remedy = "the file is cut short: get it again";
        Err(self.file.malformed(format!("pickle, byte {}", self.at()), found, expected, remedy))
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        self.check(out.len() as u64)?;
        let mut filled = 0;
        while filled < out.len() {
            if self.used == self.buffer.len() {
                self.refill()?;
            }
            let part = (out.len() - filled).min(self.buffer.len() - self.used);
            out[filled..filled + part].copy_from_slice(&self.buffer[self.used..self.used + part]);
            self.used += part;
            filled += part;
        }
        Ok(())
    }

    fn refill(&mut self) -> Result<()> {
        let length = BUFFER.min(self.rest.end - self.rest.start);
        self.buffer.resize(length as usize, 0);
        self.file.read("pickle", self.rest.start, &mut self.buffer)?;
        self.rest.start += length;
        self.used = 0;
        Ok(())
    }
}

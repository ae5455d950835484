//! Bytes on their way into pages, each with its checksum.

use std::io::{Result, Write};

/// Writes pages and computes the CRC-32C of each.
pub(crate) struct PageWriter<W> {
    file: W,
    crc32c: fn(u32, &[u8]) -> u32,
    page: Vec<u8>,
    page_size: usize,
    checksums: Vec<u32>,
    length: u64,
}

impl<W: Write> PageWriter<W> {
    pub(crate) fn new(file: W, page_size: u32, crc32c: fn(u32, &[u8]) -> u32) -> Self {
        let page_size = page_size as usize;
        let page = Vec::with_capacity(page_size);
        Self { file, crc32c, page, page_size, checksums: vec![], length: 0 }
    }

    /// Bytes written so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = self.page_size - self.page.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.page.extend_from_slice(now);
            bytes = later;
            if self.page.len() == self.page_size {
                self.end_page()?;
            }
        }
        Ok(())
    }

    /// Fills up with zeros to a multiple of `to`.
    pub(crate) fn align(&mut self, to: u64) -> Result<()> {
        let padding = self.length.next_multiple_of(to) - self.length;
        self.write(&vec![0; padding as usize])
    }

    /// Ends the last page, which may be short, and returns the file and the checksums.
    pub(crate) fn finish(mut self) -> Result<(W, Vec<u32>)> {
        if !self.page.is_empty() {
            self.end_page()?;
        }
        self.file.flush()?;
        Ok((self.file, self.checksums))
    }

    fn end_page(&mut self) -> Result<()> {
        self.checksums.push((self.crc32c)(0, &self.page));
        self.file.write_all(&self.page)?;
        self.page.clear();
        Ok(())
    }
}

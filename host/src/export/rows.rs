//! The rows of a package's tensors, one after another.

use crate::import::Encoding;
use crate::package::{CONVERT_AGAIN, Package, TensorEntry};
use crate::quantize::Precision;
use crate::{Error, Result, dispatch};
use omex_core::quant::{Format, GROUP, PANEL};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// About how many bytes are read at once.
const BATCH: usize = 4 << 20;

/// How other programs name what a row of this format is once it has left its panel: the blocks are those
/// of ggml.
pub(super) fn encoding(format: Precision) -> Encoding {
    match format {
        Precision::Vector | Precision::F32 | Precision::Channels => Encoding::F32,
        Precision::F16 => Encoding::F16,
        Precision::Int8 => Encoding::Q8_0,
        Precision::Int4 => Encoding::Q4_0,
    }
}

/// The rows of a tensor, read once from front to back and checked at the end.
pub(super) struct Rows<'p> {
    entry: &'p TensorEntry,
    file: &'p File,
    path: PathBuf,
    /// Bytes of a panel.
    panel: usize,
    /// Some panels, and the number of the first of them.
    batch: Vec<u8>,
    first: usize,
    /// Bytes that were read.
    read: u64,
    crc: u32,
    row: Vec<u8>,
}

impl<'p> Rows<'p> {
    pub(super) fn new(package: &'p Package, entry: &'p TensorEntry) -> Result<Self> {
        let path = package.path.join("weights").join(&entry.file);
        let blocks = (entry.shape[1] as usize).div_ceil(GROUP);
        let panel = match entry.format {
            Precision::Vector => entry.length as usize,
            format => blocks * Format::from(format).unit_bytes(),
        };
        let (batch, row) = (vec![], vec![]);
        let file = package.file(&entry.file)?;
        Ok(Self { entry, file, path, panel, batch, first: 0, read: 0, crc: 0, row })
    }

    /// A row as blocks of ggml's, whose last may be filled up; of a vector, all of it. Rows are asked for
    /// in their order.
    pub(super) fn row(&mut self, row: u32) -> Result<&[u8]> {
        let (panel, lane) = (row as usize / PANEL, row as usize % PANEL);
        while panel >= self.first + self.batch.len() / self.panel.max(1) {
            self.read_batch()?;
        }
        let start = (panel - self.first) * self.panel;
        let bytes = &self.batch[start..start + self.panel];
        if self.entry.format == Precision::Vector {
            return Ok(bytes);
        }
        self.row.clear();
        append_row(self.entry.format.into(), bytes, lane, &mut self.row);
        Ok(&self.row)
    }

    /// A row as floats, to be added to what is there.
    pub(super) fn add(&mut self, row: u32, sums: &mut [f32]) -> Result<()> {
        let encoding = encoding(self.entry.format);
        let bytes = self.row(row)?;
        let values =
            bytes.len() / encoding.block_bytes() as usize * encoding.block_values() as usize;
        let mut decoded = vec![0.0; values];
        encoding.decode(bytes, &mut decoded);
        sums.iter_mut().zip(decoded).for_each(|(sum, value)| *sum += value);
        Ok(())
    }

    fn read_batch(&mut self) -> Result<()> {
        self.first += self.batch.len() / self.panel.max(1);
        let left = (self.entry.length - self.read) as usize;
        let wanted = (BATCH / self.panel.max(1)).max(1) * self.panel;
        self.batch.resize(wanted.min(left), 0);
        if self.batch.is_empty() {
            return Err(self.damaged("its end".to_owned(), "more rows"));
        }
        let read = self.file.read_exact_at(&mut self.batch, self.entry.offset + self.read);
        read.map_err(|e| Error::io(&self.path, "read", e))?;
        self.read += self.batch.len() as u64;
        self.crc = (dispatch::kernels()?.crc32c)(self.crc, &self.batch);
        Ok(())
    }

    /// Compares all that was read with its checksum.
    pub(super) fn finish(mut self) -> Result<()> {
        while self.read < self.entry.length {
            self.read_batch()?;
        }
        match format!("{:08x}", self.crc) {
            found if found == self.entry.crc32c => Ok(()),
            found => Err(self.damaged(found, &self.entry.crc32c)),
        }
    }

    fn damaged(&self, found: String, expected: &str) -> Error {
        let field = format!("checksum of {}", self.entry.name);
        Error::malformed(&self.path, field, found, expected, CONVERT_AGAIN)
    }
}

/// Appends a row of a panel. A block is the rows' scales, if it has any, and then vectors with
/// some bytes of each row in turn.
fn append_row(format: Format, panel: &[u8], lane: usize, out: &mut Vec<u8>) {
    let (scale, bytes) = match format {
        Format::Int4 | Format::Int8 => (2, 4),
        Format::F16 => (0, 2),
        Format::F32 | Format::Vector | Format::Channels => (0, 4),
    };
    for block in panel.chunks_exact(format.unit_bytes()) {
        let (scales, vectors) = block.split_at(PANEL * scale);
        out.extend_from_slice(&scales[scale * lane..scale * (lane + 1)]);
        for vector in vectors.chunks_exact(PANEL * bytes) {
            out.extend_from_slice(&vector[bytes * lane..bytes * (lane + 1)]);
        }
    }
}

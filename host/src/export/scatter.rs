//! Writing stored tensors: a package is read once from front to back, and each row goes where it belongs.

use super::inverse::{Inverse, Part};
use super::rows::{Rows, encoding};
use crate::arch::Order;
use crate::cancel::Cancel;
use crate::import::Encoding;
use crate::package::Package;
use crate::quantize::Precision;
use crate::{Error, Result};
use half::{bf16, f16};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where a stored tensor begins in the file, and how its numbers are written there: as floats, or in the
/// blocks that all of its rows have in the package.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) encoding: Encoding,
}

/// About how many bytes are written at once.
const BATCH: usize = 1 << 20;

/// What is written to.
pub(super) struct Output<'o> {
    pub(super) file: &'o File,
    pub(super) path: &'o Path,
    /// A place for each stored tensor.
    pub(super) places: &'o [Place],
    pub(super) cancel: &'o Cancel,
    /// Is called with the bytes that were written, and those in all.
    pub(super) progress: &'o mut dyn FnMut(u64, u64),
}

/// The bytes that are written in all.
fn bytes(inverse: &Inverse, places: &[Place]) -> u64 {
    let of_part = |part: &Part| {
        let [rows, columns] = part.source.read_shape();
        u64::from(rows) * places[part.tensor].encoding.row_bytes(columns).unwrap_or(0)
    };
    inverse.parts.iter().map(of_part).sum()
}

/// Writes all stored tensors.
pub(super) fn write(package: &Package, inverse: &Inverse, output: &mut Output<'_>) -> Result<()> {
    let index = &package.index.tensors;
    let (mut written, all) = (0, bytes(inverse, output.places));
    for parts in inverse.parts.chunk_by(|a, b| a.entry == b.entry) {
        let Some(base) = parts.first().and_then(|part| index.get(part.entry)) else { continue };
        let planes = index.iter().filter(|entry| entry.name == base.name);
        let mut planes =
            planes.map(|plane| Rows::new(package, plane)).collect::<Result<Vec<_>>>()?;
        for part in parts {
            let stored = &inverse.tensors[part.tensor];
            let mut writer = Writer {
                planes: &mut planes,
                output,
                part,
                name: &stored.name,
                format: base.format,
                written: &mut written,
                all,
            };
            writer.write()?;
        }
        planes.into_iter().try_for_each(Rows::finish)?;
    }
    Ok(())
}

/// A part on its way.
struct Writer<'w, 'p, 'o> {
    planes: &'w mut [Rows<'p>],
    output: &'w mut Output<'o>,
    part: &'w Part,
    name: &'w str,
    format: Precision,
    /// Bytes of all parts so far, and of all that there are.
    written: &'w mut u64,
    all: u64,
}

impl Writer<'_, '_, '_> {
    fn write(&mut self) -> Result<()> {
        let rows = self.part.source.shape[0];
        if self.format == Precision::Vector {
            self.write_vector()
        } else if self.part.source.transposed {
            self.write_transposed(rows)
        } else {
            self.write_rows(rows)
        }
    }

    fn place(&self) -> Place {
        self.output.places[self.part.tensor]
    }

    /// The row as floats, or numbers of a vector; what is added to them in the package is taken away.
    fn floats(&mut self, row: u32, numbers: &mut [f32]) -> Result<()> {
        numbers.fill(0.0);
        self.planes.iter_mut().try_for_each(|plane| plane.add(row, numbers))
    }

    fn write_vector(&mut self) -> Result<()> {
        let part = self.part;
        let (source, first) = (&part.source, part.first as usize);
        let [rows, columns] = source.read_shape().map(|side| side as usize);
        let mut all = vec![0.0; first + rows * columns];
        self.floats(0, &mut all)?;
        let mut stored = vec![0.0; rows * columns];
        for (number, value) in all[first..].iter().enumerate() {
            let at = match source.transposed {
                true => {
                    source.stored_column((number % rows) as u32) as usize * columns + number / rows
                }
                false => source.stored_row(number as u32) as usize,
            };
            stored[at] = match source.negated_exponential {
                true => -(libm::exp(f64::from(*value)) as f32),
                false => value - source.plus,
            };
        }
        let bytes = self.encoded(&stored)?;
        self.put(0, &bytes)
    }

    fn write_transposed(&mut self, rows: u32) -> Result<()> {
        let [stored_rows, stored_columns] = self.part.source.read_shape().map(|side| side as usize);
        let mut stored = vec![0.0; stored_rows * stored_columns];
        let mut numbers = vec![0.0; stored_rows];
        for row in 0..rows {
            self.floats(self.part.first + row, &mut numbers)?;
            let source = &self.part.source;
            let column = source.stored_row(row) as usize;
            for (number, of) in numbers.iter().zip(0..) {
                stored[source.stored_column(of) as usize * stored_columns + column] = *number;
            }
        }
        let bytes = self.encoded(&stored)?;
        self.put(0, &bytes)
    }

    /// Rows whose places follow one another are written together.
    fn write_rows(&mut self, rows: u32) -> Result<()> {
        let (mut first, mut together) = (0, vec![]);
        let mut next = 0;
        for row in 0..rows {
            let stored = self.part.source.stored_row(row);
            if stored != next || together.len() >= BATCH {
                self.put(first, &together)?;
                together.clear();
                first = stored;
            }
            self.append(self.part.first + row, &mut together)?;
            next = stored + 1;
        }
        self.put(first, &together)
    }

    /// Appends a row as it is written.
    fn append(&mut self, row: u32, out: &mut Vec<u8>) -> Result<()> {
        let (columns, wanted) = (self.part.source.shape[1], self.place().encoding);
        match self.planes {
            [only] if wanted == encoding(self.format) => {
                let bytes = only.row(row)?;
                // Columns that only fill up the last block are left out.
                let length = wanted.row_bytes(columns).unwrap_or(0) as usize;
                let blocks = [wanted.block_values(), wanted.block_bytes()];
                put_blocks(
                    &bytes[..length.min(bytes.len())],
                    blocks,
                    self.part.source.columns,
                    out,
                );
            }
            _ => {
                let mut numbers = vec![0.0; columns as usize];
                self.floats(row, &mut numbers)?;
                let mut stored = vec![0.0; numbers.len()];
                for (number, of) in numbers.iter().zip(0..) {
                    stored[self.part.source.stored_column(of) as usize] = *number;
                }
                out.extend(self.encoded(&stored)?);
            }
        }
        Ok(())
    }

    /// Numbers as the tensor's floats.
    fn encoded(&self, numbers: &[f32]) -> Result<Vec<u8>> {
        match self.place().encoding {
            Encoding::F16 => self.halves(numbers, |number| {
                let half = f16::from_f32(number);
                half.is_finite().then_some(half.to_le_bytes())
            }),
            Encoding::Bf16 => self.halves(numbers, |number| {
                let half = bf16::from_f32(number);
                half.is_finite().then_some(half.to_le_bytes())
            }),
            _ => Ok(numbers.iter().flat_map(|x| x.to_le_bytes()).collect()),
        }
    }

    /// Numbers as floats of 16 bits, which must hold them.
    fn halves(&self, numbers: &[f32], half: impl Fn(f32) -> Option<[u8; 2]>) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(2 * numbers.len());
        for number in numbers {
            let (expected, remedy) = ("a number that the type holds", "use --dtype f32");
            bytes.extend(half(*number).ok_or_else(|| {
                let found = number.to_string();
                Error::malformed(self.output.path, self.name, found, expected, remedy)
            })?);
        }
        Ok(bytes)
    }

    /// Writes rows, or parts of a tensor, from this row of the part on.
    fn put(&mut self, row: u32, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let Place { offset, encoding } = self.place();
        let columns = self.part.source.read_shape()[1];
        let before = u64::from(self.part.source.first_row() + row);
        let offset = offset + before * encoding.row_bytes(columns).unwrap_or(0);
        let written = self.output.file.write_all_at(bytes, offset);
        written.map_err(|e| Error::io(self.output.path, "write", e))?;
        *self.written += bytes.len() as u64;
        (self.output.progress)(*self.written, self.all);
        self.output.cancel.check()
    }
}

/// Appends a row's blocks, of so many numbers and bytes each, in the order in which they are stored.
fn put_blocks(row: &[u8], [values, bytes]: [u32; 2], columns: Order, out: &mut Vec<u8>) {
    let first = out.len();
    out.extend_from_slice(row);
    if columns == Order::Plain {
        return;
    }
    let bytes = bytes as usize;
    for (block, number) in row.chunks_exact(bytes).zip(0u32..) {
        let at = first + (columns.place(number * values) / values) as usize * bytes;
        out[at..at + bytes].copy_from_slice(block);
    }
}

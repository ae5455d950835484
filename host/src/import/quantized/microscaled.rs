//! MXFP4: floats of four bits in blocks of 32 with one exponent (OCP Microscaling Formats 1.0), as
//! gpt-oss has its experts.

use super::parts::{malformed, part, shape};
use crate::Result;
use crate::import::encoding::Encoding;
use crate::import::stored::{StoredModel, StoredTensor};
use crate::import::{Container, TensorInfo};

const BYTES: Encoding = Encoding::Other("U8", 1);
/// Bytes of a block's numbers, and how many these are.
const BLOCK: [u32; 2] = [16, 32];

/// Matrices, one below the other.
#[derive(Debug)]
pub(super) struct Microscaled {
    rows: u32,
    /// Blocks of a row.
    blocks: u32,
    /// The name of the exponents.
    scales: String,
}

/// The tensors of numbers.
pub(super) fn names(model: &StoredModel) -> Vec<String> {
    let names = model.names().into_iter();
    names.filter(|name| name.ends_with(BLOCKS)).collect()
}

const BLOCKS: &str = "_blocks";

impl Microscaled {
    /// The matrices whose numbers have this name, of which each row is made one of the model's; and the
    /// names of their parts.
    pub(super) fn new(model: &mut StoredModel, name: &str) -> Result<(Self, Vec<String>)> {
        let bytes = |info: TensorInfo| info.encoding == BYTES;
        let stored = part(model, name, "bytes (U8)", bytes)?;
        let stem = name.strip_suffix(BLOCKS).unwrap_or(name);
        let scales = format!("{stem}_scales");
        let exponents = part(model, &scales, "exponents (U8), one for each block", bytes)?;
        let (rows, blocks) = (exponents.rows, exponents.columns);
        let fits = rows.checked_mul(blocks) == Some(stored.rows) && stored.columns == BLOCK[0];
        let columns = blocks.checked_mul(BLOCK[1]).filter(|_| fits);
        let in_rows = model.tensors.get(name).and_then(|tensor| {
            let of_row = u64::from(blocks) * u64::from(BLOCK[0]);
            let sides = [u64::from(rows), of_row];
            let place = tensor.packed_at()?;
            StoredTensor::new(&model.files, tensor.file, name, &sides, BYTES, place).ok()
        });
        let Some(in_rows) = in_rows.filter(|_| columns.is_some()) else {
            let expected = format!("16 bytes for each of the {rows} x {blocks} exponents");
            return Err(malformed(model, name, shape(stored), expected));
        };
        model.tensors.insert(name.to_owned(), in_rows);
        let parts = vec![name.to_owned(), scales.clone()];
        Ok((Self { rows, blocks, scales }, parts))
    }

    pub(super) fn shape(&self) -> [u32; 2] {
        [self.rows, self.blocks * BLOCK[1]]
    }

    /// A row as GGUF stores it: of each block the exponent, then the numbers, those of its first half in
    /// the low halves of bytes.
    pub(super) fn read_row_bytes(
        &self,
        model: &StoredModel,
        name: &str,
        row: u32,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let (mut exponents, mut numbers) = (vec![], vec![]);
        model.read_row_bytes(&self.scales, row, &mut exponents)?;
        model.read_row_bytes(name, row, &mut numbers)?;
        out.clear();
        for (exponent, numbers) in exponents.iter().zip(numbers.as_chunks::<16>().0) {
            // Here neighbours share a byte.
            let number = |at: usize| numbers[at / 2] >> (4 * (at % 2)) & 15;
            out.push(*exponent);
            out.extend((0..16).map(|at| number(at) | number(at + 16) << 4));
        }
        Ok(())
    }

    pub(super) fn read_row(
        &self,
        model: &StoredModel,
        name: &str,
        row: u32,
        out: &mut [f32],
    ) -> Result<()> {
        let mut bytes = vec![];
        self.read_row_bytes(model, name, row, &mut bytes)?;
        Encoding::Mxfp4.decode(&bytes, out);
        Ok(())
    }
}

//! The tensor table: what a program reads of the paged space.

use crate::quant::{Format, channel_bytes};

/// A row of the tensor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// How the numbers are stored.
    pub format: Format,
    /// Outputs of a matrix, 1 for a vector.
    pub rows: u32,
    /// Inputs of a matrix, length of a vector.
    pub columns: u32,
    /// Byte address in the paged space.
    pub address: u64,
}

impl Tensor {
    /// Bytes of a table row: format, rows, columns, reserved (u32 each), address (u64).
    pub const RECORD_BYTES: usize = 24;

    /// Length of the tensor in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.format.tensor_bytes(self.rows, self.columns)
    }

    /// Bytes that a page's edge may cut, but no reader.
    #[must_use]
    pub fn unit_bytes(&self) -> usize {
        match self.format {
            Format::Channels => channel_bytes(self.columns) as usize,
            format => format.unit_bytes(),
        }
    }

    /// True if it is multiplied with quantized or float activations, panel by panel.
    #[must_use]
    pub fn is_matrix(&self) -> bool {
        !matches!(self.format, Format::Vector | Format::Channels)
    }

    /// The table row.
    #[must_use]
    pub fn to_record(&self) -> [u8; Self::RECORD_BYTES] {
        let mut record = [0; Self::RECORD_BYTES];
        let words = [self.format as u32, self.rows, self.columns, 0];
        let (head, address) = record.split_at_mut(16);
        for (bytes, word) in head.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        address.copy_from_slice(&self.address.to_le_bytes());
        record
    }

    pub(super) fn from_record(record: &[u8; Self::RECORD_BYTES]) -> Option<Self> {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(record.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let [format, rows, columns, _] = words;
        Some(Self {
            format: Format::from_number(format)?,
            rows,
            columns,
            address: u64::from_le_bytes(*record.last_chunk::<8>()?),
        })
    }
}

//! A program's records.

use super::Program;
use super::encoding::{get, put};
use crate::error::Fault;
use crate::ops::{Mask, Op};

/// The code of a repetition.
pub const REPEAT: u8 = 0;

/// A record of a program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Record {
    /// Plays the next `records` records for layers 0 to `layers`.
    Repeat {
        /// Number of records.
        records: u16,
        /// Number of layers.
        layers: u32,
    },
    /// An operation.
    Op(Op),
}

impl Record {
    /// Writes the record to the front of `out` and returns its length in bytes, at most 2 +
    /// [`MAX_FIELD_BYTES`](super::MAX_FIELD_BYTES); `None` if `out` is shorter.
    #[must_use]
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        match self {
            Self::Repeat { records, layers } => put(REPEAT, &(records, layers), out),
            Self::Op(op) => op.write(out),
        }
    }

    /// Takes a record from the front of `bytes`, which are left as those behind it.
    ///
    /// # Errors
    /// [`Fault::Encoding`], or the code of an operation that this build does not have.
    pub fn take(bytes: &mut &[u8]) -> Result<Self, Fault> {
        let ([code, length], rest) = bytes.split_first_chunk().ok_or(Fault::Encoding)?;
        let (fields, rest) = rest.split_at_checked(usize::from(*length)).ok_or(Fault::Encoding)?;
        *bytes = rest;
        if *code == REPEAT {
            let (records, layers) = get(fields).ok_or(Fault::Encoding)?;
            return Ok(Self::Repeat { records, layers });
        }
        Op::read(*code, fields).map(Self::Op)
    }
}

/// Iterates over a program's records.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a>(pub(super) &'a [u8]);

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        Record::take(&mut self.0).ok()
    }
}

impl<'a> Program<'a> {
    /// All records.
    #[must_use]
    pub fn records(&self) -> Records<'a> {
        Records(self.records)
    }

    /// True if some attention sees all of a text, which one pass then has to run whole.
    #[must_use]
    pub fn runs_texts_whole(&self) -> bool {
        let full = |record| matches!(record, Record::Op(Op::Attend(op)) if op.mask == Mask::Full);
        self.records().any(full)
    }
}

//! Operations as bytes: a code, a length, and the fields in postcard's encoding.
//!
//! A field that is 0, false or absent takes no bytes at a record's end. So fields can be appended
//! to an operation: an older record has their defaults, and an older reader refuses the new ones
//! only where they are used.

use crate::error::Fault;
use crate::ops::Op;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most bytes that the fields of an operation take.
pub const MAX_FIELD_BYTES: usize = 96;
/// Bytes of a record before its fields.
const HEAD: usize = 2;
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
    /// [`MAX_FIELD_BYTES`]; `None` if `out` is shorter.
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

/// Writes a record to the front of `out` and returns its length.
pub(crate) fn put(code: u8, fields: &impl Serialize, out: &mut [u8]) -> Option<usize> {
    let (head, body) = out.split_first_chunk_mut::<HEAD>()?;
    let written = postcard::to_slice(fields, body).ok()?;
    let length = written.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    *head = [code, u8::try_from(length).ok().filter(|n| usize::from(*n) <= MAX_FIELD_BYTES)?];
    Some(HEAD + length)
}

/// Reads fields that take all of `bytes`; those behind its end have their defaults.
pub(crate) fn get<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    // Room behind the fields for the zeros of those that are left out.
    let mut padded = [0; 2 * MAX_FIELD_BYTES];
    padded
        .get_mut(..bytes.len())
        .filter(|_| bytes.len() <= MAX_FIELD_BYTES)?
        .copy_from_slice(bytes);
    let (fields, rest) = postcard::take_from_bytes(&padded).ok()?;
    (rest.len() <= padded.len() - bytes.len()).then_some(fields)
}

//! Operations as bytes: a code, a length, and the fields in postcard's encoding.
//!
//! A field that is 0, false or absent takes no bytes at a record's end. So fields can be appended
//! to an operation: an older record has their defaults, and an older reader refuses the new ones
//! only where they are used.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most bytes that the fields of an operation take.
pub const MAX_FIELD_BYTES: usize = 96;
/// Bytes of a record before its fields.
const HEAD: usize = 2;

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

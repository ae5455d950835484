//! Memory as the engine wants it, on 32-bit machines too, where no number is aligned that far.

use omex_core::arena::ALIGNMENT;
use zerocopy::{FromBytes, FromZeros, IntoBytes, KnownLayout};

/// Bytes that begin where the engine's memory may.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C, align(16))]
pub(crate) struct Unit([u8; ALIGNMENT]);

const _: () = assert!(align_of::<Unit>() == ALIGNMENT);

/// Zeros, at least so many bytes of them, which take memory where they are written to; `None` where there is not
/// enough address space or memory.
pub(crate) fn zeros(bytes: u64) -> Option<Vec<Unit>> {
    let units = usize::try_from(bytes.div_ceil(ALIGNMENT as u64)).ok()?;
    Unit::new_vec_zeroed(units).ok()
}

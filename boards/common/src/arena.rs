//! Memory for the engine and for pages.

/// Bytes of the arena, aligned as the engine wants them.
#[repr(align(16))]
pub struct Arena<const N: usize>(pub [u8; N]);

//! A test, which `cargo xtask test --only kernels` runs in QEMU: the kernels of a board's core have the bits of the
//! portable ones, and its software floats, where it has no others, those of the compiler.
#![no_std]
#![no_main]

#[cfg(target_abi = "eabihf")]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
#[path = "../../../core/tests/comparison/mod.rs"]
mod comparison;
#[cfg(not(target_abi = "eabihf"))]
mod floats;

use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    #[cfg(target_abi = "eabihf")]
    omex_board::end(comparison::compare(&omex_core::simd::NATIVE));
    #[cfg(not(target_abi = "eabihf"))]
    omex_board::end(floats::compare())
}

//! Which kernels this CPU can run.

use crate::{Error, Result};
use omex_core::simd::{Kernels, PORTABLE};
use std::sync::LazyLock;

static SCALAR: Kernels = Kernels { crc32c, ..PORTABLE };

fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// The tables of this CPU's instruction sets, the fastest last.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the kernels need instructions that were just detected")]
fn detect() -> Vec<Kernels> {
    use omex_core::simd::{avx2, avx512};
    let mut tables = vec![];
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
        // SAFETY: AVX2 and F16C are there.
        tables.push(unsafe { avx2::kernels(crc32c) });
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
        {
            // SAFETY: and so are these.
            tables.push(unsafe { avx512::kernels(crc32c) });
        }
    }
    tables
}

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
#[expect(unsafe_code, reason = "the kernels need instructions that were just detected")]
fn detect() -> Vec<Kernels> {
    use omex_core::simd::neon;
    use std::arch::is_aarch64_feature_detected as has;
    let mut tables = vec![];
    if has!("neon") {
        // SAFETY: NEON is there.
        tables.push(unsafe { neon::kernels(crc32c) });
        if has!("dotprod") {
            // SAFETY: NEON and SDOT are there.
            tables.push(unsafe { neon::dotprod_kernels(crc32c) });
        }
    }
    tables
}

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))))]
fn detect() -> Vec<Kernels> {
    vec![]
}

/// Every table that this CPU can run, the fastest last.
#[must_use]
pub fn available() -> Vec<&'static Kernels> {
    static DETECTED: LazyLock<Vec<Kernels>> = LazyLock::new(detect);
    std::iter::once(&SCALAR).chain(DETECTED.iter()).collect()
}

/// The fastest table.
#[must_use]
pub fn fastest() -> &'static Kernels {
    available().last().copied().unwrap_or(&SCALAR)
}

/// The table to use: the fastest, or the one named by the environment variable `OMEX_KERNELS`.
///
/// # Errors
/// A name that this CPU has no table for.
pub fn kernels() -> Result<&'static Kernels> {
    let tables = available();
    let names = || tables.iter().map(|t| t.name).collect::<Vec<_>>().join(", ");
    match std::env::var("OMEX_KERNELS") {
        Ok(name) => tables.iter().find(|t| t.name == name).copied().ok_or_else(|| {
            Error::Usage(format!("OMEX_KERNELS: found \"{name}\", expected one of: {}", names()))
        }),
        Err(_) => Ok(fastest()),
    }
}

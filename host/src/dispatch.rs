//! Which kernels this CPU can run.

use crate::{Error, Result};
use omex_core::simd::{Kernels, PORTABLE};

static SCALAR: Kernels = Kernels { crc32c, ..PORTABLE };

fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> Option<&'static Kernels> {
    use std::sync::LazyLock;
    static AVX2: LazyLock<Option<Kernels>> = LazyLock::new(|| {
        let available = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
        #[expect(unsafe_code, reason = "the kernels need instructions that were just detected")]
        // SAFETY: AVX2 and F16C are there.
        available.then(|| unsafe { omex_core::simd::avx2::kernels(crc32c) })
    });
    AVX2.as_ref()
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2() -> Option<&'static Kernels> {
    None
}

/// Every table that this CPU can run, the fastest last.
#[must_use]
pub fn available() -> Vec<&'static Kernels> {
    std::iter::once(&SCALAR).chain(avx2()).collect()
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
        Err(_) => Ok(tables.last().copied().unwrap_or(&SCALAR)),
    }
}

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
    use omex_core::simd::{amx, avx2, avx512};
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
            if has_tiles() && permits_tiles() {
                // SAFETY: and so are these, and this process may use them.
                tables.push(unsafe { amx::kernels(crc32c) });
            }
        }
    }
    tables
}

/// True if the CPU has AMX-TILE and AMX-INT8.
#[cfg(target_arch = "x86_64")]
fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & (TILE | INT8) == TILE | INT8
}

/// Asks the operating system for tiles, which this process' threads then may use; false if it has none
/// or refuses. A signal's stack may become too small for them, but none of ours is another than a
/// thread's.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[expect(unsafe_code, reason = "a system call that libc has no function for")]
fn permits_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: it takes two numbers.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

/// Elsewhere nobody was seen to allow them.
#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn permits_tiles() -> bool {
    false
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

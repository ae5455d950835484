//! Every table of kernels that this machine can run gives the portable one's bits.
#![expect(clippy::indexing_slicing, clippy::panic, reason = "a test may panic")]
#![allow(unsafe_code, reason = "tables are made after their instructions were detected")]

mod comparison;

use omex_core::simd::{Kernels, PORTABLE};

/// The tables besides the portable one.
#[cfg(target_arch = "x86_64")]
fn tables() -> Vec<Kernels> {
    use omex_core::simd::{avx2, avx512};
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    // SAFETY: AVX2 and F16C are there.
    let avx2 = avx2.then(|| unsafe { avx2::kernels(PORTABLE.crc32c) });
    // SAFETY: and these parts of AVX-512.
    let avx512 = avx512.then(|| unsafe { avx512::kernels(PORTABLE.crc32c) });
    avx2.into_iter().chain(avx512).collect()
}

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
fn tables() -> Vec<Kernels> {
    use omex_core::simd::neon;
    use std::arch::is_aarch64_feature_detected as detected;
    let neon = detected!("neon");
    let dotprod = neon && detected!("dotprod");
    // SAFETY: NEON is there.
    let neon = neon.then(|| unsafe { neon::kernels(PORTABLE.crc32c) });
    // SAFETY: NEON and SDOT are there.
    let dotprod = dotprod.then(|| unsafe { neon::dotprod_kernels(PORTABLE.crc32c) });
    neon.into_iter().chain(dotprod).collect()
}

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))))]
fn tables() -> Vec<Kernels> {
    vec![]
}

#[test]
fn every_table_equals_the_portable_one() {
    for table in tables() {
        println!("{}", table.name);
        if let Err(difference) = comparison::compare(&table) {
            panic!("{}: {difference:?}", table.name);
        }
    }
}

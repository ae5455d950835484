//! Every table of kernels that this machine can run gives the portable one's bits.
#![expect(clippy::indexing_slicing, clippy::panic, reason = "a test may panic")]
#![allow(unsafe_code, reason = "tables are made after their instructions were detected")]

mod comparison;

use omex_core::math::{erf, tanh};
use omex_core::quant::{Format, GROUP, PANEL, dequantize_row, int4, int8, quantize_group};
use omex_core::simd::{Kernels, PORTABLE, PanelDot};

/// The tables besides the portable one.
#[cfg(target_arch = "x86_64")]
fn tables() -> Vec<Kernels> {
    use omex_core::simd::{amx, avx2, avx512};
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    let amx = avx512 && may_use_tiles();
    // SAFETY: AVX2 and F16C are there.
    let avx2 = avx2.then(|| unsafe { avx2::kernels(PORTABLE.crc32c) });
    // SAFETY: and these parts of AVX-512.
    let avx512 = avx512.then(|| unsafe { avx512::kernels(PORTABLE.crc32c) });
    // SAFETY: and tiles, which this process may use.
    let amx = amx.then(|| unsafe { amx::kernels(PORTABLE.crc32c) });
    avx2.into_iter().chain(avx512).chain(amx).collect()
}

/// True if the CPU has AMX for bytes, and Linux lets this process use it.
#[cfg(target_arch = "x86_64")]
fn may_use_tiles() -> bool {
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    const TILES_OF_BYTES: u32 = 1 << 24 | 1 << 25;
    let has = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILES_OF_BYTES == TILES_OF_BYTES;
    if !has || !cfg!(target_os = "linux") {
        return false;
    }
    let result: i64;
    // SAFETY: arch_prctl(ARCH_REQ_XCOMP_PERM, 18) takes two numbers.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") 158_i64 => result, in("rdi") 0x1023, in("rsi") 18,
            out("rcx") _, out("r11") _,
        );
    }
    result == 0
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

/// Pseudo-random numbers from -127 to 127.
fn numbers(seed: u32) -> impl Iterator<Item = i8> {
    (seed..).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8 as i8).map(|x| x.max(-127))
}

/// Compares a portable kernel with plain sums over the weights that its blocks hold; with scales of
/// 1 they are exact.
fn check_integers<const BYTES: usize>(
    format: Format,
    dot: PanelDot<omex_core::quant::QuantizedGroup>,
    block: impl Fn(u32) -> [u8; BYTES],
) {
    let (panels, groups, columns) = (2, 3, 2);
    let blocks: Vec<_> = (0..panels * groups).map(|i| block(i as u32)).collect();
    let activations: Vec<Vec<f32>> = (0..groups * columns)
        .map(|i| numbers(77 * i as u32).map(f32::from).take(GROUP - 1).chain([127.0]).collect())
        .collect();
    let x: Vec<_> = activations.iter().map(|x| quantize_group(x)).collect();
    let mut sums = vec![[1.0; PANEL]; panels * columns];
    dot(blocks.as_flattened(), &x, columns, &mut sums);
    for (panel, column, row) in (0..panels * columns * PANEL)
        .map(|i| (i / (columns * PANEL), i / PANEL % columns, i % PANEL))
    {
        let mut expected = 1.0;
        for group in 0..groups {
            let mut weights = [0.0; GROUP];
            dequantize_row(format, &blocks[panel * groups + group], row, &mut weights);
            let x = &activations[group * columns + column];
            expected += weights.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
        }
        assert_eq!(sums[panel * columns + column][row], expected, "{format:?}, row {row}");
    }
}

#[test]
fn the_portable_integer_kernels_are_plain_sums() {
    let one = half::f16::ONE;
    check_integers(Format::Int8, int8::dot, |i| {
        let mut block = int8::EMPTY;
        for lane in 0..PANEL {
            let mut row = [0; GROUP];
            row.iter_mut().zip(numbers(1000 * i + lane as u32)).for_each(|(w, x)| *w = x);
            int8::write_row(&mut block, lane, one, &row);
        }
        block
    });
    check_integers(Format::Int4, int4::dot, |i| {
        let mut block = int4::EMPTY;
        for lane in 0..PANEL {
            let mut row = [0; GROUP];
            row.iter_mut().zip(numbers(1000 * i + lane as u32)).for_each(|(w, x)| *w = x >> 4);
            int4::write_row(&mut block, lane, one, &row);
        }
        block
    });
}

#[test]
fn the_error_function_is_within_4e_7_and_odd() {
    let mut worst = 0.0f64;
    for i in 0..400_000 {
        let x = i as f32 * 1e-5;
        let (found, expected) = (erf(x), libm::erf(f64::from(x)));
        worst = worst.max((f64::from(found) - expected).abs());
        assert_eq!(erf(-x).to_bits(), (-found).to_bits(), "{x}");
        assert!(found <= 1.0, "{x}");
    }
    assert!(worst <= 4e-7, "{worst:e}");
    for x in [4.5, f32::MAX, f32::INFINITY] {
        assert_eq!(erf(x), 1.0, "{x}");
    }
    assert!(erf(f32::NAN).is_nan());
}

/// Of each thousandth float; all of them take minutes.
#[test]
fn the_hyperbolic_tangent_has_the_bits_of_tanhf() {
    for bits in (0..u32::MAX).step_by(1021) {
        let x = f32::from_bits(bits);
        let (found, expected) = (tanh(x), libm::tanhf(x));
        assert!(
            found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
            "{x}"
        );
    }
}

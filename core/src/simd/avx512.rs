//! AVX-512 with VNNI: sixteen lanes are the rows of two panels, eight those of one.

use super::lanes::KvNumber;
use super::{Kernels, KvHead, Query, Scaling, attend, avx2, channels};
use crate::quant::{PANEL, QuantizedGroup, int4, int8};
use core::arch::x86_64::*;
use core::ops::Range;

/// The kernels of this instruction set; floats and small work are AVX2's.
///
/// # Safety
/// The CPU must have AVX2, F16C, and of AVX-512 F, BW, VL and VNNI.
#[must_use]
pub const unsafe fn kernels(crc32c: fn(u32, &[u8]) -> u32) -> Kernels {
    Kernels {
        name: "avx512",
        // SAFETY: the caller vouches for the instruction sets; so it is for all of these.
        int4: |blocks, x, columns, sums| unsafe { int4_dot(blocks, x, columns, sums) },
        // SAFETY: as above.
        int8: |blocks, x, columns, sums| unsafe { int8_dot(blocks, x, columns, sums) },
        // SAFETY: as above.
        attend_half: |head, places, scale, queries| unsafe { attend(head, places, scale, queries) },
        // SAFETY: as above.
        attend_int8: |head, places, scale, queries| unsafe { attend(head, places, scale, queries) },
        // SAFETY: as above.
        convolve: Some(unsafe { channels::convolve() }),
        #[cfg(feature = "float")]
        // SAFETY: as above.
        gelu: |x| unsafe { gelu(x) },
        #[cfg(feature = "float")]
        // SAFETY: as above.
        gelu_tanh: |x| unsafe { gelu_tanh(x) },
        // SAFETY: as above.
        ..unsafe { avx2::kernels(crc32c) }
    }
}

/// Calls `$pair` for two panels at once and `$single` for a last one, with the number of columns
/// as a constant.
macro_rules! for_panels {
    ($pair:ident, $single:ident, $block:expr, $blocks:expr, $x:expr, $columns:expr, $sums:expr) => {
        for_panels!(@columns $pair, $single, $block, $blocks, $x, $columns, $sums, 1 2 3 4 5 6 7 8)
    };
    (@columns $pair:ident, $single:ident, $block:expr, $blocks:expr, $x:expr, $columns:expr,
     $sums:expr, $($c:literal)+) => {
        match $columns {
            $($c => {
                let panel_bytes = ($x.len() / $c * $block).max(1);
                let (groups, _) = $x.as_chunks::<$c>();
                // One column is as fast as memory: it reads front to back.
                let at_once = if $c <= 4 { 1 } else { 2 };
                let panels = $blocks.chunks(at_once * panel_bytes);
                for (blocks, sums) in panels.zip($sums.chunks_mut(at_once * $c)) {
                    match blocks.split_at_checked(panel_bytes) {
                        Some((first, second)) if !second.is_empty() => {
                            $pair::<$c>(first, second, groups, sums);
                        }
                        _ => $single::<$c>(blocks, groups, sums),
                    }
                }
            })+
            _ => {}
        }
    };
}

#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn int4_dot(
    blocks: &[u8],
    x: &[QuantizedGroup],
    columns: usize,
    sums: &mut [[f32; PANEL]],
) {
    for_panels!(int4_pair, int4_single, int4::BLOCK_BYTES, blocks, x, columns, sums);
}

#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn int8_dot(
    blocks: &[u8],
    x: &[QuantizedGroup],
    columns: usize,
    sums: &mut [[f32; PANEL]],
) {
    for_panels!(int8_pair, int8_single, int8::BLOCK_BYTES, blocks, x, columns, sums);
}

/// The running sums of `C` columns: those of the second panel in the upper lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn load_pair<const C: usize>(sums: &[[f32; PANEL]]) -> [__m512; C] {
    let mut totals = [_mm512_setzero_ps(); C];
    let (first, second) = sums.split_at_checked(C).unwrap_or_default();
    for ((total, first), second) in totals.iter_mut().zip(first).zip(second) {
        *total = join_sums(first, second);
    }
    totals
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn store_pair<const C: usize>(totals: [__m512; C], sums: &mut [[f32; PANEL]]) {
    let Some((first, second)) = sums.split_at_mut_checked(C) else { return };
    for ((total, first), second) in totals.into_iter().zip(first).zip(second) {
        split_sums(total, first, second);
    }
}

/// One column's sums of two panels.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
pub(super) fn join_sums(first: &[f32; PANEL], second: &[f32; PANEL]) -> __m512 {
    // SAFETY: each is eight floats.
    let (lower, upper) =
        unsafe { (_mm256_loadu_ps(first.as_ptr()), _mm256_loadu_ps(second.as_ptr())) };
    let lower = _mm512_castps_pd(_mm512_castps256_ps512(lower));
    _mm512_castpd_ps(_mm512_insertf64x4::<1>(lower, _mm256_castps_pd(upper)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
pub(super) fn split_sums(total: __m512, first: &mut [f32; PANEL], second: &mut [f32; PANEL]) {
    let upper = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(total));
    // SAFETY: each is eight floats.
    unsafe {
        _mm256_storeu_ps(first.as_mut_ptr(), _mm512_castps512_ps256(total));
        _mm256_storeu_ps(second.as_mut_ptr(), _mm256_castpd_ps(upper));
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn join(lower: &[u8; 32], upper: &[u8; 32]) -> __m512i {
    // SAFETY: each is 32 bytes.
    let (lower, upper) = unsafe {
        (_mm256_loadu_si256(lower.as_ptr().cast()), _mm256_loadu_si256(upper.as_ptr().cast()))
    };
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(lower), upper)
}

/// The scales of two integer blocks.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn scales(lower: &[u8; 2 * PANEL], upper: &[u8; 2 * PANEL]) -> __m512 {
    // SAFETY: each is 16 bytes.
    let (lower, upper) =
        unsafe { (_mm_loadu_si128(lower.as_ptr().cast()), _mm_loadu_si128(upper.as_ptr().cast())) };
    _mm512_cvtph_ps(_mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lower), upper))
}

/// Fetches what the two panels need later; behind the first comes the second, which is being read
/// already, so at its end the next pair is fetched.
#[inline(always)]
pub(super) fn prefetch_pair<const BYTES: usize>(
    a: &[u8; BYTES],
    b: &[u8; BYTES],
    i: usize,
    panel: usize,
) {
    let wraps = i * BYTES + avx2::PREFETCH_BYTES >= panel;
    let distance = avx2::PREFETCH_BYTES + if wraps { panel } else { 0 };
    avx2::prefetch_ahead(a, distance);
    avx2::prefetch_ahead(b, distance);
}

/// The scales of an integer block, and its `N` vectors of 32 bytes.
#[inline(always)]
pub(super) fn split<const BYTES: usize, const N: usize>(
    block: &[u8; BYTES],
) -> Option<(&[u8; 2 * PANEL], &[[u8; 32]; N])> {
    let (scales, vectors) = block.split_first_chunk()?;
    Some((scales, vectors.as_chunks::<32>().0.first_chunk()?))
}

#[inline]
fn quad(x: [i8; 4]) -> i32 {
    i32::from_le_bytes(x.map(i8::cast_unsigned))
}

/// Two panels of 4-bit weights and `C` columns; unsigned nibbles meet signed activations exactly.
#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn int4_pair<const C: usize>(
    first: &[u8],
    second: &[u8],
    x: &[[QuantizedGroup; C]],
    sums: &mut [[f32; PANEL]],
) {
    const BYTES: usize = int4::BLOCK_BYTES;
    let nibble = _mm512_set1_epi8(15);
    let mut totals = load_pair::<C>(sums);
    let blocks = first.as_chunks::<BYTES>().0.iter().zip(second.as_chunks::<BYTES>().0);
    for (i, ((a, b), groups)) in blocks.zip(x).enumerate() {
        prefetch_pair(a, b, i, first.len());
        let (Some((a_scales, a)), Some((b_scales, b))) =
            (split::<BYTES, 4>(a), split::<BYTES, 4>(b))
        else {
            continue;
        };
        let scales = scales(a_scales, b_scales);
        let mut low = [_mm512_setzero_si512(); 4];
        let mut high = low;
        for (((low, high), a), b) in low.iter_mut().zip(&mut high).zip(a).zip(b) {
            let weights = join(a, b);
            *low = _mm512_and_si512(weights, nibble);
            *high = _mm512_and_si512(_mm512_srli_epi16::<4>(weights), nibble);
        }
        for (total, x) in totals.iter_mut().zip(groups) {
            let mut dot = _mm512_set1_epi32(x.int4_offset);
            for (weights, x) in low.iter().chain(&high).zip(&x.quads) {
                dot = _mm512_dpbusd_epi32(dot, *weights, _mm512_set1_epi32(quad(*x)));
            }
            let step = _mm512_mul_ps(scales, _mm512_set1_ps(x.scale));
            *total = _mm512_add_ps(*total, _mm512_mul_ps(_mm512_cvtepi32_ps(dot), step));
        }
    }
    store_pair(totals, sums);
}

/// As [`int4_pair`], one panel.
#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn int4_single<const C: usize>(
    blocks: &[u8],
    x: &[[QuantizedGroup; C]],
    sums: &mut [[f32; PANEL]],
) {
    let nibble = _mm256_set1_epi8(15);
    let mut totals = avx2::load_sums::<C>(sums);
    for (block, groups) in blocks.as_chunks::<{ int4::BLOCK_BYTES }>().0.iter().zip(x) {
        avx2::prefetch(block);
        let (scales, vectors) = avx2::split_block::<_, 4>(block);
        let low = vectors.map(|w| _mm256_and_si256(w, nibble));
        let high = vectors.map(|w| _mm256_and_si256(_mm256_srli_epi16::<4>(w), nibble));
        for (total, x) in totals.iter_mut().zip(groups) {
            // Two sums: one alone would wait for itself.
            let mut dots = [_mm256_set1_epi32(x.int4_offset), _mm256_setzero_si256()];
            for ((dot, weights), x) in
                dots.iter_mut().zip([low, high]).zip(x.quads.as_chunks::<4>().0)
            {
                for (weights, x) in weights.iter().zip(x) {
                    *dot = _mm256_dpbusd_epi32(*dot, *weights, _mm256_set1_epi32(quad(*x)));
                }
            }
            avx2::add_scaled(total, _mm256_add_epi32(dots[0], dots[1]), scales, x);
        }
    }
    avx2::store_sums(totals, sums);
}

/// Two panels of 8-bit weights and `C` columns; weights are offset by 128 to be unsigned.
#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn int8_pair<const C: usize>(
    first: &[u8],
    second: &[u8],
    x: &[[QuantizedGroup; C]],
    sums: &mut [[f32; PANEL]],
) {
    const BYTES: usize = int8::BLOCK_BYTES;
    let sign = _mm512_set1_epi8(-128);
    let mut totals = load_pair::<C>(sums);
    let blocks = first.as_chunks::<BYTES>().0.iter().zip(second.as_chunks::<BYTES>().0);
    for (i, ((a, b), groups)) in blocks.zip(x).enumerate() {
        prefetch_pair(a, b, i, first.len());
        let (Some((a_scales, a)), Some((b_scales, b))) =
            (split::<BYTES, 8>(a), split::<BYTES, 8>(b))
        else {
            continue;
        };
        let scales = scales(a_scales, b_scales);
        let mut weights = [_mm512_setzero_si512(); 8];
        for ((weights, a), b) in weights.iter_mut().zip(a).zip(b) {
            *weights = _mm512_xor_si512(join(a, b), sign);
        }
        for (total, x) in totals.iter_mut().zip(groups) {
            let mut dot = _mm512_slli_epi32::<4>(_mm512_set1_epi32(x.int4_offset));
            for (weights, x) in weights.iter().zip(&x.quads) {
                dot = _mm512_dpbusd_epi32(dot, *weights, _mm512_set1_epi32(quad(*x)));
            }
            let step = _mm512_mul_ps(scales, _mm512_set1_ps(x.scale));
            *total = _mm512_add_ps(*total, _mm512_mul_ps(_mm512_cvtepi32_ps(dot), step));
        }
    }
    store_pair(totals, sums);
}

/// As [`int8_pair`], one panel.
#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn int8_single<const C: usize>(
    blocks: &[u8],
    x: &[[QuantizedGroup; C]],
    sums: &mut [[f32; PANEL]],
) {
    let sign = _mm256_set1_epi8(-128);
    let mut totals = avx2::load_sums::<C>(sums);
    for (block, groups) in blocks.as_chunks::<{ int8::BLOCK_BYTES }>().0.iter().zip(x) {
        avx2::prefetch(block);
        let (scales, vectors) = avx2::split_block::<_, 8>(block);
        let weights = vectors.map(|w| _mm256_xor_si256(w, sign));
        for (total, x) in totals.iter_mut().zip(groups) {
            let offset = _mm256_slli_epi32::<4>(_mm256_set1_epi32(x.int4_offset));
            let mut dots = [offset, _mm256_setzero_si256()];
            let halves = weights.as_chunks::<4>().0.iter().zip(x.quads.as_chunks::<4>().0);
            for (dot, (weights, x)) in dots.iter_mut().zip(halves) {
                for (weights, x) in weights.iter().zip(x) {
                    *dot = _mm256_dpbusd_epi32(*dot, *weights, _mm256_set1_epi32(quad(*x)));
                }
            }
            avx2::add_scaled(total, _mm256_add_epi32(dots[0], dots[1]), scales, x);
        }
    }
    avx2::store_sums(totals, sums);
}

/// Plain code, for wider vectors.
#[cfg(feature = "float")]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn gelu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = crate::math::gelu(*x));
}

/// As [`gelu`].
#[cfg(feature = "float")]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn gelu_tanh(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = crate::math::gelu_tanh(*x));
}

/// AVX2's, with twice the registers.
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn attend<T: KvNumber>(
    head: &KvHead<'_, T>,
    places: Range<usize>,
    scale: Scaling,
    queries: &mut [Query<'_>],
) {
    // SAFETY: the instruction sets are there.
    unsafe { attend::attend::<avx2::Ymm, T>(head, places, scale, queries) };
}

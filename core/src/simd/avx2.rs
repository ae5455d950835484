//! AVX2 with F16C: one vector of eight lanes is one row each.

use super::lanes::{KvNumber, Lanes};
use super::tiles::{for_tiles, groups_of};
use super::{FEW_COLUMNS, Kernels, KvHead, LANES, Query, Scaling, Step, attend, recur};
use crate::quant::{
    FloatGroup, PANEL, QuantizedGroup, activation_step, float16, float32, int4, int8,
};
use core::arch::x86_64::*;
use core::ops::Range;

/// How far ahead of the block in hand weights are fetched; measured, see `benches`.
pub(super) const PREFETCH_BYTES: usize = 4096;

/// The kernels of this instruction set.
///
/// # Safety
/// The CPU must have AVX2 and F16C.
#[must_use]
pub const unsafe fn kernels(crc32c: fn(u32, &[u8]) -> u32) -> Kernels {
    Kernels {
        name: "avx2",
        columns: FEW_COLUMNS,
        // SAFETY: the caller vouches for AVX2 and F16C; so it is for all of these.
        int4: |blocks, x, columns, sums| unsafe { int4_dot(blocks, x, columns, sums) },
        // SAFETY: as above.
        int8: |blocks, x, columns, sums| unsafe { int8_dot(blocks, x, columns, sums) },
        // SAFETY: as above.
        float16: |blocks, x, columns, sums| unsafe { float16_dot(blocks, x, columns, sums) },
        // SAFETY: as above.
        float32: |blocks, x, columns, sums| unsafe { float32_dot(blocks, x, columns, sums) },
        // SAFETY: as above.
        quantize: |x| unsafe { quantize(x) },
        // SAFETY: as above.
        attend_half: |head, places, scale, queries| unsafe { attend(head, places, scale, queries) },
        // SAFETY: as above.
        attend_single: |head, places, scale, queries| unsafe {
            attend(head, places, scale, queries)
        },
        // SAFETY: as above.
        attend_int8: |head, places, scale, queries| unsafe { attend(head, places, scale, queries) },
        // SAFETY: as above.
        recur: |state, step, out| unsafe { recur(state, step, out) },
        #[cfg(feature = "float")]
        // SAFETY: as above.
        gelu: |x| unsafe { gelu(x) },
        #[cfg(feature = "float")]
        // SAFETY: as above.
        gelu_tanh: |x| unsafe { gelu_tanh(x) },
        convolve: None,
        crc32c,
    }
}

/// Plain code, for wider vectors.
#[cfg(feature = "float")]
#[target_feature(enable = "avx2,f16c")]
fn gelu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = crate::math::gelu(*x));
}

/// As [`gelu`].
#[cfg(feature = "float")]
#[target_feature(enable = "avx2,f16c")]
fn gelu_tanh(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = crate::math::gelu_tanh(*x));
}

#[target_feature(enable = "avx2,f16c")]
fn int4_dot(blocks: &[u8], x: &[QuantizedGroup], columns: usize, sums: &mut [[f32; PANEL]]) {
    for_tiles!(int4_columns, int4::BLOCK_BYTES, blocks, x, columns, sums);
}

#[target_feature(enable = "avx2,f16c")]
fn int8_dot(blocks: &[u8], x: &[QuantizedGroup], columns: usize, sums: &mut [[f32; PANEL]]) {
    for_tiles!(int8_columns, int8::BLOCK_BYTES, blocks, x, columns, sums);
}

#[target_feature(enable = "avx2,f16c")]
fn float16_dot(blocks: &[u8], x: &[FloatGroup], columns: usize, sums: &mut [[f32; PANEL]]) {
    for_tiles!(float16_columns, float16::BLOCK_BYTES, blocks, x, columns, sums);
}

#[target_feature(enable = "avx2,f16c")]
fn float32_dot(blocks: &[u8], x: &[FloatGroup], columns: usize, sums: &mut [[f32; PANEL]]) {
    for_tiles!(float32_columns, float32::BLOCK_BYTES, blocks, x, columns, sums);
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_sums<const C: usize>(sums: &[[f32; PANEL]]) -> [__m256; C] {
    let mut loaded = [_mm256_setzero_ps(); C];
    for (register, sum) in loaded.iter_mut().zip(sums) {
        // SAFETY: `sum` is eight floats.
        *register = unsafe { _mm256_loadu_ps(sum.as_ptr()) };
    }
    loaded
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_sums<const C: usize>(registers: [__m256; C], sums: &mut [[f32; PANEL]]) {
    for (register, sum) in registers.iter().zip(sums) {
        // SAFETY: `sum` is eight floats.
        unsafe { _mm256_storeu_ps(sum.as_mut_ptr(), *register) };
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_bytes(vector: &[u8; 32]) -> __m256i {
    // SAFETY: `vector` is 32 bytes.
    unsafe { _mm256_loadu_si256(vector.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(quad: [i8; 4]) -> __m256i {
    _mm256_set1_epi32(i32::from_le_bytes(quad.map(i8::cast_unsigned)))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn load_halves(bytes: &[u8; 16]) -> __m256 {
    // SAFETY: `bytes` is 16 bytes.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

#[inline]
pub(super) fn prefetch(block: &[u8]) {
    prefetch_ahead(block, PREFETCH_BYTES);
}

/// Fetches what lies `distance` behind a block. T0: on Zen 4, hints for the second-level cache
/// alone halve the bandwidth.
#[inline]
pub(super) fn prefetch_ahead(block: &[u8], distance: usize) {
    for line in 0..block.len().div_ceil(64) {
        // A hint may name any address: it never faults.
        let address = block.as_ptr().wrapping_add(distance + 64 * line);
        // SAFETY: SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
}

/// The scales of an integer block, and its `N` vectors.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn split_block<const BYTES: usize, const N: usize>(
    block: &[u8; BYTES],
) -> (__m256, [__m256i; N]) {
    let mut vectors = [_mm256_setzero_si256(); N];
    let Some((scales, rest)) = block.split_first_chunk::<{ 2 * PANEL }>() else {
        return (_mm256_setzero_ps(), vectors);
    };
    for (vector, bytes) in vectors.iter_mut().zip(rest.as_chunks().0) {
        *vector = load_bytes(bytes);
    }
    (load_halves(scales), vectors)
}

/// Adds `integers * (scales * x.scale)` to a running sum: multiply, multiply, add.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_scaled(sum: &mut __m256, integers: __m256i, scales: __m256, x: &QuantizedGroup) {
    let step = _mm256_mul_ps(scales, _mm256_set1_ps(x.scale));
    *sum = _mm256_add_ps(*sum, _mm256_mul_ps(_mm256_cvtepi32_ps(integers), step));
}

/// 16-bit lanes hold a whole group: 16 products of at most 15 * 127 are below 2^15.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn int4_columns<const C: usize>(
    blocks: &[u8],
    x: &[QuantizedGroup],
    columns: usize,
    sums: &mut [[f32; PANEL]],
) {
    let nibble = _mm256_set1_epi8(15);
    let ones = _mm256_set1_epi16(1);
    let mut totals = load_sums::<C>(sums);
    let blocks = blocks.as_chunks::<{ int4::BLOCK_BYTES }>().0.iter();
    for (block, groups) in blocks.zip(groups_of::<C, _>(x, columns)) {
        prefetch(block);
        let (scales, vectors) = split_block::<_, 4>(block);
        let mut products = [_mm256_setzero_si256(); C];
        for (i, weights) in vectors.into_iter().enumerate() {
            let low = _mm256_and_si256(weights, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(weights), nibble);
            for (sum, x) in products.iter_mut().zip(groups) {
                let (Some(l), Some(h)) = (x.quads.get(i), x.quads.get(i + 4)) else { continue };
                let l = _mm256_maddubs_epi16(low, broadcast(*l));
                let h = _mm256_maddubs_epi16(high, broadcast(*h));
                *sum = _mm256_add_epi16(*sum, _mm256_add_epi16(l, h));
            }
        }
        for ((total, products), x) in totals.iter_mut().zip(products).zip(groups) {
            let dot = _mm256_madd_epi16(products, ones);
            let dot = _mm256_add_epi32(dot, _mm256_set1_epi32(x.int4_offset));
            add_scaled(total, dot, scales, x);
        }
    }
    store_sums(totals, sums);
}

/// |w| times x with w's sign: two products of at most 128 * 127 are below 2^15.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn int8_columns<const C: usize>(
    blocks: &[u8],
    x: &[QuantizedGroup],
    columns: usize,
    sums: &mut [[f32; PANEL]],
) {
    let ones = _mm256_set1_epi16(1);
    let mut totals = load_sums::<C>(sums);
    let blocks = blocks.as_chunks::<{ int8::BLOCK_BYTES }>().0.iter();
    for (block, groups) in blocks.zip(groups_of::<C, _>(x, columns)) {
        prefetch(block);
        let (scales, vectors) = split_block::<_, 8>(block);
        let mut dots = [_mm256_setzero_si256(); C];
        for (i, weights) in vectors.into_iter().enumerate() {
            let magnitudes = _mm256_abs_epi8(weights);
            for (dot, x) in dots.iter_mut().zip(groups) {
                let Some(quad) = x.quads.get(i) else { continue };
                let signed = _mm256_sign_epi8(broadcast(*quad), weights);
                let pairs = _mm256_maddubs_epi16(magnitudes, signed);
                *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(pairs, ones));
            }
        }
        for ((total, dot), x) in totals.iter_mut().zip(dots).zip(groups) {
            add_scaled(total, dot, scales, x);
        }
    }
    store_sums(totals, sums);
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn float16_columns<const C: usize>(
    blocks: &[u8],
    x: &[FloatGroup],
    columns: usize,
    sums: &mut [[f32; PANEL]],
) {
    let mut totals = load_sums::<C>(sums);
    let blocks = blocks.as_chunks::<{ float16::BLOCK_BYTES }>().0.iter();
    for (block, groups) in blocks.zip(groups_of::<C, _>(x, columns)) {
        prefetch(block);
        let mut dots = [_mm256_setzero_ps(); C];
        for (i, column) in block.as_chunks::<{ 2 * PANEL }>().0.iter().enumerate() {
            add_products(&mut dots, load_halves(column), groups, i);
        }
        for (total, dot) in totals.iter_mut().zip(dots) {
            *total = _mm256_add_ps(*total, dot);
        }
    }
    store_sums(totals, sums);
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn float32_columns<const C: usize>(
    blocks: &[u8],
    x: &[FloatGroup],
    columns: usize,
    sums: &mut [[f32; PANEL]],
) {
    let mut totals = load_sums::<C>(sums);
    let blocks = blocks.as_chunks::<{ float32::BLOCK_BYTES }>().0.iter();
    for (block, groups) in blocks.zip(groups_of::<C, _>(x, columns)) {
        prefetch(block);
        let mut dots = [_mm256_setzero_ps(); C];
        for (i, column) in block.as_chunks::<{ 4 * PANEL }>().0.iter().enumerate() {
            let weights = _mm256_castsi256_ps(load_bytes(column));
            add_products(&mut dots, weights, groups, i);
        }
        for (total, dot) in totals.iter_mut().zip(dots) {
            *total = _mm256_add_ps(*total, dot);
        }
    }
    store_sums(totals, sums);
}

/// Adds one column of weights times activation `i` of each group.
#[inline]
#[target_feature(enable = "avx2")]
fn add_products(dots: &mut [__m256], weights: __m256, groups: &[FloatGroup], i: usize) {
    for (dot, x) in dots.iter_mut().zip(groups) {
        let x = _mm256_set1_ps(x.get(i).copied().unwrap_or_default());
        *dot = _mm256_add_ps(*dot, _mm256_mul_ps(weights, x));
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn quantize(x: &FloatGroup) -> QuantizedGroup {
    let magnitude = _mm256_set1_epi32(0x7fff_ffff);
    let mut values = [_mm256_setzero_ps(); 4];
    let mut largest = _mm256_setzero_si256();
    for (value, eight) in values.iter_mut().zip(x.as_chunks::<8>().0) {
        // SAFETY: `eight` is eight floats.
        *value = unsafe { _mm256_loadu_ps(eight.as_ptr()) };
        let bits = _mm256_and_si256(_mm256_castps_si256(*value), magnitude);
        largest = _mm256_max_epu32(largest, bits);
    }
    let four =
        _mm_max_epu32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256::<1>(largest));
    let two = _mm_max_epu32(four, _mm_shuffle_epi32::<0b00_00_11_10>(four));
    let one = _mm_max_epu32(two, _mm_shuffle_epi32::<0b00_00_00_01>(two));
    let (scale, inverse) = activation_step(_mm_cvtsi128_si32(one).cast_unsigned());
    let mut group = QuantizedGroup { scale, ..QuantizedGroup::ZERO };
    if inverse == 0.0 {
        return group;
    }
    let inverse = _mm256_set1_ps(inverse);
    let [a, b, c, d] = values.map(|v| _mm256_cvtps_epi32(_mm256_mul_ps(v, inverse)));
    let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    // SAFETY: `quads` is 32 bytes.
    unsafe { _mm256_storeu_si256(group.quads.as_mut_ptr().cast(), bytes) };
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    let quads = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    let four = _mm_add_epi32(_mm256_castsi256_si128(quads), _mm256_extracti128_si256::<1>(quads));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b00_00_11_10>(four));
    let one = _mm_add_epi32(two, _mm_shuffle_epi32::<0b00_00_00_01>(two));
    group.int4_offset = -8 * _mm_cvtsi128_si32(one);
    group
}

/// Eight rows, positions or numbers of a head.
#[derive(Clone, Copy)]
pub(super) struct Ymm(__m256);

impl Lanes for Ymm {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for AVX2 and F16C, here and below.
        Self(unsafe { _mm256_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(x: &[f32; LANES]) -> Self {
        // SAFETY: `x` is eight floats.
        Self(unsafe { _mm256_loadu_ps(x.as_ptr()) })
    }

    #[inline(always)]
    unsafe fn store(self, x: &mut [f32; LANES]) {
        // SAFETY: `x` is eight floats.
        unsafe { _mm256_storeu_ps(x.as_mut_ptr(), self.0) };
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: as in `splat`.
        Self(unsafe { _mm256_add_ps(self.0, _mm256_mul_ps(a.0, b.0)) })
    }

    #[inline(always)]
    unsafe fn product(self, by: Self) -> Self {
        // SAFETY: as in `splat`.
        Self(unsafe { _mm256_mul_ps(self.0, by.0) })
    }

    #[inline(always)]
    unsafe fn halves(x: &[u16; LANES]) -> Self {
        // SAFETY: `x` is 16 bytes.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())) })
    }

    #[inline(always)]
    unsafe fn bytes(x: &[i8; LANES]) -> Self {
        // SAFETY: `x` is 8 bytes.
        Self(unsafe {
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast())))
        })
    }
}

#[target_feature(enable = "avx2,f16c")]
fn attend<T: KvNumber>(
    head: &KvHead<'_, T>,
    places: Range<usize>,
    scale: Scaling,
    queries: &mut [Query<'_>],
) {
    // SAFETY: AVX2 and F16C are there.
    unsafe { attend::attend::<Ymm, T>(head, places, scale, queries) };
}

#[target_feature(enable = "avx2,f16c")]
fn recur(state: &mut [[f32; LANES]], step: &Step<'_>, out: &mut [f32]) {
    // SAFETY: AVX2 and F16C are there.
    unsafe { recur::recur::<Ymm>(state, step, out) };
}

//! 64-bit Arm: two vectors of four lanes are eight rows, and SDOT multiplies where a CPU has it.
//!
//! Instructions whose intrinsics are not stable in every Rust that builds this are one line of
//! assembly each.

use super::lanes::{KvNumber, Lanes};
use super::tiles::{for_tiles, groups_of};
use super::{Kernels, KvHead, LANES, Query, Scaling, Step, attend, recur};
use crate::quant::{
    FloatGroup, GROUP, PANEL, QuantizedGroup, activation_step, float16, float32, int4, int8,
};
use core::arch::aarch64::*;
use core::arch::asm;
use core::ops::Range;

/// How far ahead of the block in hand weights are fetched.
const PREFETCH_BYTES: usize = 2048;

/// Plain NEON, which every 64-bit Arm CPU has that runs an operating system.
///
/// # Safety
/// The CPU must have NEON.
#[must_use]
pub const unsafe fn kernels(crc32c: fn(u32, &[u8]) -> u32) -> Kernels {
    Kernels {
        name: "neon",
        // SAFETY: the caller vouches for NEON; so it is for all of these.
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
        gelu: super::portable::gelu,
        #[cfg(feature = "float")]
        gelu_tanh: super::portable::gelu_tanh,
        crc32c,
    }
}

/// NEON with the dot product instructions of Armv8.2.
///
/// # Safety
/// The CPU must have NEON and SDOT.
#[must_use]
pub const unsafe fn dotprod_kernels(crc32c: fn(u32, &[u8]) -> u32) -> Kernels {
    Kernels {
        name: "neon+dotprod",
        // SAFETY: the caller vouches for NEON and SDOT; so it is for all of these.
        int4: |blocks, x, columns, sums| unsafe { int4_sdot(blocks, x, columns, sums) },
        // SAFETY: as above.
        int8: |blocks, x, columns, sums| unsafe { int8_sdot(blocks, x, columns, sums) },
        // SAFETY: as above.
        ..unsafe { kernels(crc32c) }
    }
}

/// Eight rows.
type Rows = [float32x4_t; 2];

/// The integers of a block, widened to bytes: two vectors of four rows for each quad of columns.
type Weights = [int8x16_t; GROUP / 2];

/// A kernel for integers: `$weights` opens a block, `$dot` multiplies it with one column.
///
/// A block's integers fill half of the registers and meet one column after the other. So the sums
/// of several columns pass through memory, and any number of columns goes over a block once.
macro_rules! integer_kernel {
    ($name:ident, $features:literal, $bytes:expr, $weights:ident, $dot:ident) => {
        #[target_feature(enable = $features)]
        fn $name(blocks: &[u8], x: &[QuantizedGroup], columns: usize, sums: &mut [[f32; PANEL]]) {
            let columns = columns.max(1);
            let panel_bytes = (x.len() / columns * $bytes).max(1);
            let panels = blocks.chunks_exact(panel_bytes);
            for (panel, sums) in panels.zip(sums.chunks_exact_mut(columns)) {
                let blocks = panel.as_chunks::<{ $bytes }>().0.iter();
                if let [sum] = sums {
                    let mut total = load_rows(sum);
                    for (block, x) in blocks.zip(x) {
                        prefetch(block);
                        let (scales, weights) = $weights(block);
                        total = add_scaled(total, $dot(&weights, x), scales, x);
                    }
                    store_rows(total, sum);
                    continue;
                }
                for (block, groups) in blocks.zip(x.chunks_exact(columns)) {
                    prefetch(block);
                    let (scales, weights) = $weights(block);
                    for (sum, x) in sums.iter_mut().zip(groups) {
                        let total = load_rows(sum);
                        store_rows(add_scaled(total, $dot(&weights, x), scales, x), sum);
                    }
                }
            }
        }
    };
}

integer_kernel!(int4_dot, "neon", int4::BLOCK_BYTES, open_int4, int4_column);
integer_kernel!(int8_dot, "neon", int8::BLOCK_BYTES, open_int8, int8_column);
integer_kernel!(int4_sdot, "neon,dotprod", int4::BLOCK_BYTES, open_int4, int4_sdot_column);
integer_kernel!(int8_sdot, "neon,dotprod", int8::BLOCK_BYTES, open_int8, int8_sdot_column);

#[target_feature(enable = "neon")]
fn float16_dot(blocks: &[u8], x: &[FloatGroup], columns: usize, sums: &mut [[f32; PANEL]]) {
    for_tiles!(float16_columns, float16::BLOCK_BYTES, blocks, x, columns, sums);
}

#[target_feature(enable = "neon")]
fn float32_dot(blocks: &[u8], x: &[FloatGroup], columns: usize, sums: &mut [[f32; PANEL]]) {
    for_tiles!(float32_columns, float32::BLOCK_BYTES, blocks, x, columns, sums);
}

#[inline]
#[target_feature(enable = "neon")]
fn load_rows(rows: &[f32; PANEL]) -> Rows {
    // SAFETY: `rows` is eight floats.
    let float32x4x2_t(first, last) = unsafe { vld1q_f32_x2(rows.as_ptr()) };
    [first, last]
}

#[inline]
#[target_feature(enable = "neon")]
fn store_rows(registers: Rows, rows: &mut [f32; PANEL]) {
    for (register, four) in registers.into_iter().zip(rows.as_chunks_mut::<4>().0) {
        // SAFETY: `four` is four floats.
        unsafe { vst1q_f32(four.as_mut_ptr(), register) };
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_bytes(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: `bytes` is 16 bytes.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_halves(bytes: &[u8; 2 * PANEL]) -> Rows {
    widen(load_bytes(bytes))
}

/// Eight halves as floats: exact.
#[inline]
#[target_feature(enable = "neon")]
fn widen(halves: uint8x16_t) -> Rows {
    let (first, last): (float32x4_t, float32x4_t);
    // SAFETY: NEON is there; registers only.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) first, in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags));
        asm!("fcvtl2 {0:v}.4s, {1:v}.8h", out(vreg) last, in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags));
    }
    [first, last]
}

#[inline(always)]
fn prefetch(block: &[u8]) {
    for line in block.chunks(64) {
        // SAFETY: a hint may name any address: it never faults.
        unsafe {
            asm!("prfm pldl1keep, [{0}, {1}]", in(reg) line.as_ptr(), const PREFETCH_BYTES,
                options(nomem, nostack, preserves_flags));
        }
    }
}

/// The scales of an integer block, and its `N` vectors.
#[inline]
#[target_feature(enable = "neon")]
fn split_block<const BYTES: usize, const N: usize>(block: &[u8; BYTES]) -> (Rows, [uint8x16_t; N]) {
    let mut vectors = [vdupq_n_u8(0); N];
    let Some((scales, rest)) = block.split_first_chunk() else {
        return ([vdupq_n_f32(0.0); 2], vectors);
    };
    for (vector, bytes) in vectors.iter_mut().zip(rest.as_chunks().0) {
        *vector = load_bytes(bytes);
    }
    (load_halves(scales), vectors)
}

/// The low nibbles are the first quads of columns, the high ones the last.
#[inline]
#[target_feature(enable = "neon")]
fn open_int4(block: &[u8; int4::BLOCK_BYTES]) -> (Rows, Weights) {
    let (scales, vectors) = split_block::<_, { GROUP / 4 }>(block);
    let mut weights = [vdupq_n_s8(0); GROUP / 2];
    let (low, high) = weights.split_at_mut(GROUP / 4);
    for ((low, high), vector) in low.iter_mut().zip(high).zip(vectors) {
        *low = vreinterpretq_s8_u8(vandq_u8(vector, vdupq_n_u8(15)));
        *high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(vector));
    }
    (scales, weights)
}

#[inline]
#[target_feature(enable = "neon")]
fn open_int8(block: &[u8; int8::BLOCK_BYTES]) -> (Rows, Weights) {
    let (scales, vectors) = split_block::<_, { GROUP / 2 }>(block);
    (scales, vectors.map(|vector| vreinterpretq_s8_u8(vector)))
}

/// A total and `integers * (scales * x.scale)`: multiply, multiply, add.
#[inline]
#[target_feature(enable = "neon")]
fn add_scaled(
    [first, last]: Rows,
    integers: [int32x4_t; 2],
    scales: Rows,
    x: &QuantizedGroup,
) -> Rows {
    let [a, b] = scales.map(|scale| vmulq_n_f32(scale, x.scale));
    let [c, d] = integers.map(|integer| vcvtq_f32_s32(integer));
    [vaddq_f32(first, vmulq_f32(c, a)), vaddq_f32(last, vmulq_f32(d, b))]
}

/// Four consecutive activations for four rows.
#[inline]
#[target_feature(enable = "neon")]
fn broadcast(quad: [i8; 4]) -> int8x16_t {
    vreinterpretq_s8_s32(vdupq_n_s32(i32::from_ne_bytes(quad.map(i8::cast_unsigned))))
}

/// 16-bit lanes hold a whole group: 16 products of at most 15 * 127 are below 2^15.
#[inline]
#[target_feature(enable = "neon")]
fn int4_column(weights: &Weights, x: &QuantizedGroup) -> [int32x4_t; 2] {
    let [mut a, mut b, mut c, mut d] = [vdupq_n_s16(0); 4];
    for ([first, last], quad) in weights.as_chunks().0.iter().zip(x.quads) {
        let quad = broadcast(quad);
        a = smlal(a, *first, quad);
        b = smlal2(b, *first, quad);
        c = smlal(c, *last, quad);
        d = smlal2(d, *last, quad);
    }
    let offset = vdupq_n_s32(x.int4_offset);
    [vpaddq_s16(a, b), vpaddq_s16(c, d)].map(|pairs| vpadalq_s16(offset, pairs))
}

/// 16-bit lanes hold two products of at most 128 * 127.
#[inline]
#[target_feature(enable = "neon")]
fn int8_column(weights: &Weights, x: &QuantizedGroup) -> [int32x4_t; 2] {
    let [mut a, mut b, mut c, mut d] = [vdupq_n_s32(0); 4];
    let weights = weights.as_chunks::<2>().0.as_chunks::<2>().0;
    for ([[first, last], [next_first, next_last]], [quad, next]) in
        weights.iter().zip(x.quads.as_chunks().0)
    {
        let (quad, next) = (broadcast(*quad), broadcast(*next));
        a = vpadalq_s16(a, smlal(smull(*first, quad), *next_first, next));
        b = vpadalq_s16(b, smlal2(smull2(*first, quad), *next_first, next));
        c = vpadalq_s16(c, smlal(smull(*last, quad), *next_last, next));
        d = vpadalq_s16(d, smlal2(smull2(*last, quad), *next_last, next));
    }
    [vpaddq_s32(a, b), vpaddq_s32(c, d)]
}

/// Products of eight bytes, added to a sum or not; by their intrinsics, the compiler would widen a
/// block's weights before they meet the first column, and have no registers left.
macro_rules! widening_product {
    ($name:ident($($sum:ident)?), $kind:ident, $assembly:literal) => {
        #[inline]
        #[target_feature(enable = "neon")]
        fn $name($($sum: int16x8_t,)? weights: int8x16_t, x: int8x16_t) -> int16x8_t {
            let product: int16x8_t;
            // SAFETY: NEON is there; registers only.
            unsafe {
                asm!($assembly, $kind(vreg) $($sum =>)? product, in(vreg) weights, in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags));
            }
            product
        }
    };
}

widening_product!(smull(), out, "smull {0:v}.8h, {1:v}.8b, {2:v}.8b");
widening_product!(smull2(), out, "smull2 {0:v}.8h, {1:v}.16b, {2:v}.16b");
widening_product!(smlal(sum), inout, "smlal {0:v}.8h, {1:v}.8b, {2:v}.8b");
widening_product!(smlal2(sum), inout, "smlal2 {0:v}.8h, {1:v}.16b, {2:v}.16b");

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn int4_sdot_column(weights: &Weights, x: &QuantizedGroup) -> [int32x4_t; 2] {
    sdot_group(vdupq_n_s32(x.int4_offset), weights, x)
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn int8_sdot_column(weights: &Weights, x: &QuantizedGroup) -> [int32x4_t; 2] {
    sdot_group(vdupq_n_s32(0), weights, x)
}

/// `start` and the products of a whole group.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot_group(start: int32x4_t, weights: &Weights, x: &QuantizedGroup) -> [int32x4_t; 2] {
    // SAFETY: `quads` is 32 bytes.
    let int8x16x2_t(low, high) = unsafe { vld1q_s8_x2(x.quads.as_ptr().cast()) };
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *weights;
    let first = sdot_quads(start, [a, c, e, g], low);
    let last = sdot_quads(start, [b, d, f, h], low);
    [sdot_quads(first, [i, k, m, o], high), sdot_quads(last, [j, l, n, p], high)]
}

/// Four quads of four rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot_quads(sum: int32x4_t, [a, b, c, d]: [int8x16_t; 4], x: int8x16_t) -> int32x4_t {
    sdot::<3>(sdot::<2>(sdot::<1>(sdot::<0>(sum, a, x), b, x), c, x), d, x)
}

/// Adds the products of each row's quad of weights with quad `QUAD` of `x`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot<const QUAD: usize>(mut sum: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: SDOT is there; registers only.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]",
            inout(vreg) sum, in(vreg) weights, in(vreg) x, const QUAD,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

#[inline]
#[target_feature(enable = "neon")]
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
        let mut dots = [[vdupq_n_f32(0.0); 2]; C];
        let quads = block.as_chunks().0.as_chunks::<4>().0;
        for (i, [a, b, c, d]) in quads.iter().enumerate() {
            let weights = [load_halves(a), load_halves(b), load_halves(c), load_halves(d)];
            add_products(&mut dots, weights, groups, i);
        }
        add_dots(&mut totals, dots);
    }
    store_sums(totals, sums);
}

#[inline]
#[target_feature(enable = "neon")]
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
        let mut dots = [[vdupq_n_f32(0.0); 2]; C];
        let quads = block.as_chunks().0.as_chunks::<2>().0.as_chunks::<4>().0;
        for (i, quad) in quads.iter().enumerate() {
            let load = |[first, last]: &[[u8; 16]; 2]| {
                [load_bytes(first), load_bytes(last)].map(|bytes| vreinterpretq_f32_u8(bytes))
            };
            let [a, b, c, d] = quad;
            add_products(&mut dots, [load(a), load(b), load(c), load(d)], groups, i);
        }
        add_dots(&mut totals, dots);
    }
    store_sums(totals, sums);
}

#[inline]
#[target_feature(enable = "neon")]
fn load_sums<const C: usize>(sums: &[[f32; PANEL]]) -> [Rows; C] {
    let mut totals = [[vdupq_n_f32(0.0); 2]; C];
    for (total, sum) in totals.iter_mut().zip(sums) {
        *total = load_rows(sum);
    }
    totals
}

#[inline]
#[target_feature(enable = "neon")]
fn store_sums<const C: usize>(totals: [Rows; C], sums: &mut [[f32; PANEL]]) {
    for (total, sum) in totals.into_iter().zip(sums) {
        store_rows(total, sum);
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn add_dots<const C: usize>(totals: &mut [Rows; C], dots: [Rows; C]) {
    for (total, dot) in totals.as_flattened_mut().iter_mut().zip(dots.as_flattened()) {
        *total = vaddq_f32(*total, *dot);
    }
}

/// Adds four columns of weights times the activations of quad `i` of each group, in order.
#[inline]
#[target_feature(enable = "neon")]
fn add_products(dots: &mut [Rows], [a, b, c, d]: [Rows; 4], groups: &[FloatGroup], i: usize) {
    for (dot, x) in dots.iter_mut().zip(groups) {
        let Some(quad) = x.as_chunks::<4>().0.get(i) else { continue };
        // SAFETY: `quad` is four floats.
        let x = unsafe { vld1q_f32(quad.as_ptr()) };
        for ((((dot, a), b), c), d) in dot.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *dot = vaddq_f32(*dot, vmulq_laneq_f32::<0>(a, x));
            *dot = vaddq_f32(*dot, vmulq_laneq_f32::<1>(b, x));
            *dot = vaddq_f32(*dot, vmulq_laneq_f32::<2>(c, x));
            *dot = vaddq_f32(*dot, vmulq_laneq_f32::<3>(d, x));
        }
    }
}

#[target_feature(enable = "neon")]
fn quantize(x: &FloatGroup) -> QuantizedGroup {
    let mut values = [vdupq_n_f32(0.0); GROUP / 4];
    let mut largest = vdupq_n_u32(0);
    for (value, four) in values.iter_mut().zip(x.as_chunks::<4>().0) {
        // SAFETY: `four` is four floats.
        *value = unsafe { vld1q_f32(four.as_ptr()) };
        largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(*value)));
    }
    let (scale, inverse) = activation_step(vmaxvq_u32(largest));
    let mut group = QuantizedGroup { scale, ..QuantizedGroup::ZERO };
    if inverse == 0.0 {
        return group;
    }
    // To the nearest integer, ties to even.
    let [a, b, c, d, e, f, g, h] =
        values.map(|value| vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(value, inverse))));
    let first = vmovn_high_s16(vmovn_s16(vcombine_s16(a, b)), vcombine_s16(c, d));
    let last = vmovn_high_s16(vmovn_s16(vcombine_s16(e, f)), vcombine_s16(g, h));
    // SAFETY: `quads` is 32 bytes.
    unsafe { vst1q_s8_x2(group.quads.as_mut_ptr().cast(), int8x16x2_t(first, last)) };
    let sum = vaddvq_s16(vaddq_s16(vpaddlq_s8(first), vpaddlq_s8(last)));
    group.int4_offset = -8 * i32::from(sum);
    group
}

/// Eight positions, or numbers of a head.
#[derive(Clone, Copy)]
struct Eight(Rows);

impl Lanes for Eight {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for NEON, here and below.
        Self([unsafe { vdupq_n_f32(x) }; 2])
    }

    #[inline(always)]
    unsafe fn load(x: &[f32; LANES]) -> Self {
        // SAFETY: as in `splat`.
        Self(unsafe { load_rows(x) })
    }

    #[inline(always)]
    unsafe fn store(self, x: &mut [f32; LANES]) {
        // SAFETY: as in `splat`.
        unsafe { store_rows(self.0, x) };
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        let ([first, last], [a, b], [c, d]) = (self.0, a.0, b.0);
        // SAFETY: as in `splat`.
        Self(unsafe { [vaddq_f32(first, vmulq_f32(a, c)), vaddq_f32(last, vmulq_f32(b, d))] })
    }

    #[inline(always)]
    unsafe fn product(self, by: Self) -> Self {
        let ([first, last], [a, b]) = (self.0, by.0);
        // SAFETY: as in `splat`.
        Self(unsafe { [vmulq_f32(first, a), vmulq_f32(last, b)] })
    }

    #[inline(always)]
    unsafe fn halves(x: &[u16; LANES]) -> Self {
        // SAFETY: `x` is 16 bytes.
        Self(unsafe { widen(vld1q_u8(x.as_ptr().cast())) })
    }

    #[inline(always)]
    unsafe fn bytes(x: &[i8; LANES]) -> Self {
        // SAFETY: `x` is 8 bytes.
        unsafe {
            let words = vmovl_s8(vld1_s8(x.as_ptr()));
            let first = vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)));
            Self([first, vcvtq_f32_s32(vmovl_high_s16(words))])
        }
    }
}

#[target_feature(enable = "neon")]
fn attend<T: KvNumber>(
    head: &KvHead<'_, T>,
    places: Range<usize>,
    scale: Scaling,
    queries: &mut [Query<'_>],
) {
    // SAFETY: NEON is there.
    unsafe { attend::attend::<Eight, T>(head, places, scale, queries) };
}

#[target_feature(enable = "neon")]
fn recur(state: &mut [[f32; LANES]], step: &Step<'_>, out: &mut [f32]) {
    // SAFETY: NEON is there.
    unsafe { recur::recur::<Eight>(state, step, out) };
}

//! WebAssembly with SIMD128: two vectors of four lanes are eight rows.

use super::attend::attend;
use super::lanes::Lanes;
use super::recur::recur;
use super::tiles::{for_tiles, groups_of};
use super::{Kernels, LANES, PORTABLE};
use crate::quant::{FloatGroup, GROUP, PANEL, QuantizedGroup, float16, float32, int4, int8};
use core::arch::wasm32::*;

/// The kernels of these instructions; a module that has any of them runs only where they are.
///
/// What is not here, the compiler vectorises as well.
pub static KERNELS: Kernels = Kernels {
    name: "simd128",
    int4: |blocks, x, columns, sums| {
        for_tiles!(int4_columns, int4::BLOCK_BYTES, blocks, x, columns, sums);
    },
    int8: |blocks, x, columns, sums| {
        for_tiles!(int8_columns, int8::BLOCK_BYTES, blocks, x, columns, sums);
    },
    float16: |blocks, x, columns, sums| {
        for_tiles!(float16_columns, float16::BLOCK_BYTES, blocks, x, columns, sums);
    },
    float32: |blocks, x, columns, sums| {
        for_tiles!(float32_columns, float32::BLOCK_BYTES, blocks, x, columns, sums);
    },
    // SAFETY: this is compiled for SIMD128 alone; so it is for all of these.
    attend_half: |head, places, scale, queries| unsafe {
        attend::<Eight, _>(head, places, scale, queries);
    },
    // SAFETY: as above.
    attend_single: |head, places, scale, queries| unsafe {
        attend::<Eight, _>(head, places, scale, queries);
    },
    // SAFETY: as above.
    attend_int8: |head, places, scale, queries| unsafe {
        attend::<Eight, _>(head, places, scale, queries);
    },
    // SAFETY: as above.
    recur: |state, step, out| unsafe { recur::<Eight>(state, step, out) },
    ..PORTABLE
};

/// Eight rows.
type Rows = [v128; 2];

/// Four bytes of eight rows.
type Quads = [[u8; 16]; 2];

const ZERO: v128 = i32x4(0, 0, 0, 0);

#[inline(always)]
fn load_bytes(bytes: &[u8; 16]) -> v128 {
    // SAFETY: `bytes` is 16 bytes.
    unsafe { v128_load(bytes.as_ptr().cast()) }
}

#[inline(always)]
fn load_floats(floats: &[f32; 4]) -> v128 {
    // SAFETY: `floats` is 16 bytes.
    unsafe { v128_load(floats.as_ptr().cast()) }
}

/// Adds a block's dot products to the sums of its rows.
#[inline(always)]
fn add_dots<const C: usize>(sums: &mut [[f32; PANEL]], dots: [Rows; C]) {
    for (sum, dots) in sums.iter_mut().zip(dots) {
        for (four, dot) in sum.as_chunks_mut::<4>().0.iter_mut().zip(dots) {
            let total = f32x4_add(load_floats(four), dot);
            // SAFETY: `four` is 16 bytes.
            unsafe { v128_store(four.as_mut_ptr().cast(), total) };
        }
    }
}

#[inline(always)]
fn load_halves(bytes: &[u8; 2 * PANEL]) -> Rows {
    widen(load_bytes(bytes))
}

/// Eight halves as floats: exact.
#[inline(always)]
fn widen(halves: v128) -> Rows {
    // Moves an exponent from where a half has it to where a float has it; subnormals come right.
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    [i32x4_extend_low_i16x8(halves), i32x4_extend_high_i16x8(halves)].map(|half| {
        let sign = v128_and(half, i32x4_splat(i32::MIN));
        let magnitude = v128_and(i32x4_shl(half, 13), i32x4_splat(0x7fff << 13));
        let special = i32x4_ge(magnitude, i32x4_splat(0x7c00 << 13));
        let exponent = v128_and(special, i32x4_splat(0x7f80_0000));
        let number = f32x4_mul(magnitude, f32x4_splat(REBIAS));
        v128_or(v128_or(number, exponent), sign)
    })
}

/// The scales of an integer block, and its vectors.
#[inline(always)]
fn split_block<const BYTES: usize>(block: &[u8; BYTES]) -> (Rows, &[Quads]) {
    match block.split_first_chunk() {
        Some((scales, rest)) => (load_halves(scales), rest.as_chunks().0.as_chunks().0),
        None => ([ZERO; 2], &[]),
    }
}

/// Adds the products of a quad of weights, even ones and odd ones as 16-bit lanes, with quad `i` of
/// each group.
#[inline(always)]
fn add_quads<const C: usize>(
    dots: &mut [Rows; C],
    weights: [[v128; 2]; 2],
    groups: &[QuantizedGroup; C],
    i: usize,
) {
    for (dots, x) in dots.iter_mut().zip(groups) {
        let quad = x.quads.get(i).copied().unwrap_or_default();
        let quad = i32x4_splat(i32::from_ne_bytes(quad.map(i8::cast_unsigned)));
        let (x_even, x_odd) = (even(quad), odd(quad));
        for (dot, [even, odd]) in dots.iter_mut().zip(weights) {
            *dot = i32x4_add(*dot, i32x4_dot_i16x8(even, x_even));
            *dot = i32x4_add(*dot, i32x4_dot_i16x8(odd, x_odd));
        }
    }
}

/// The signed bytes with an even number, as 16-bit lanes.
#[inline(always)]
fn even(bytes: v128) -> v128 {
    i16x8_shr(i16x8_shl(bytes, 8), 8)
}

#[inline(always)]
fn odd(bytes: v128) -> v128 {
    i16x8_shr(bytes, 8)
}

/// Integers times `scales * x.scale`: multiply, multiply.
#[inline(always)]
fn scaled<const C: usize>(
    integers: [Rows; C],
    scales: Rows,
    groups: &[QuantizedGroup; C],
) -> [Rows; C] {
    let mut dots = integers;
    for (dots, x) in dots.iter_mut().zip(groups) {
        for (dot, scale) in dots.iter_mut().zip(scales) {
            let step = f32x4_mul(scale, f32x4_splat(x.scale));
            *dot = f32x4_mul(f32x4_convert_i32x4(*dot), step);
        }
    }
    dots
}

fn int4_columns<const C: usize>(
    blocks: &[u8],
    x: &[QuantizedGroup],
    columns: usize,
    sums: &mut [[f32; PANEL]],
) {
    let nibble = i16x8_splat(15);
    let blocks = blocks.as_chunks::<{ int4::BLOCK_BYTES }>().0.iter();
    for (block, groups) in blocks.zip(groups_of::<C, _>(x, columns)) {
        let (scales, vectors) = split_block(block);
        let mut dots = [[ZERO; 2]; C];
        for (dots, x) in dots.iter_mut().zip(groups) {
            *dots = [i32x4_splat(x.int4_offset); 2];
        }
        for (i, vectors) in vectors.iter().enumerate() {
            let vectors = vectors.each_ref().map(load_bytes);
            let low = vectors.map(|v| [v128_and(v, nibble), v128_and(u16x8_shr(v, 8), nibble)]);
            add_quads(&mut dots, low, groups, i);
            let high = vectors.map(|v| [v128_and(u16x8_shr(v, 4), nibble), u16x8_shr(v, 12)]);
            add_quads(&mut dots, high, groups, i + GROUP / 8);
        }
        add_dots(sums, scaled(dots, scales, groups));
    }
}

fn int8_columns<const C: usize>(
    blocks: &[u8],
    x: &[QuantizedGroup],
    columns: usize,
    sums: &mut [[f32; PANEL]],
) {
    let blocks = blocks.as_chunks::<{ int8::BLOCK_BYTES }>().0.iter();
    for (block, groups) in blocks.zip(groups_of::<C, _>(x, columns)) {
        let (scales, vectors) = split_block(block);
        let mut dots = [[ZERO; 2]; C];
        for (i, vectors) in vectors.iter().enumerate() {
            let weights = vectors.each_ref().map(load_bytes).map(|v| [even(v), odd(v)]);
            add_quads(&mut dots, weights, groups, i);
        }
        add_dots(sums, scaled(dots, scales, groups));
    }
}

fn float16_columns<const C: usize>(
    blocks: &[u8],
    x: &[FloatGroup],
    columns: usize,
    sums: &mut [[f32; PANEL]],
) {
    let blocks = blocks.as_chunks::<{ float16::BLOCK_BYTES }>().0.iter();
    for (block, groups) in blocks.zip(groups_of::<C, _>(x, columns)) {
        let mut dots = [[ZERO; 2]; C];
        for (i, column) in block.as_chunks().0.iter().enumerate() {
            add_products(&mut dots, load_halves(column), groups, i);
        }
        add_dots(sums, dots);
    }
}

fn float32_columns<const C: usize>(
    blocks: &[u8],
    x: &[FloatGroup],
    columns: usize,
    sums: &mut [[f32; PANEL]],
) {
    let blocks = blocks.as_chunks::<{ float32::BLOCK_BYTES }>().0.iter();
    for (block, groups) in blocks.zip(groups_of::<C, _>(x, columns)) {
        let mut dots = [[ZERO; 2]; C];
        for (i, column) in block.as_chunks().0.as_chunks::<2>().0.iter().enumerate() {
            add_products(&mut dots, column.each_ref().map(load_bytes), groups, i);
        }
        add_dots(sums, dots);
    }
}

/// Adds one column of weights times activation `i` of each group.
#[inline(always)]
fn add_products<const C: usize>(
    dots: &mut [Rows; C],
    weights: Rows,
    groups: &[FloatGroup; C],
    i: usize,
) {
    for (dots, x) in dots.iter_mut().zip(groups) {
        let x = f32x4_splat(x.get(i).copied().unwrap_or_default());
        for (dot, weights) in dots.iter_mut().zip(weights) {
            *dot = f32x4_add(*dot, f32x4_mul(weights, x));
        }
    }
}

/// Eight positions, or numbers of a head.
#[derive(Clone, Copy)]
struct Eight(Rows);

impl Lanes for Eight {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([f32x4_splat(x); 2])
    }

    #[inline(always)]
    unsafe fn load(x: &[f32; LANES]) -> Self {
        let four = x.as_ptr().cast::<v128>();
        // SAFETY: `x` is two vectors.
        Self(unsafe { [v128_load(four), v128_load(four.add(1))] })
    }

    #[inline(always)]
    unsafe fn store(self, x: &mut [f32; LANES]) {
        let ([first, last], four) = (self.0, x.as_mut_ptr().cast::<v128>());
        // SAFETY: `x` is two vectors.
        unsafe {
            v128_store(four, first);
            v128_store(four.add(1), last);
        }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        let ([first, last], [a, b], [c, d]) = (self.0, a.0, b.0);
        Self([f32x4_add(first, f32x4_mul(a, c)), f32x4_add(last, f32x4_mul(b, d))])
    }

    #[inline(always)]
    unsafe fn product(self, by: Self) -> Self {
        let ([first, last], [a, b]) = (self.0, by.0);
        Self([f32x4_mul(first, a), f32x4_mul(last, b)])
    }

    #[inline(always)]
    unsafe fn halves(x: &[u16; LANES]) -> Self {
        // SAFETY: `x` is 16 bytes.
        Self(widen(unsafe { v128_load(x.as_ptr().cast()) }))
    }

    #[inline(always)]
    unsafe fn bytes(x: &[i8; LANES]) -> Self {
        // SAFETY: `x` is 8 bytes.
        let words = unsafe { i16x8_load_extend_i8x8(x.as_ptr()) };
        let integers = [i32x4_extend_low_i16x8(words), i32x4_extend_high_i16x8(words)];
        Self(integers.map(|integers| f32x4_convert_i32x4(integers)))
    }
}

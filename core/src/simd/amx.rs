//! AMX: tiles of sixteen columns by the rows of two panels, for passes over many columns.
//!
//! A tile's dot products with a block are exact integers, as everywhere; they are scaled and added
//! in vectors. While tiles are at work, a core multiplies in one of its two vector units and still adds
//! in both: so dot products become floats by an addition ([`BASE`]). A tile takes long to be
//! multiplied and stored: meanwhile, what the block before last gave is added.

use super::{FEW_COLUMNS, Kernels, MAX_COLUMNS, avx512};
use crate::quant::{GROUP, PANEL, QuantizedGroup, int4, int8};
use core::arch::{asm, x86_64::*};
use core::mem::{MaybeUninit, offset_of};

/// Columns of a tile.
const TILE: usize = 16;
/// Blocks that lie in tiles while columns pass by.
const CHUNK: usize = 4;

/// The kernels of this instruction set; all but integers times many columns are AVX-512's.
///
/// # Safety
/// The CPU must have what [`avx512::kernels`] needs, AMX-TILE and AMX-INT8, and the operating
/// system must let this process use tiles.
#[must_use]
pub const unsafe fn kernels(crc32c: fn(u32, &[u8]) -> u32) -> Kernels {
    Kernels {
        name: "amx",
        columns: MAX_COLUMNS,
        // SAFETY: the caller vouches for the instruction sets; so it is for all of these.
        int4: |blocks, x, columns, sums| unsafe { int4_dot(blocks, x, columns, sums) },
        // SAFETY: as above.
        int8: |blocks, x, columns, sums| unsafe { int8_dot(blocks, x, columns, sums) },
        // SAFETY: as above.
        ..unsafe { avx512::kernels(crc32c) }
    }
}

/// What tiles begin with: the bits of a float whose last place is worth 1. With a dot product
/// added to the bits they are the float plus the dot product, for any below 2^22.
const BASE: f32 = 12_582_912.0;

/// A block of two panels.
#[repr(C)]
struct Block {
    /// `[quads of columns][rows of both][4]`, signed.
    weights: [__m512i; GROUP / 4],
    scales: __m512,
}

/// A tile's dot products with a block, each added to [`BASE`]: `[columns][rows]`.
#[repr(C)]
struct Dots([__m512; TILE]);

/// What a call works on, behind one address: a pointer that is loaded waits for tiles being stored.
#[repr(C)]
struct Work {
    chunk: [MaybeUninit<Block>; CHUNK],
    dots: [MaybeUninit<Dots>; 2],
    /// The row of a tile that nothing was added to.
    base: __m512,
}

/// Tiles' shapes, as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// While it is there, tiles 0 and 1 are sums of 16 columns, 2 is their activations, and 4 to 7 are a
/// chunk's weights.
struct Tiles;

impl Tiles {
    /// # Safety
    /// The CPU has tiles, and the operating system lets this process use them.
    #[inline]
    unsafe fn new() -> Self {
        static SHAPES: Shapes = Shapes {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [64, 64, 32, 0, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
            rows: [16, 16, 16, 0, 8, 8, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        // SAFETY: the caller vouches for the instruction; palette 1 has tiles of 16 rows of 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &SHAPES, options(nostack, preserves_flags, readonly))
        };
        Self
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: there are tiles. Were they left in use, every switch of threads would save them.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// Puts a chunk's weights into tiles.
///
/// # Safety
/// Tiles are configured. What was not written is multiplied with, and not added.
#[inline(always)]
unsafe fn load_weights(work: &Work) {
    // SAFETY: the caller vouches for it.
    unsafe {
        asm!(
            "tileloadd tmm4, [{chunk} + {row}]",
            "tileloadd tmm5, [{chunk} + {row} + {block}]",
            "tileloadd tmm6, [{chunk} + {row} + 2 * {block}]",
            "tileloadd tmm7, [{chunk} + {row} + 3 * {block}]",
            chunk = in(reg) work.chunk.as_ptr(),
            row = in(reg) 64usize,
            block = const size_of::<Block>(),
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Multiplies a tile's columns, from `$x` on, with one of weights.
macro_rules! multiply {
    ($sums:literal, $weights:literal, $x:expr, $work:expr) => {
        asm!(
            "tileloadd tmm2, [{x} + {group}]",
            concat!("tileloadd ", $sums, ", [{work} + {none} + {base}]"),
            concat!("tdpbssd ", $sums, ", tmm2, ", $weights),
            x = in(reg) $x,
            group = in(reg) size_of::<QuantizedGroup>(),
            work = in(reg) &raw const *$work,
            none = in(reg) 0usize,
            base = const offset_of!(Work, base),
            options(nostack, preserves_flags, readonly),
        )
    };
}

/// Stores a tile of sums in the dots of `$work`.
macro_rules! store {
    ($sums:literal, $work:expr, $dots:literal) => {
        asm!(
            concat!("tilestored [{work} + {row} + {dots}], ", $sums),
            work = in(reg) &raw mut *$work,
            row = in(reg) 64usize,
            dots = const offset_of!(Work, dots) + $dots * size_of::<Dots>(),
            options(nostack, preserves_flags),
        )
    };
}

#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn int4_dot(blocks: &[u8], x: &[QuantizedGroup], columns: usize, sums: &mut [[f32; PANEL]]) {
    if columns <= FEW_COLUMNS {
        return avx512::int4_dot(blocks, x, columns, sums);
    }
    let (nibble, offset) = (_mm512_set1_epi8(15), _mm512_set1_epi8(8));
    dot::<{ int4::BLOCK_BYTES }, 4>(blocks, x, columns, sums, |vectors| {
        let [a, b, c, d] = vectors;
        let low = |w| _mm512_sub_epi8(_mm512_and_si512(w, nibble), offset);
        let high = |w| low(_mm512_srli_epi16::<4>(w));
        [low(a), low(b), low(c), low(d), high(a), high(b), high(c), high(d)]
    });
}

#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn int8_dot(blocks: &[u8], x: &[QuantizedGroup], columns: usize, sums: &mut [[f32; PANEL]]) {
    if columns <= FEW_COLUMNS {
        return avx512::int8_dot(blocks, x, columns, sums);
    }
    dot::<{ int8::BLOCK_BYTES }, 8>(blocks, x, columns, sums, |vectors| vectors);
}

/// A [`PanelDot`](super::PanelDot) of blocks of `N` vectors; `unpack` makes signed bytes of those of
/// two panels.
#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn dot<const BYTES: usize, const N: usize>(
    blocks: &[u8],
    x: &[QuantizedGroup],
    columns: usize,
    sums: &mut [[f32; PANEL]],
    unpack: impl Fn([__m512i; N]) -> [__m512i; GROUP / 4],
) {
    let panel_bytes = (x.len() / columns * BYTES).max(1);
    // SAFETY: whoever has this table vouches for tiles.
    let _tiles = unsafe { Tiles::new() };
    for (blocks, sums) in blocks.chunks(2 * panel_bytes).zip(sums.chunks_mut(2 * columns)) {
        let (first, second) = sums.split_at_mut(columns.min(sums.len()));
        match blocks.split_at_checked(panel_bytes) {
            Some((a, b)) if !b.is_empty() => {
                pair::<BYTES, N>([a, b], x, [first, second], &unpack);
            }
            // One alone goes with itself, and what that gives twice is left.
            _ => {
                let mut spare = [[0.0; PANEL]; MAX_COLUMNS];
                let spare = spare.get_mut(..columns).unwrap_or_default();
                pair::<BYTES, N>([blocks; 2], x, [first, spare], &unpack);
            }
        }
    }
}

/// Multiplies two panels with all columns of `x`, of which there are as many as sums of each.
#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn pair<const BYTES: usize, const N: usize>(
    [a, b]: [&[u8]; 2],
    x: &[QuantizedGroup],
    [first, second]: [&mut [[f32; PANEL]]; 2],
    unpack: impl Fn([__m512i; N]) -> [__m512i; GROUP / 4],
) {
    let (columns, panel_bytes) = (first.len(), a.len());
    let mut work = Work {
        chunk: [const { MaybeUninit::uninit() }; CHUNK],
        dots: [const { MaybeUninit::uninit() }; 2],
        base: _mm512_set1_ps(BASE),
    };
    let mut blocks = a.as_chunks::<BYTES>().0.iter().zip(b.as_chunks::<BYTES>().0).enumerate();
    for x in x.chunks(CHUNK * columns) {
        let mut written = 0;
        for (to, (i, (a, b))) in work.chunk.iter_mut().zip(&mut blocks) {
            avx512::prefetch_pair(a, b, i, panel_bytes);
            to.write(join_blocks(a, b, &unpack));
            written += 1;
        }
        let is_whole = written == CHUNK && x.len() == CHUNK * columns;
        let whole = if is_whole { columns / TILE * TILE } else { 0 };
        let (first, first_rest) = first.split_at_mut(whole);
        let (second, second_rest) = second.split_at_mut(whole);
        let sums = [first.as_chunks_mut().0, second.as_chunks_mut().0];
        // SAFETY: tiles are configured, and so many blocks are written.
        unsafe { add_tiles(&mut work, x, columns, written, sums) };
        let rest = first_rest.chunks_mut(TILE).zip(second_rest.chunks_mut(TILE));
        for (column, (first, second)) in (whole..).step_by(TILE).zip(rest) {
            // SAFETY: as above.
            unsafe { add_part(&mut work, x, columns, column, written, [first, second]) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn join_blocks<const BYTES: usize, const N: usize>(
    a: &[u8; BYTES],
    b: &[u8; BYTES],
    unpack: impl Fn([__m512i; N]) -> [__m512i; GROUP / 4],
) -> Block {
    let mut vectors = [_mm512_setzero_si512(); N];
    let mut scales = _mm512_setzero_ps();
    if let (Some((a_scales, a)), Some((b_scales, b))) =
        (avx512::split::<BYTES, N>(a), avx512::split::<BYTES, N>(b))
    {
        scales = avx512::scales(a_scales, b_scales);
        for ((vector, a), b) in vectors.iter_mut().zip(a).zip(b) {
            *vector = avx512::join(a, b);
        }
    }
    Block { weights: unpack(vectors), scales }
}

/// The sums of a whole tile of two panels.
type TileSums = [[f32; PANEL]; TILE];

/// Adds what the first `blocks` blocks of a chunk give with a tile that may be of fewer columns, from
/// `column` on: by way of whole ones.
///
/// # Safety
/// As for [`add_tiles`].
#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn add_part(
    work: &mut Work,
    x: &[QuantizedGroup],
    columns: usize,
    column: usize,
    blocks: usize,
    sums: [&mut [[f32; PANEL]]; 2],
) {
    let mut groups = [[QuantizedGroup::ZERO; TILE]; CHUNK];
    for (group, x) in groups.iter_mut().zip(x.chunks(columns)) {
        group.iter_mut().zip(x.iter().skip(column)).for_each(|(to, x)| *to = *x);
    }
    let mut whole = [[[0.0; PANEL]; TILE]; 2];
    for (whole, sums) in whole.iter_mut().zip(&sums) {
        whole.iter_mut().zip(&**sums).for_each(|(whole, sum)| *whole = *sum);
    }
    let [first, second] = &mut whole;
    let (first, second) = (core::slice::from_mut(first), core::slice::from_mut(second));
    let blocks = blocks.min(x.len() / columns);
    // SAFETY: the caller vouches for it.
    unsafe { add_tiles(work, groups.as_flattened(), TILE, blocks, [first, second]) };
    for (whole, sums) in whole.iter().zip(sums) {
        sums.iter_mut().zip(whole).for_each(|(sum, whole)| *sum = *whole);
    }
}

/// Multiplies a chunk with tile after tile of whole ones that there are sums for, and adds what its
/// first `blocks` blocks give. A block is multiplied with while what the one before gave is stored,
/// and what the one before that gave is added.
///
/// # Safety
/// Tiles are configured, and so many blocks are written.
#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn add_tiles(
    work: &mut Work,
    x: &[QuantizedGroup],
    columns: usize,
    blocks: usize,
    [first, second]: [&mut [TileSums]; 2],
) {
    if first.is_empty() || x.len() < CHUNK * columns || first.len() * TILE > columns {
        return;
    }
    let mut totals = [_mm512_setzero_ps(); TILE];
    let mut before: Option<[&mut TileSums; 2]> = None;
    // What is added next.
    let mut added = x.as_ptr();
    // SAFETY: the caller vouches for tiles and blocks; `x` has a chunk's groups of so many columns.
    unsafe {
        load_weights(work);
        for (t, (first, second)) in first.iter_mut().zip(second).enumerate() {
            let start = x.as_ptr().add(t * TILE);
            let mut x = start;
            macro_rules! start {
                ($block:literal, $sums:literal, $weights:literal, $before:literal, $dots:literal) => {
                    if $block > 0 {
                        x = x.wrapping_add(columns);
                    }
                    multiply!($sums, $weights, x, work);
                    prefetch_next(x);
                    store!($before, work, $dots);
                };
            }
            macro_rules! add {
                ($block:literal, $dots:literal) => {
                    if $block < blocks {
                        add::<$block, $dots>(work, added, &mut totals);
                    }
                    added = added.wrapping_add(columns);
                };
            }
            start!(0, "tmm0", "tmm4", "tmm1", 1);
            if before.is_some() {
                add!(2, 0);
            }
            start!(1, "tmm1", "tmm5", "tmm0", 0);
            if let Some([first, second]) = before {
                if 3 < blocks {
                    add::<3, 1>(work, added, &mut totals);
                }
                store_sums(&totals, first, second);
            }
            added = start;
            totals = load_sums(first, second);
            start!(2, "tmm0", "tmm6", "tmm1", 1);
            add!(0, 0);
            start!(3, "tmm1", "tmm7", "tmm0", 0);
            add!(1, 1);
            before = Some([first, second]);
        }
        store!("tmm1", work, 1);
        if let Some([first, second]) = before {
            if 2 < blocks {
                add::<2, 0>(work, added, &mut totals);
            }
            if 3 < blocks {
                add::<3, 1>(work, added.wrapping_add(columns), &mut totals);
            }
            store_sums(&totals, first, second);
        }
    }
}

/// Fetches the next tile's columns of a group.
#[inline(always)]
fn prefetch_next(x: *const QuantizedGroup) {
    const LINES: usize = (TILE * size_of::<QuantizedGroup>()).div_ceil(64);
    for line in 0..LINES {
        // SAFETY: a hint may name any address.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(x.wrapping_add(TILE).cast::<i8>().wrapping_add(64 * line))
        };
    }
}

/// Adds a tile's dot products with a block, scaled.
///
/// # Safety
/// The block is written, the dots are stored, and `x` is [`TILE`] groups.
#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn add<const BLOCK: usize, const DOTS: usize>(
    work: &Work,
    x: *const QuantizedGroup,
    totals: &mut [__m512; TILE],
) {
    let (Some(block), Some(dots)) = (work.chunk.get(BLOCK), work.dots.get(DOTS)) else { return };
    // SAFETY: the caller vouches for all of them.
    let (scales, Dots(dots), x) = unsafe {
        (
            block.assume_init_ref().scales,
            dots.assume_init_ref(),
            &*x.cast::<[QuantizedGroup; TILE]>(),
        )
    };
    for ((total, dots), x) in totals.iter_mut().zip(dots).zip(x) {
        *total = _mm512_add_ps(*total, scaled(*dots, scales, x));
    }
}

/// What a column's dot products are worth.
#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn scaled(dots: __m512, scales: __m512, x: &QuantizedGroup) -> __m512 {
    let step = _mm512_mul_ps(scales, _mm512_set1_ps(x.scale));
    _mm512_mul_ps(_mm512_sub_ps(dots, _mm512_set1_ps(BASE)), step)
}

#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn load_sums(first: &TileSums, second: &TileSums) -> [__m512; TILE] {
    let mut totals = [_mm512_setzero_ps(); TILE];
    for ((total, first), second) in totals.iter_mut().zip(first).zip(second) {
        *total = avx512::join_sums(first, second);
    }
    totals
}

#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn store_sums(totals: &[__m512; TILE], first: &mut TileSums, second: &mut TileSums) {
    for ((total, first), second) in totals.iter().zip(first).zip(second) {
        avx512::split_sums(*total, first, second);
    }
}

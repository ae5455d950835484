//! Attention over one head of a KV cache, written once over [`Lanes`] and compiled for each
//! instruction set: one pass over the cache with a running maximum (online softmax,
//! arXiv:1805.02867).
//!
//! Lanes are positions for scores, and a head's numbers for sums: each number is added up in the
//! same order everywhere.

use super::lanes::{KvNumber, LANES, Lanes};
use crate::math::{exp, sum_lanes, tanh};
use core::ops::Range;

/// The most queries that are shown a key while it is at hand.
pub const MAX_QUERIES: usize = 8;
/// Positions whose scores are computed before the running maximum is brought up to date.
const BLOCK: usize = ATTENDED_AT_ONCE;
/// Kernels compute the scores of so many positions even if a query sees fewer.
pub const ATTENDED_AT_ONCE: usize = 32;

/// The keys and values of one head for all positions of a cache.
#[derive(Clone, Copy)]
pub struct KvHead<'a, T> {
    /// Numbers a position.
    pub width: usize,
    /// `[panels of 8 positions][width][8]`: the first numbers of their keys, then the second ones, and
    /// so on.
    pub keys: &'a [[T; LANES]],
    /// `[positions][width]`.
    pub values: &'a [T],
    /// What one step of a position's key is worth, and of its value, `[positions]` each; empty if they
    /// are floats.
    pub scales: (&'a [f32], &'a [f32]),
}

/// A query, and what it has seen.
pub struct Query<'q> {
    /// The query, `[width]`.
    pub query: &'q [f32],
    /// The sum of the values seen, weighted, `[width]`.
    pub out: &'q mut [f32],
    /// The weights' running softmax.
    pub softmax: Softmax,
}

/// A running softmax.
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    largest: f32,
    totals: [f32; LANES],
}

impl Softmax {
    /// Nothing was seen.
    pub const EMPTY: Self = Self { largest: f32::NEG_INFINITY, totals: [0.0; LANES] };

    /// One score was seen.
    pub(crate) fn of(score: f32) -> Self {
        let mut totals = [0.0; LANES];
        totals[0] = 1.0;
        Self { largest: score, totals }
    }

    /// Raises all scores that were seen.
    pub(crate) fn raise(&mut self, by: f32) {
        self.largest += by;
    }

    /// The sum of all weights.
    #[must_use]
    pub fn total(&self) -> f32 {
        sum_lanes(self.totals)
    }
}

/// What is done with scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// They are multiplied with it.
    pub scale: f32,
    /// They stay below it then: cap · tanh(score / cap); 0 for no bound.
    pub cap: f32,
}

/// Shows the keys and values at some places of a cache to up to [`MAX_QUERIES`] queries.
pub type Attend<T> =
    fn(head: &KvHead<'_, T>, places: Range<usize>, scale: Scaling, queries: &mut [Query<'_>]);

/// An [`Attend`] of any instruction set.
///
/// # Safety
/// The CPU must have what `L` needs.
#[allow(dead_code, reason = "used where there are vectors")]
#[inline(always)]
pub(super) unsafe fn attend<L: Lanes, T: KvNumber>(
    head: &KvHead<'_, T>,
    places: Range<usize>,
    scale: Scaling,
    queries: &mut [Query<'_>],
) {
    let (eights, rest) = queries.as_chunks_mut::<MAX_QUERIES>();
    let (fours, rest) = rest.as_chunks_mut::<4>();
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        for tile in eights {
            attend_tile::<L, T, _>(head, places.clone(), scale, tile);
        }
        for tile in fours {
            attend_tile::<L, T, _>(head, places.clone(), scale, tile);
        }
        for tile in rest.as_chunks_mut::<1>().0 {
            attend_tile::<L, T, _>(head, places.clone(), scale, tile);
        }
    }
}

/// As [`attend`], one query after another: for machines without vectors to keep several in, and
/// with little stack.
///
/// # Safety
/// The CPU must have what `L` needs.
#[inline(always)]
pub(super) unsafe fn attend_singly<L: Lanes, T: KvNumber>(
    head: &KvHead<'_, T>,
    places: Range<usize>,
    scale: Scaling,
    queries: &mut [Query<'_>],
) {
    for query in queries {
        for first in (places.start / BLOCK * BLOCK..places.end).step_by(BLOCK) {
            let visible = places.start.saturating_sub(first)..(places.end - first).min(BLOCK);
            // SAFETY: the caller vouches for the CPU.
            let mut block = unsafe { scores_of_one::<L, T>(head, first, &visible, query.query) };
            weigh_all(&mut block, head, first, &visible, scale, query);
            let places = first + visible.start..first + visible.end;
            let weights = block.as_flattened().get(visible).unwrap_or_default();
            // SAFETY: as above.
            unsafe { add_values_to_one::<L, T>(head, places, weights, query.out) };
        }
    }
}

/// The dot products of a query with the keys of a block's visible panels.
#[inline(always)]
unsafe fn scores_of_one<L: Lanes, T: KvNumber>(
    head: &KvHead<'_, T>,
    first: usize,
    visible: &Range<usize>,
    query: &[f32],
) -> Block {
    let mut block = [[0.0; LANES]; BLOCK / LANES];
    let width = head.width.max(1);
    let panels = visible.start / LANES..visible.end.div_ceil(LANES);
    let keys = head.keys.get((first / LANES + panels.start) * width..).unwrap_or_default();
    for (scores, keys) in
        block.get_mut(panels).unwrap_or_default().iter_mut().zip(keys.chunks_exact(width))
    {
        // SAFETY: the caller vouches for the CPU.
        unsafe { L::splat(0.0).add_products(query, keys.as_flattened(), LANES).store(scores) };
    }
    block
}

/// Adds the values at some places, weighted, to an output.
#[inline(always)]
unsafe fn add_values_to_one<L: Lanes, T: KvNumber>(
    head: &KvHead<'_, T>,
    places: Range<usize>,
    weights: &[f32],
    out: &mut [f32],
) {
    let width = head.width.max(1);
    let values = head.values.get(places.start * width..places.end * width).unwrap_or_default();
    let (eights, rest) = out.as_chunks_mut::<LANES>();
    for (start, out) in (0..).step_by(LANES).zip(eights.iter_mut()) {
        let values = values.get(start..).unwrap_or_default();
        // SAFETY: the caller vouches for the CPU.
        unsafe { L::load(out).add_products(weights, values, width).store(out) };
    }
    if rest.is_empty() {
        return;
    }
    for (weight, value) in weights.iter().zip(values.chunks_exact(width)) {
        for (x, value) in rest.iter_mut().zip(value.iter().skip(eights.len() * LANES)) {
            *x += weight * value.to_f32();
        }
    }
}

/// Scores of a block's positions, or weights.
type Block = [[f32; LANES]; BLOCK / LANES];

#[inline(always)]
unsafe fn attend_tile<L: Lanes, T: KvNumber, const Q: usize>(
    head: &KvHead<'_, T>,
    places: Range<usize>,
    scale: Scaling,
    queries: &mut [Query<'_>; Q],
) {
    for first in (places.start / BLOCK * BLOCK..places.end).step_by(BLOCK) {
        let visible = places.start.saturating_sub(first)..(places.end - first).min(BLOCK);
        // SAFETY: the caller vouches for the CPU.
        let mut blocks = unsafe { scores::<L, T, Q>(head, first, &visible, queries) };
        for (block, query) in blocks.iter_mut().zip(queries.iter_mut()) {
            weigh_all(block, head, first, &visible, scale, query);
        }
        let places = first + visible.start..first + visible.end;
        // SAFETY: the caller vouches for the CPU.
        unsafe { add_values::<L, T, Q>(head, places, visible.start, &blocks, queries) };
    }
}

/// Turns the dot products of a block into weights, those of values' steps included.
#[inline(always)]
fn weigh_all<T>(
    block: &mut Block,
    head: &KvHead<'_, T>,
    first: usize,
    visible: &Range<usize>,
    scale: Scaling,
    query: &mut Query<'_>,
) {
    let mut mask = [0.0; BLOCK];
    for seen in mask.get_mut(visible.clone()).unwrap_or_default() {
        *seen = 1.0;
    }
    multiply(block, head.scales.0.get(first..).unwrap_or_default());
    weigh(block, &mask, scale, query);
    multiply(block, head.scales.1.get(first..).unwrap_or_default());
}

/// Multiplies with what the steps of quantized keys or values are worth; floats have none.
#[inline(always)]
fn multiply(block: &mut Block, scales: &[f32]) {
    for (x, scale) in block.as_flattened_mut().iter_mut().zip(scales) {
        *x *= scale;
    }
}

/// The dot products of queries with the keys of a block's visible panels.
#[inline(always)]
unsafe fn scores<L: Lanes, T: KvNumber, const Q: usize>(
    head: &KvHead<'_, T>,
    first: usize,
    visible: &Range<usize>,
    queries: &[Query<'_>; Q],
) -> [Block; Q] {
    let mut blocks = [[[0.0; LANES]; BLOCK / LANES]; Q];
    let width = head.width.max(1);
    let panels = visible.start / LANES..visible.end.div_ceil(LANES);
    let keys = head.keys.get((first / LANES + panels.start) * width..).unwrap_or_default();
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        for (panel, keys) in panels.zip(keys.chunks_exact(width)) {
            let mut sums = [L::splat(0.0); Q];
            let (eights, rest) = keys.as_chunks::<LANES>();
            for (e, keys) in eights.iter().enumerate() {
                let mut xs = [&[0.0; LANES]; Q];
                for (xs, query) in xs.iter_mut().zip(queries) {
                    if let Some(eight) = query.query.as_chunks().0.get(e) {
                        *xs = eight;
                    }
                }
                for (i, key) in keys.iter().enumerate() {
                    let key = T::lanes::<L>(key);
                    for (sum, xs) in sums.iter_mut().zip(xs) {
                        let x = xs.get(i).copied().unwrap_or_default();
                        *sum = sum.add_product(L::splat(x), key);
                    }
                }
            }
            for (i, key) in (eights.len() * LANES..).zip(rest) {
                let key = T::lanes::<L>(key);
                for (sum, query) in sums.iter_mut().zip(queries) {
                    let x = query.query.get(i).copied().unwrap_or_default();
                    *sum = sum.add_product(L::splat(x), key);
                }
            }
            for (block, sum) in blocks.iter_mut().zip(sums) {
                if let Some(scores) = block.get_mut(panel) {
                    sum.store(scores);
                }
            }
        }
    }
    blocks
}

/// Turns scores into weights relative to the largest score so far; 0 where `mask` is.
#[inline(always)]
fn weigh(block: &mut Block, mask: &[f32; BLOCK], scale: Scaling, query: &mut Query<'_>) {
    let block = block.as_flattened_mut();
    let Scaling { mut scale, cap } = scale;
    if cfg!(feature = "float") && cap > 0.0 {
        for score in block.iter_mut() {
            *score = cap * tanh(*score * scale / cap);
        }
        scale = 1.0;
    }
    for (score, seen) in block.iter_mut().zip(mask) {
        *score = if *seen > 0.0 { *score * scale } else { f32::NEG_INFINITY };
    }
    let softmax = &mut query.softmax;
    let mut largest = softmax.largest;
    let mut lanes = [largest; LANES];
    for scores in block.as_chunks::<LANES>().0 {
        for (lane, score) in lanes.iter_mut().zip(scores) {
            *lane = if *score > *lane { *score } else { *lane };
        }
    }
    for lane in lanes {
        largest = if lane > largest { lane } else { largest };
    }
    if largest > softmax.largest {
        let rescale = exp(softmax.largest - largest);
        softmax.largest = largest;
        for total in &mut softmax.totals {
            *total *= rescale;
        }
        for x in &mut *query.out {
            *x *= rescale;
        }
    }
    for (score, seen) in block.iter_mut().zip(mask) {
        let weight = exp(*score - largest);
        *score = if *seen > 0.0 { weight } else { 0.0 };
    }
    for weights in block.as_chunks::<LANES>().0 {
        for (total, weight) in softmax.totals.iter_mut().zip(weights) {
            *total += weight;
        }
    }
}

/// Adds the values at some places, weighted, to the outputs; `skip` weights lie before the first.
#[inline(always)]
unsafe fn add_values<L: Lanes, T: KvNumber, const Q: usize>(
    head: &KvHead<'_, T>,
    places: Range<usize>,
    skip: usize,
    blocks: &[Block; Q],
    queries: &mut [Query<'_>; Q],
) {
    let width = head.width.max(1);
    let values = head.values.get(places.start * width..places.end * width).unwrap_or_default();
    let chunks = width / LANES;
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        for chunk in 0..chunks {
            let start = chunk * LANES;
            let mut sums = [L::splat(0.0); Q];
            for (sum, query) in sums.iter_mut().zip(queries.iter()) {
                if let Some(out) = query.out.get(start..start + LANES).and_then(|x| x.first_chunk())
                {
                    *sum = L::load(out);
                }
            }
            let values = values.get(start..).unwrap_or_default().chunks(width);
            for (i, value) in (skip..BLOCK).zip(values) {
                let Some(value) = value.first_chunk() else { continue };
                let value = T::lanes::<L>(value);
                for (sum, block) in sums.iter_mut().zip(blocks) {
                    let weight = block.as_flattened().get(i).copied().unwrap_or_default();
                    *sum = sum.add_product(L::splat(weight), value);
                }
            }
            for (sum, query) in sums.iter().zip(queries.iter_mut()) {
                if let Some(out) = query.out.get_mut(start..).and_then(<[f32]>::first_chunk_mut) {
                    sum.store(out);
                }
            }
        }
    }
    if chunks * LANES == width {
        return;
    }
    for (i, value) in (skip..BLOCK).zip(values.chunks_exact(width)) {
        for (block, query) in blocks.iter().zip(queries.iter_mut()) {
            let weight = block.as_flattened().get(i).copied().unwrap_or_default();
            for (x, value) in query.out.iter_mut().zip(value).skip(chunks * LANES) {
                *x += weight * value.to_f32();
            }
        }
    }
}

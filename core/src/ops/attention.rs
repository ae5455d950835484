//! Causal attention over a KV cache (grouped-query attention, arXiv:2305.13245), in one pass over
//! the cache with a running maximum (online softmax, arXiv:1805.02867).

use super::{Columns, ColumnsMut, rope::rotate};
use crate::kv::Cache;
use crate::math::exp;
use crate::program::{Heads, MAX_HEAD_WIDTH};
use crate::rows::share_rows;
use crate::simd::Kernels;
use core::ops::Range;
use omex_hal::Parallel;

/// Positions whose scores are computed before the running maximum is brought up to date.
const BLOCK: usize = 32;

/// The inputs of an attention.
pub(crate) struct Inputs<'i> {
    pub(crate) heads: Heads,
    pub(crate) scale: f32,
    pub(crate) query: Columns<'i>,
    pub(crate) key: Columns<'i>,
    pub(crate) value: Columns<'i>,
    /// RoPE's angles; the second half turns a query for the sinks.
    pub(crate) angles: Columns<'i>,
}

/// Appends each column's key and value at its position, and attends to what it may see.
pub(crate) fn attention(
    kernels: &Kernels,
    parallel: &dyn Parallel,
    inputs: &Inputs<'_>,
    cache: &mut Cache<'_>,
    mut output: ColumnsMut<'_>,
    position: u32,
    columns: usize,
) {
    let fits = position.saturating_add(columns as u32) <= cache.window.capacity;
    // A full ring replaces positions that earlier columns of the same pass still see.
    let step = if fits { columns } else { 1 };
    for first in (0..columns).step_by(step.max(1)) {
        let batch = first..first + step;
        for c in batch.clone() {
            cache.append(position + c as u32, inputs.key.column(c), inputs.value.column(c));
        }
        let cache = &*cache;
        let rows = 0..output.width;
        let all_heads = if small(cache, position, &batch) { rows.len() } else { 0 };
        let rows_per_task = (inputs.heads.width as usize).max(all_heads);
        share_rows(parallel, &mut output, rows, rows_per_task, &|mut rows| {
            let width = (inputs.heads.width as usize).max(1);
            let heads = rows.range().start / width..rows.range().end / width;
            for c in batch.clone() {
                let position = position + c as u32;
                for (head, out) in heads.clone().zip(rows.column(c).chunks_exact_mut(width)) {
                    Head { kernels, inputs, cache, head, column: c }.attend(position, out);
                }
            }
        });
    }
}

/// True if waking other cores costs more than the work.
fn small(cache: &Cache<'_>, position: u32, batch: &Range<usize>) -> bool {
    let seen = position.min(cache.window.capacity) as usize + batch.len();
    seen * batch.len() < 64
}

/// One head's attention for one column.
struct Head<'h, 'a> {
    kernels: &'h Kernels,
    inputs: &'h Inputs<'h>,
    cache: &'h Cache<'a>,
    head: usize,
    column: usize,
}

/// Running softmax: the largest score so far, and the sum of the weights relative to it.
struct Softmax {
    largest: f32,
    total: f32,
}

impl Head<'_, '_> {
    fn attend(&self, position: u32, out: &mut [f32]) {
        let width = out.len();
        let queries = self.inputs.query.column(self.column);
        let query = queries.get(self.head * width..(self.head + 1) * width).unwrap_or_default();
        let (sinks, ring) = self.cache.window.visible(position);
        let mut softmax = Softmax { largest: f32::NEG_INFINITY, total: 0.0 };
        out.fill(0.0);
        if self.cache.window.sink_shift(position) == 0 {
            self.add(query, sinks, &mut softmax, out);
        } else {
            let mut turned = [0.0; MAX_HEAD_WIDTH as usize];
            let Some(turned) = turned.get_mut(..width) else { return };
            turned.iter_mut().zip(query).for_each(|(turned, x)| *turned = *x);
            let angles = self.inputs.angles.column(self.column);
            rotate(turned, angles.get(width..).unwrap_or_default());
            self.add(turned, sinks, &mut softmax, out);
        }
        self.add(query, ring, &mut softmax, out);
        let inverse = 1.0 / softmax.total;
        out.iter_mut().for_each(|x| *x *= inverse);
    }

    /// Adds the values of some positions, weighted by how well their keys match the query.
    fn add(&self, query: &[f32], positions: Range<u32>, softmax: &mut Softmax, out: &mut [f32]) {
        let width = query.len();
        let queries_a_key = self.inputs.heads.query.checked_div(self.inputs.heads.kv).unwrap_or(1);
        let first = self.head / (queries_a_key as usize).max(1) * width;
        for start in positions.clone().step_by(BLOCK) {
            let block = start..positions.end.min(start + BLOCK as u32);
            let mut scores = [0.0; BLOCK];
            let mut largest = softmax.largest;
            for (score, position) in scores.iter_mut().zip(block.clone()) {
                let dot = self.cache.score(self.kernels, position, first, query);
                *score = dot * self.inputs.scale;
                largest = if *score > largest { *score } else { largest };
            }
            if largest > softmax.largest {
                let rescale = exp(softmax.largest - largest);
                softmax.largest = largest;
                softmax.total *= rescale;
                out.iter_mut().for_each(|x| *x *= rescale);
            }
            for (score, position) in scores.iter().zip(block) {
                let weight = exp(score - softmax.largest);
                softmax.total += weight;
                self.cache.add_value(self.kernels, position, first, weight, out);
            }
        }
    }
}

//! Causal attention over a KV cache (grouped-query attention, arXiv:2305.13245).

use super::{Columns, ColumnsMut, rope::rotate};
use crate::kv::{Cache, Window};
use crate::program::{Heads, MAX_HEAD_WIDTH};
use crate::rows::{TaskRows, share_rows};
use crate::simd::{Attend, Kernels, KvHead, MAX_QUERIES, Query, Softmax};
use core::ops::Range;
use omex_hal::Parallel;

/// The inputs of an attention.
pub(crate) struct Inputs<'i> {
    pub(crate) heads: Heads,
    pub(crate) scale: f32,
    pub(crate) query: Columns<'i>,
    pub(crate) key: Columns<'i>,
    pub(crate) value: Columns<'i>,
    /// RoPE's angles; the second half turns a query for the sinks.
    pub(crate) angles: Columns<'i>,
    pub(crate) window: Window,
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
    let fits = position.saturating_add(columns as u32) <= inputs.window.capacity;
    // A full ring replaces positions that earlier columns of the same pass still see.
    let step = if fits { columns } else { 1 };
    for first in (0..columns).step_by(step.max(1)) {
        let batch = first..first + step;
        for c in batch.clone() {
            cache.append(position + c as u32, inputs.key.column(c), inputs.value.column(c));
        }
        let rows = 0..output.width;
        let heads = heads_per_task(inputs, parallel, position, &batch);
        let rows_per_task = heads * inputs.heads.width as usize;
        let cache = &*cache;
        share_rows(parallel, &mut output, rows, rows_per_task, &|rows| {
            let batch = (position, batch.clone());
            match cache {
                Cache::Half(cache) => {
                    inputs.attend(kernels.attend_half, |h| cache.head(h), rows, batch)
                }
                Cache::Single(cache) => {
                    inputs.attend(kernels.attend_single, |h| cache.head(h), rows, batch);
                }
                Cache::Int8(cache) => {
                    inputs.attend(kernels.attend_int8, |h| cache.head(h), rows, batch)
                }
            }
        });
    }
}

/// Query heads that one task computes: all where waking other cores costs more than the work, else
/// at most those that share a key, so that it is read once.
fn heads_per_task(
    inputs: &Inputs<'_>,
    parallel: &dyn Parallel,
    position: u32,
    batch: &Range<usize>,
) -> usize {
    let seen = position.min(inputs.window.capacity) as usize + batch.len();
    let heads = inputs.heads.query as usize;
    if seen * batch.len() < 64 {
        return heads;
    }
    let group = inputs.queries_a_key();
    let share = (heads / (2 * parallel.cores()).max(1)).clamp(1, group);
    (1..=share).rev().find(|n| group.is_multiple_of(*n)).unwrap_or(1)
}

impl Inputs<'_> {
    /// Query heads that share a key; at least 1.
    fn queries_a_key(&self) -> usize {
        self.heads.query.checked_div(self.heads.kv).unwrap_or(1).max(1) as usize
    }

    /// Computes the output rows of one task for a batch of columns, of which the first column of
    /// the pass is at `position`.
    fn attend<'c, T: 'c>(
        &self,
        attend: Attend<T>,
        kv_head: impl Fn(usize) -> KvHead<'c, T>,
        mut rows: TaskRows<'_>,
        (position, batch): (u32, Range<usize>),
    ) {
        let width = (self.heads.width as usize).max(1);
        let group = self.queries_a_key();
        let first = rows.range().start / width;
        for c in batch {
            let position = position + c as u32;
            let query = self.query.column(c).get(first * width..).unwrap_or_default();
            let mut queries = query.chunks_exact(width);
            let mut outs = rows.column(c).chunks_exact_mut(width);
            let mut head = first;
            while outs.len() > 0 {
                // Up to the last query head that shares the key of this one.
                let count = (group - head % group).min(MAX_QUERIES);
                let mut tile = heapless::Vec::<_, MAX_QUERIES>::new();
                for (query, out) in queries.by_ref().zip(outs.by_ref()).take(count) {
                    out.fill(0.0);
                    // There is room: `count` is at most `MAX_QUERIES`.
                    let _ = tile.push(Query { query, out, softmax: Softmax::EMPTY });
                }
                let kv_head = kv_head(head / group);
                let seen = self.see_sinks(attend, &kv_head, position, c, &mut tile);
                let places = seen..self.window.visible(position) as usize;
                attend(&kv_head, places, self.scale, &mut tile);
                for query in &mut tile {
                    let inverse = 1.0 / query.softmax.total();
                    query.out.iter_mut().for_each(|x| *x *= inverse);
                }
                head += count;
            }
        }
    }

    /// Shows the sinks to queries that are turned for it; returns how many places they have seen:
    /// none while the text is no longer than the cache.
    fn see_sinks<T>(
        &self,
        attend: Attend<T>,
        kv_head: &KvHead<'_, T>,
        position: u32,
        column: usize,
        queries: &mut [Query<'_>],
    ) -> usize {
        if self.window.sink_shift(position) == 0 {
            return 0;
        }
        let sinks = self.window.sinks as usize;
        let angles = self.angles.column(column);
        for query in queries {
            let mut turned = [0.0; MAX_HEAD_WIDTH as usize];
            let Some(turned) = turned.get_mut(..query.query.len()) else { return 0 };
            turned.iter_mut().zip(query.query).for_each(|(turned, x)| *turned = *x);
            rotate(turned, angles.get(query.query.len()..).unwrap_or_default());
            let softmax = query.softmax;
            let mut turned = [Query { query: turned, out: &mut *query.out, softmax }];
            attend(kv_head, 0..sinks, self.scale, &mut turned);
            let [turned] = turned;
            query.softmax = turned.softmax;
        }
        sinks
    }
}

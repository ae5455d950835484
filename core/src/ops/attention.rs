//! Causal attention over a KV cache (grouped-query attention, arXiv:2305.13245).

use super::{Columns, ColumnsMut, rope::rotate};
use crate::kv::{Cache, Window};
use crate::pass::Run;
use crate::program::{Heads, MAX_HEAD_WIDTH};
use crate::rows::{TaskRows, share_rows};
use crate::simd::{Attend, Kernels, KvHead, MAX_QUERIES, Query, Softmax};
use omex_hal::Parallel;

/// What an attention is about.
pub(crate) struct Attention<'i> {
    pub(crate) heads: Heads,
    pub(crate) scale: f32,
    pub(crate) query: Columns<'i>,
    pub(crate) key: Columns<'i>,
    pub(crate) value: Columns<'i>,
    /// RoPE's angles; the second half turns a query for the sinks.
    pub(crate) angles: Columns<'i>,
    pub(crate) window: Window,
}

impl Attention<'_> {
    /// Appends the key and value of each column of a run at its position, and attends to what it
    /// may see. If there are spare places, column `c` is stored in that number `c` of them too.
    pub(crate) fn attend(
        &self,
        kernels: &Kernels,
        parallel: &dyn Parallel,
        cache: &mut Cache<'_>,
        output: &mut ColumnsMut<'_>,
        run: &Run,
        spare: Option<u32>,
    ) {
        let fits = run.position_of(run.columns.end) <= self.window.capacity;
        // A full ring replaces positions that earlier columns of the same pass still see.
        let step = if fits { run.columns.len() } else { 1 };
        for first in run.columns.clone().step_by(step.max(1)) {
            let (position, columns) = (run.position_of(first), first..first + step);
            let batch = Run { sequence: run.sequence, position, columns };
            for c in batch.columns.clone() {
                let position = batch.position_of(c);
                cache.append(position, self.key.column(c), self.value.column(c));
                if let Some(spare) = spare {
                    cache.copy(position, spare + c as u32);
                }
            }
            let rows = 0..output.width;
            let heads = self.heads_per_task(parallel, &batch);
            let rows_per_task = heads * self.heads.width as usize;
            let cache = &*cache;
            share_rows(parallel, output, rows, rows_per_task, &|rows| match cache {
                Cache::Half(cache) => {
                    self.attend_rows(kernels.attend_half, |h| cache.head(h), rows, &batch);
                }
                Cache::Single(cache) => {
                    self.attend_rows(kernels.attend_single, |h| cache.head(h), rows, &batch);
                }
                Cache::Int8(cache) => {
                    self.attend_rows(kernels.attend_int8, |h| cache.head(h), rows, &batch);
                }
            });
        }
    }

    /// Query heads that one task computes: all where waking other cores costs more than the work,
    /// else at most those that share a key, so that it is read once.
    fn heads_per_task(&self, parallel: &dyn Parallel, batch: &Run) -> usize {
        let seen = batch.position.min(self.window.capacity) as usize + batch.columns.len();
        let heads = self.heads.query as usize;
        if seen * batch.columns.len() < 64 {
            return heads;
        }
        let group = self.queries_a_key();
        let share = (heads / (2 * parallel.cores()).max(1)).clamp(1, group);
        (1..=share).rev().find(|n| group.is_multiple_of(*n)).unwrap_or(1)
    }

    /// Query heads that share a key; at least 1.
    fn queries_a_key(&self) -> usize {
        self.heads.query.checked_div(self.heads.kv).unwrap_or(1).max(1) as usize
    }

    /// Computes the output rows of one task for a batch of columns.
    fn attend_rows<'c, T: 'c>(
        &self,
        attend: Attend<T>,
        kv_head: impl Fn(usize) -> KvHead<'c, T>,
        mut rows: TaskRows<'_>,
        batch: &Run,
    ) {
        let width = (self.heads.width as usize).max(1);
        let group = self.queries_a_key();
        let first = rows.range().start / width;
        for c in batch.columns.clone() {
            let position = batch.position_of(c);
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

//! Attention over a KV cache (grouped-query attention, arXiv:2305.13245).

use super::distances::{DISTANCES, classes};
use super::rotary::{Pairing, rotate};
use super::{Form, Numbers, Operation, operands};
use crate::columns::{Columns, ColumnsMut};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::pass::Run;
use crate::program::{Check, Dtype, MAX_HEAD_WIDTH, Per, Program};
use crate::rows::{TaskRows, share_rows};
use crate::simd::{Kernels, MAX_QUERIES, Query, Scaling, Softmax};
use crate::state::State;
use crate::state::kv::{Cache, Window};
use core::ops::Range;
use omex_hal::Parallel;
use serde::{Deserialize, Serialize};

/// Which positions a token sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// Those up to its own that the cache holds.
    #[default]
    Causal,
    /// All of its text, which one pass runs whole (encoders). The cache has no window.
    Full,
    /// As with a causal mask, and the score of a key is less by its head's slope for each position seen
    /// behind it (ALiBi, arXiv:2108.12409). Queries are not turned for the attention sinks.
    #[cfg(feature = "float")]
    Alibi,
}

/// `output` = for each query head, the values in a cache weighted by the softmax of the scaled scores of
/// their keys. As many query heads share a key head as there are more of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Attend<F: Form = Numbers> {
    /// The KV cache, which says what heads there are.
    pub state: F::Name,
    /// Queries, rotated.
    pub query: F::Value,
    /// RoPE's angles, to turn queries for the attention sinks; none if positions are not rotated.
    #[serde(default)]
    pub angles: Option<F::Value>,
    /// The result, apart from the inputs.
    pub output: F::Value,
    /// What scores are multiplied with.
    pub scale: f32,
    /// Which numbers of a query are turned together.
    #[serde(default)]
    pub pairing: Pairing,
    /// Which positions a token sees.
    #[serde(default)]
    pub mask: Mask,
    /// With a full mask, how many positions on either side of its own; 0 for all.
    #[serde(default)]
    pub reach: u32,
    /// Scores that were learned, once a pass. With a full mask `[heads of the query][32]`, what is added to
    /// the scores of keys by how far away they are (T5, arXiv:1910.10683; see `core/src/ops/distances.rs`);
    /// with a causal one `[heads of the query]`, a score more in each softmax, which has no value
    /// (gpt-oss, arXiv:2508.10925); with ALiBi `[heads of the query]`, the slopes.
    #[serde(default)]
    pub head_scores: Option<F::Value>,
    /// What scores stay below once they are multiplied: cap · tanh(score / cap) (Gemma 2,
    /// arXiv:2408.00118); 0 for no bound.
    #[serde(default)]
    pub cap: f32,
}

operands!(Attend {
    state state, read query, maybe_read angles, maybe_read head_scores, write output;
    scale, pairing, mask, reach, cap
});

impl Operation for Attend {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.tokens(&[self.query, self.output])?;
        check.equal(self.query.width, self.output.width)?;
        check.that(self.scale.is_finite() && self.cap.is_finite() && self.cap >= 0.0)?;
        check.that(cfg!(feature = "float") || self.cap == 0.0)?;
        let rotated = self.angles.map_or(0, |angles| angles.width);
        check.that(rotated.is_multiple_of(4))?;
        self.angles.map_or(Ok(()), |angles| check.tokens(&[angles]))?;
        #[cfg(feature = "float")]
        if self.mask == Mask::Alibi {
            check.that(self.head_scores.is_some() && self.angles.is_none())?;
        }
        if self.reach > 0 || self.head_scores.is_some() {
            self.check_near(check)?;
        }
        check.states(self.state, |state| match state {
            State::Kv { heads, width, window } => {
                self.query.width.is_multiple_of(heads * width)
                    && rotated / 2 <= width
                    && (window == 0 || self.mask != Mask::Full)
            }
            State::Bytes(_) => false,
        })
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let index = self.state.at(layer);
        let window = player.kv_window(index)?;
        let pending = player.pending.take().filter(|stored| stored.state == index);
        let Player { memory, program, plan, inputs, states, kernels, parallel, .. } = player;
        let (key, value) = pending.map_or((self.query, self.query), |new| (new.key, new.value));
        let added = self.head_scores.filter(|_| cfg!(feature = "float"));
        let [angles, scores] = [self.angles, added].map(|x| x.unwrap_or(self.query));
        let reads = [self.query, angles, scores, key, value];
        let ([query, angles, scores, key, value], mut output) =
            memory.split(program, inputs.counts(), reads, self.output)?;
        let mut next = 0;
        while let Some(run) = inputs.run(next) {
            next = run.columns.end;
            let end = run.position_of(run.columns.end);
            let beyond = !window.slides() && end > window.places;
            // Of one token, an operation before has put in its place what others see, too.
            let one = run.columns.len() == 1;
            let stored = cfg!(feature = "float") && beyond && pending.is_none() && one;
            let full = beyond && !stored;
            // What this run stores is there already, but where it waits for its turn in a full ring.
            let held = if full { run.position } else { end }.min(window.places);
            let (state, bytes) = states.get(program, plan, index, run.sequence, 0..held)?;
            let State::Kv { heads, width, .. } = state else { return Err(RunError::Program) };
            let shape = plan.cache_shape(&state).ok_or(RunError::Program)?;
            let mut cache = Cache::new(bytes, &shape, window).ok_or(RunError::Program)?;
            let group = query.width / (heads as usize * width as usize).max(1);
            let attention = Attention {
                group,
                width: width as usize,
                scale: Scaling { scale: self.scale, cap: self.cap },
                query,
                angles: self.angles.map(|_| angles),
                pairing: self.pairing,
                window,
                mask: self.mask,
                reach: if cfg!(feature = "float") { self.reach as usize } else { 0 },
                head_scores: added.map(|_| scores.column(0)),
            };
            if full && pending.is_none() {
                return Err(RunError::Position(run.position));
            }
            if !full {
                // Where inputs branch, another run may have stored at the same positions.
                for c in run.columns.clone() {
                    if let Some(spare) = inputs.spare().filter(|_| !stored) {
                        cache.copy(spare + c as u32, window.place(run.position_of(c)));
                    }
                }
                attention.attend(kernels, *parallel, &cache, &mut output, &run);
                continue;
            }
            for c in run.columns.clone() {
                let position = run.position_of(c);
                cache.append(position, key.column(c), value.column(c));
                let one = Run { sequence: run.sequence, position, columns: c..c + 1 };
                attention.attend(kernels, *parallel, &cache, &mut output, &one);
            }
            run.columns.clone().for_each(|c| states.changed(window.place(run.position_of(c))));
        }
        Ok(())
    }

    fn multiply_adds(&self, _: &Program<'_>, _: u32) -> (u64, u64) {
        // A key and a value a head and position.
        (0, 2 * u64::from(self.query.width))
    }
}

impl Attend {
    /// Checks what says how near keys are, and scores that were learned.
    fn check_near(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.that(cfg!(feature = "float") && (self.mask == Mask::Full || self.reach == 0))?;
        let Some(scores) = self.head_scores.filter(|_| cfg!(feature = "float")) else {
            return Ok(());
        };
        check.that(check.value(scores)? == (Per::Pass, Dtype::F32))?;
        let of_head = if self.mask == Mask::Full { DISTANCES as u32 } else { 1 };
        check.states(self.state, |state| match state {
            State::Kv { width, .. } => scores.width == self.query.width / width.max(1) * of_head,
            State::Bytes(_) => false,
        })
    }
}

/// A cache that queries are shown, in whatever format it is: code for each would be three times as
/// long.
struct Shown<'c> {
    cache: &'c Cache<'c>,
    kernels: &'c Kernels,
    scale: Scaling,
}

impl Shown<'_> {
    /// Shows some places of a head to queries.
    fn to(&self, queries: &mut [Query<'_>], head: usize, places: Range<usize>) {
        let (kernels, scale) = (self.kernels, self.scale);
        match self.cache {
            Cache::Half(cache) => (kernels.attend_half)(&cache.head(head), places, scale, queries),
            Cache::Int8(cache) => (kernels.attend_int8)(&cache.head(head), places, scale, queries),
            #[cfg(feature = "unquantized")]
            Cache::Single(cache) => {
                (kernels.attend_single)(&cache.head(head), places, scale, queries);
            }
        }
    }
}

/// Divides what queries have seen by the sums of their weights.
fn finish(queries: &mut [Query<'_>]) {
    for query in queries {
        let inverse = 1.0 / query.softmax.total();
        query.out.iter_mut().for_each(|x| *x *= inverse);
    }
}

/// An attention under way.
struct Attention<'i> {
    /// Query heads that share a key.
    group: usize,
    /// Width of a head.
    width: usize,
    scale: Scaling,
    query: Columns<'i>,
    /// RoPE's angles; the second half turns a query for the sinks.
    angles: Option<Columns<'i>>,
    pairing: Pairing,
    window: Window,
    mask: Mask,
    reach: usize,
    /// Scores that were learned: with a full mask `[heads][DISTANCES]`, else `[heads]`.
    head_scores: Option<&'i [f32]>,
}

impl Attention<'_> {
    /// Attends from each column of a run, whose keys and values are stored.
    fn attend(
        &self,
        kernels: &Kernels,
        parallel: &dyn Parallel,
        cache: &Cache<'_>,
        output: &mut ColumnsMut<'_>,
        run: &Run,
    ) {
        let rows = 0..output.width;
        let rows_per_task = self.heads_per_task(parallel, run) * self.width;
        share_rows(parallel, output, rows, rows_per_task, &|rows| {
            self.attend_rows(&Shown { cache, kernels, scale: self.scale }, rows, run);
        });
    }

    /// Query heads that one task computes: all where waking other cores costs more than the work,
    /// else at most those that share a key, so that it is read once.
    fn heads_per_task(&self, parallel: &dyn Parallel, batch: &Run) -> usize {
        let seen = batch.position.min(self.window.visible) as usize + batch.columns.len();
        let heads = self.query.width / self.width.max(1);
        if seen * batch.columns.len() < 64 {
            return heads;
        }
        let group = self.group.max(1);
        let share = (heads / (2 * parallel.cores()).max(1)).clamp(1, group);
        (1..=share).rev().find(|n| group.is_multiple_of(*n)).unwrap_or(1)
    }

    /// Computes the output rows of one task for a batch of columns.
    fn attend_rows(&self, shown: &Shown<'_>, mut rows: TaskRows<'_>, batch: &Run) {
        if cfg!(feature = "float") && self.mask == Mask::Full && !self.is_near() {
            return self.attend_whole(shown, rows, batch);
        }
        let (width, group) = (self.width.max(1), self.group.max(1));
        let first = rows.range().start / width;
        for c in batch.columns.clone() {
            let position = match self.mask {
                Mask::Full => batch.position_of(batch.columns.end.saturating_sub(1)),
                _ => batch.position_of(c),
            };
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
                    let softmax = self.first(head + tile.len());
                    let _ = tile.push(Query { query, out, softmax });
                }
                let kv_head = head / group;
                if self.is_near() {
                    let own = batch.position_of(c) as usize;
                    self.see_near(shown, [head, kv_head], own, position as usize + 1, &mut tile);
                } else if self.is_sloped() {
                    self.see_sloped(shown, [head, kv_head], position, &mut tile);
                } else {
                    let seen = self.see_sinks(shown, kv_head, position, c, &mut tile);
                    for places in self.window.ranges(position, seen as u32) {
                        if !places.is_empty() {
                            shown.to(&mut tile, kv_head, places);
                        }
                    }
                }
                finish(&mut tile);
                head += count;
            }
        }
    }

    /// As [`Self::attend_rows`], where all columns see all of their text: several are shown a key at once.
    fn attend_whole(&self, shown: &Shown<'_>, mut rows: TaskRows<'_>, batch: &Run) {
        let (width, group) = (self.width.max(1), self.group.max(1));
        let (first, heads) = (rows.range().start / width, rows.range().len() / width);
        let end = batch.position_of(batch.columns.end.saturating_sub(1)) as usize + 1;
        for columns in batch.columns.clone().step_by(MAX_QUERIES) {
            let columns = columns..(columns + MAX_QUERIES).min(batch.columns.end);
            for head in 0..heads {
                let mut tile = heapless::Vec::<_, MAX_QUERIES>::new();
                for (c, out) in columns.clone().zip(rows.columns(columns.clone())) {
                    let of_head = |head: usize| head * width..(head + 1) * width;
                    let query = self.query.column(c).get(of_head(first + head)).unwrap_or_default();
                    let out = out.get_mut(of_head(head)).unwrap_or_default();
                    out.fill(0.0);
                    // There is room: no more columns are taken at once.
                    let _ = tile.push(Query { query, out, softmax: Softmax::EMPTY });
                }
                shown.to(&mut tile, (first + head) / group, 0..end);
                finish(&mut tile);
            }
        }
    }

    /// True if what a token sees depends on how far away it is.
    fn is_near(&self) -> bool {
        let full = cfg!(feature = "float") && self.mask == Mask::Full;
        full && (self.reach > 0 || self.head_scores.is_some())
    }

    /// True if scores are less the further away keys are.
    const fn is_sloped(&self) -> bool {
        match self.mask {
            Mask::Causal | Mask::Full => false,
            #[cfg(feature = "float")]
            Mask::Alibi => true,
        }
    }

    /// The softmax of a query head that has seen nothing yet, but what was learned.
    fn first(&self, head: usize) -> Softmax {
        let causal = cfg!(feature = "float") && self.mask == Mask::Causal;
        let learned = self.head_scores.filter(|_| causal);
        let score = learned.and_then(|scores| scores.get(head));
        score.map_or(Softmax::EMPTY, |score| Softmax::of(*score))
    }

    /// Shows queries at position `own`, the first of them of this head, what is near enough before
    /// `end`, with what distances add to scores.
    fn see_near(
        &self,
        shown: &Shown<'_>,
        [head, kv_head]: [usize; 2],
        own: usize,
        end: usize,
        queries: &mut [Query<'_>],
    ) {
        let reach = if self.reach == 0 { end } else { self.reach };
        let (first, end) = (own.saturating_sub(reach), own.saturating_add(reach + 1).min(end));
        let Some(scores) = self.head_scores else {
            return shown.to(queries, kv_head, first..end);
        };
        for (class, places) in classes(own, end) {
            let places = places.start.max(first)..places.end;
            if places.is_empty() {
                continue;
            }
            let added = |query: usize| {
                let at = (head + query) * DISTANCES + class;
                scores.get(at).copied().unwrap_or_default()
            };
            // A number added to all scores is one taken from those before.
            for (i, query) in queries.iter_mut().enumerate() {
                query.softmax.raise(-added(i));
            }
            shown.to(queries, kv_head, places);
            for (i, query) in queries.iter_mut().enumerate() {
                query.softmax.raise(added(i));
            }
        }
    }

    /// Shows queries, the first of them of this head, one place after another, the oldest first.
    fn see_sloped(
        &self,
        shown: &Shown<'_>,
        [head, kv_head]: [usize; 2],
        position: u32,
        queries: &mut [Query<'_>],
    ) {
        let slopes = self.head_scores.and_then(|slopes| slopes.get(head..)).unwrap_or_default();
        for place in self.window.by_age(position).into_iter().flatten() {
            // All that was seen is one position further away.
            queries.iter_mut().zip(slopes).for_each(|(query, slope)| query.softmax.raise(-slope));
            shown.to(queries, kv_head, place..place + 1);
        }
    }

    /// Shows the sinks to queries that are turned for it; returns how many places they have seen:
    /// none while the text is no longer than the cache.
    fn see_sinks(
        &self,
        shown: &Shown<'_>,
        kv_head: usize,
        position: u32,
        column: usize,
        queries: &mut [Query<'_>],
    ) -> usize {
        let Some(angles) = self.angles.filter(|_| self.window.sink_shift(position) > 0) else {
            return 0;
        };
        let sinks = self.window.sinks as usize;
        // The angles of the position, then those for the sinks.
        let angles = angles.column(column);
        let angles = angles.get(angles.len() / 2..).unwrap_or_default();
        for query in queries {
            let mut turned = [0.0; MAX_HEAD_WIDTH as usize];
            let Some(turned) = turned.get_mut(..query.query.len()) else { return 0 };
            turned.iter_mut().zip(query.query).for_each(|(turned, x)| *turned = *x);
            rotate(turned, angles, self.pairing);
            let softmax = query.softmax;
            let mut turned = [Query { query: turned, out: &mut *query.out, softmax }];
            shown.to(&mut turned, kv_head, 0..sinks);
            let [turned] = turned;
            query.softmax = turned.softmax;
        }
        sinks
    }
}

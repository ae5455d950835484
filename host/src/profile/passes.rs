//! How long passes take besides their products: operations, numbers that are computed one by one,
//! attention, and sharing work out.

use super::compute::{self, Product};
use crate::aligned::zeros;
use crate::cancel::Cancel;
use crate::import::Fields;
use crate::plan::{Kv, RunPrecision};
use crate::pool::Pool;
use crate::quantize::Precision;
use crate::synth::RandomModel;
use crate::work::Pass;
use crate::{Error, Result, convert, dispatch};
use omex_core::arena::Plan;
use omex_core::engine::{Engine, Model, Wanted};
use omex_core::program::Program;
use omex_core::simd::{Attend, KvHead, LANES, Query, Scaling, Softmax};
use omex_core::state::kv::KvFormat;
use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager, Parallel};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

/// How long what a pass does besides products takes, in seconds on one thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PassTimes {
    /// Any operation, whatever it does.
    pub operation: f64,
    /// A number that is added, multiplied or copied.
    pub element: f64,
    /// Sharing a job out to a thread for each core, which wait for it.
    pub job: f64,
    /// Attention.
    pub attention: Vec<AttentionTime>,
}

/// How long a query takes for each position that it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttentionTime {
    /// How keys and values are stored.
    pub format: Kv,
    /// Width of a head.
    pub width: u32,
    /// Queries that are shown a key at once.
    pub queries: u32,
    /// Seconds.
    pub seconds: f64,
}

/// Widths of heads that are measured: multiples of the kernels' lanes, and one that is none.
const WIDTHS: [u32; 4] = [8, 12, 64, 128];
/// Queries that kernels are shown a key with.
const QUERIES: [u32; 3] = [1, 4, 8];
/// Positions that are attended to.
const POSITIONS: usize = 256;
/// Tokens of the longer one of the passes that are measured.
const TOKENS: u32 = 64;
/// How long kernels are repeated, and passes and jobs, for the best time.
const REPEATING: Duration = Duration::from_millis(3);
const REPEATING_PASSES: Duration = Duration::from_millis(60);
/// Jobs between two looks at the clock, of so many tasks a core, each of so many steps.
const JOBS: u32 = 100;
const TASKS: usize = 4;
const TASK: usize = 500;

impl PassTimes {
    /// Seconds that a query head takes for a position, where so many share a key head: of widths
    /// between those that were measured in proportion.
    pub(crate) fn attention(&self, format: KvFormat, width: u32, group: u32) -> f64 {
        // As kernels take queries: 8 at once, then 4, then one by one.
        let group = group.clamp(1, 8);
        let [eights, fours, ones] = [group / 8, group % 8 / 4, group % 4];
        let of = |queries| self.attention_of(Kv::from(format), width, queries);
        let all = f64::from(eights) * 8.0 * of(8) + f64::from(fours) * 4.0 * of(4);
        (all + f64::from(ones) * of(1)) / f64::from(group)
    }

    fn attention_of(&self, format: Kv, width: u32, queries: u32) -> f64 {
        let of = |time: &&AttentionTime| (time.format, time.queries) == (format, queries);
        let is_whole = |width: u32| width.is_multiple_of(LANES as u32);
        let (whole, broken): (Vec<&AttentionTime>, Vec<&AttentionTime>) =
            self.attention.iter().filter(of).partition(|time| is_whole(time.width));
        let points: Vec<_> =
            whole.iter().map(|time| (f64::from(time.width), time.seconds)).collect();
        let seconds = on_line(&points, f64::from(width));
        let more = broken
            .first()
            .filter(|_| !is_whole(width))
            .map_or(0.0, |time| (time.seconds - on_line(&points, f64::from(time.width))).max(0.0));
        seconds + more
    }
}

/// The value at `x` of the line through the points around it; beyond the last, in proportion.
fn on_line(points: &[(f64, f64)], x: f64) -> f64 {
    let Some(after) = points.iter().position(|(at, _)| x <= *at) else {
        return points.last().map_or(0.0, |(at, y)| y * x / at);
    };
    let pair = points.get(after.max(1) - 1..=after.max(1));
    let Some([(from, at_from), (to, at_to)]) = pair else {
        return points.first().map_or(0.0, |(_, y)| *y);
    };
    (at_from + (at_to - at_from) * (x - from) / (to - from)).max(0.0)
}

/// Measures all of it.
///
/// # Errors
/// Threads or memory that can't be had, being cancelled.
pub(super) fn measure(products: &[Product], cores: usize, cancel: &Cancel) -> Result<PassTimes> {
    let mut times = PassTimes { job: picoseconds(job(cores, cancel)?), ..PassTimes::default() };
    let kernels = dispatch::fastest();
    for width in WIDTHS {
        for queries in QUERIES {
            cancel.check()?;
            let mut add = |format, seconds| {
                let seconds = picoseconds(seconds);
                times.attention.push(AttentionTime { format, width, queries, seconds });
            };
            let (width, queries) = (width as usize, queries as usize);
            add(Kv::F16, attention(kernels.attend_half, (0, &[]), width, queries));
            add(Kv::F32, attention(kernels.attend_single, (0.0, &[]), width, queries));
            add(Kv::Int8, attention(kernels.attend_int8, (0, &[1.0; POSITIONS]), width, queries));
        }
    }
    let [one, many] = Measured::new(products, &times, cancel)?;
    let element = (many.rest - one.rest) / (many.elements - one.elements) as f64;
    times.element = picoseconds(element.max(0.0));
    let operations = one.rest - times.element * one.elements as f64;
    times.operation = picoseconds(operations.max(0.0) / one.operations as f64);
    Ok(times)
}

/// Seconds in whole picoseconds: so few digits are read as they were written.
fn picoseconds(seconds: f64) -> f64 {
    (seconds * 1e12).round() / 1e12
}

/// Seconds of the best of many runs.
fn best(repeating: Duration, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < repeating {
        let began = Instant::now();
        run()?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Seconds by which a job on all cores takes longer than its part of that on one.
fn job(cores: usize, cancel: &Cancel) -> Result<f64> {
    let tasks = TASKS * cores;
    let work = |index| {
        black_box((0..TASK).fold(index, |sum, i| black_box(sum ^ i)));
    };
    let on = |threads| {
        let pool = Pool::new(threads);
        let jobs = best(REPEATING_PASSES, || {
            (0..JOBS).for_each(|_| pool.run(tasks, &work));
            cancel.check()
        });
        Ok::<_, Error>(jobs? / f64::from(JOBS))
    };
    Ok((on(cores)? - on(1)? / cores as f64).max(0.0))
}

/// Seconds that a query takes for a position, of keys and values that are all one number.
fn attention<T: Copy>(
    attend: Attend<T>,
    (number, scales): (T, &[f32]),
    width: usize,
    queries: usize,
) -> f64 {
    let keys = vec![[number; LANES]; POSITIONS / LANES * width];
    let values = vec![number; POSITIONS * width];
    let head = KvHead { width, keys: &keys, values: &values, scales: (scales, scales) };
    let (query, mut outs) = (vec![0.5; width], vec![0.0; queries * width]);
    let mut shown: Vec<_> = outs
        .chunks_exact_mut(width)
        .map(|out| Query { query: &query, out, softmax: Softmax::EMPTY })
        .collect();
    let seconds = best(REPEATING, || {
        attend(&head, 0..POSITIONS, Scaling { scale: 1.0, cap: 0.0 }, &mut shown);
        Ok(())
    });
    seconds.unwrap_or(0.0) / (POSITIONS * queries) as f64
}

/// A pass that was measured.
struct Measured {
    /// Seconds that it took besides products and attention.
    rest: f64,
    operations: usize,
    elements: u64,
}

impl Measured {
    /// A pass over one token, and one over [`TOKENS`], of a model that is nearly nothing but operations.
    fn new(products: &[Product], times: &PassTimes, cancel: &Cancel) -> Result<[Self; 2]> {
        let path = Path::new("measured");
        let model = RandomModel::with_config(path, config())?;
        let (compiled, index) = convert::outline(&model, Some(Precision::Int8), false)?;
        let failed = |error| Error::load(path, error);
        let space = 0..index.space();
        let program = Program::parse(&compiled.program, &compiled.tensors, space.clone());
        let (kernels, program) = (dispatch::fastest(), program.map_err(failed)?);
        let mut blank = Blank { bytes: vec![0; space.end as usize], page_size: index.page_size };
        let checksum = |page: &[u8]| (kernels.crc32c)(0, page).to_le_bytes();
        let checksums: Vec<_> =
            blank.bytes.chunks(index.page_size as usize).map(checksum).collect();
        let (end, plan) = (space.end, plan());
        let model =
            Model { program: program.clone(), plan, end, checksums: &checksums, first_checked: 0 };
        let bytes = model.layout(&blank).map_err(failed)?.total();
        let mut memory = zeros(bytes).unwrap_or_default();
        let pool = Pool::new(1);
        let engine = Engine::new(model, memory.as_mut_bytes(), &mut blank, kernels, &pool);
        let mut engine = engine.map_err(failed)?;
        let ids = vec![1; TOKENS as usize];
        let mut measure = |columns: u32| -> Result<Self> {
            let seconds = best(REPEATING_PASSES, || {
                engine.reset();
                let ids = ids.get(..columns as usize).unwrap_or_default();
                let failed = |error| Error::Run { path: path.to_owned(), error };
                engine.forward(ids, Wanted::Last).map_err(failed)?;
                cancel.check()
            })?;
            let pass = Pass { program: &program, plan: &plan, columns, position: 0 };
            Ok(Self::of(seconds, &pass, products, times))
        };
        Ok([measure(1)?, measure(TOKENS)?])
    }

    fn of(seconds: f64, pass: &Pass<'_>, products: &[Product], times: &PassTimes) -> Self {
        let mut measured = Self { rest: seconds, operations: 0, elements: 0 };
        for (op, layer) in pass.program.steps(RunPrecision::Full.parts()) {
            let work = pass.of(&op, layer);
            for (tensor, columns) in work.matrices {
                let what = (tensor.format, tensor.bytes());
                measured.rest -= compute::seconds(products, 1, what, columns, 1);
            }
            if let Some(of) = work.attention {
                let place = times.attention(of.shape.format, of.shape.width, of.group);
                measured.rest -= place * of.places as f64;
            }
            measured.operations += 1;
            measured.elements += work.elements;
        }
        measured
    }
}

fn config() -> Fields {
    let fields = [
        ("model_type", json!("llama")),
        ("hidden_size", json!(32)),
        ("intermediate_size", json!(64)),
        ("num_hidden_layers", json!(8)),
        // Few heads: what attention takes is measured apart, by blocks that here are never full.
        ("num_attention_heads", json!(2)),
        ("num_key_value_heads", json!(2)),
        ("head_dim", json!(8)),
        ("vocab_size", json!(64)),
        ("max_position_embeddings", json!(TOKENS)),
        ("rms_norm_eps", json!(1e-5)),
        ("tie_word_embeddings", json!(true)),
    ];
    fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

fn plan() -> Plan {
    Plan {
        columns: TOKENS,
        logit_columns: 1,
        kv_capacity: TOKENS,
        kv_sinks: 0,
        kv_format: KvFormat::Half,
        sequences: 1,
    }
}

/// Weights that are all zero: kernels take as long for any.
struct Blank {
    bytes: Vec<u8>,
    page_size: u32,
}

impl Pager for Blank {
    fn geometry(&self) -> PageGeometry {
        let pages = self.bytes.len().div_ceil(self.page_size as usize) as u32;
        PageGeometry { page_size: self.page_size, pages }
    }

    fn is_stable(&self, _: u32) -> bool {
        true
    }

    fn page(&mut self, page: u32) -> std::result::Result<&[u8], PageError> {
        let bytes = self.bytes.get(page as usize * self.page_size as usize..);
        let missing = PageError { page, kind: PageErrorKind::OutOfRange };
        bytes.filter(|bytes| !bytes.is_empty()).ok_or(missing)
    }

    fn discard(&mut self, _: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_lies_between_the_widths_and_the_queries_that_were_measured() {
        let time =
            |width, queries, seconds| AttentionTime { format: Kv::F16, width, queries, seconds };
        let attention = vec![
            time(8, 1, 1.0),
            time(12, 1, 4.5),
            time(16, 1, 2.0),
            time(8, 4, 0.5),
            time(16, 4, 1.0),
        ];
        let times = PassTimes { attention, ..PassTimes::default() };
        let of = |width, group| times.attention(KvFormat::Half, width, group);
        assert_eq!([8, 16, 32].map(|width| of(width, 1)), [1.0, 2.0, 4.0]);
        assert_eq!([12, 20].map(|width| of(width, 1)), [1.5 + 3.0, 2.5 + 3.0]);
        assert_eq!([4, 6].map(|group| of(8, group)), [0.5, (4.0 * 0.5 + 2.0) / 6.0]);
        assert_eq!(times.attention(KvFormat::Int8, 8, 1), 0.0, "not measured");
    }
}

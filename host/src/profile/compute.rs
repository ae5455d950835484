//! How long products with weights take.

use super::memory::uncached;
use crate::cancel::Cancel;
use crate::pool::Pool;
use crate::quantize::Precision;
use crate::{Result, dispatch};
use omex_core::quant::{Format, GROUP, PANEL, QuantizedGroup};
use omex_core::simd::{FEW_COLUMNS, MAX_COLUMNS, MAX_PANELS, PanelDot};
use omex_hal::Parallel;
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Seconds that products with a GiB of weights take: kernels only, without attention, norms and
/// the quantizing of activations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// The weights' format.
    pub format: Precision,
    /// Activations that the weights meet in one pass.
    pub columns: u32,
    /// On one thread.
    pub one_thread: SecondsPerGib,
    /// On a thread for each core.
    pub all_threads: SecondsPerGib,
}

impl Product {
    /// Seconds a GiB on some of the machine's cores: speed grows in proportion between one and all.
    fn seconds_per_gib(&self, threads: usize, cores: usize, cached: bool) -> f64 {
        let of = |at: SecondsPerGib| if cached { at.from_cache } else { at.from_memory };
        let (one, all) = (of(self.one_thread), of(self.all_threads));
        let threads = threads.clamp(1, cores.max(1));
        let part = (threads - 1) as f64 / cores.saturating_sub(1).max(1) as f64;
        1.0 / (1.0 / one + part * (1.0 / all - 1.0 / one))
    }
}

/// Seconds a GiB of weights, by where these lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecondsPerGib {
    /// In the caches of the cores: at most [`CACHED_BYTES`] for each thread.
    pub from_cache: f64,
    /// In memory.
    pub from_memory: f64,
}

/// Bytes of weights that the cache of any core holds.
pub const CACHED_BYTES: usize = 128 << 10;

/// Columns that are measured.
const COLUMNS: [u32; 5] = [1, 4, 8, 16, 64];
/// How long a product is repeated, for the best time.
const REPEATING: Duration = Duration::from_millis(40);
/// Bytes of weights times columns between two looks at the clock, for each thread.
const WORK: usize = 16 << 20;
/// Blocks of a panel.
const BLOCKS: usize = 32;
const GIB: f64 = (1 << 30) as f64;

/// Measures products with every format of matrices, on one thread and on all.
///
/// # Errors
/// Threads or memory that can't be had, being cancelled.
pub(super) fn products(cores: usize, cancel: &Cancel) -> Result<Vec<Product>> {
    let (weights, one, all) = (uncached()?, Pool::new(1), Pool::new(cores));
    let mut products = vec![];
    for format in [Precision::F32, Precision::F16, Precision::Int8, Precision::Int4] {
        for columns in COLUMNS {
            let seconds = |pool| {
                let columns = columns as usize;
                Measure { pool, weights: &weights, format, columns, cancel }.seconds()
            };
            products.push(Product {
                format,
                columns,
                one_thread: seconds(&one)?,
                all_threads: seconds(&all)?,
            });
        }
    }
    Ok(products)
}

struct Measure<'m> {
    pool: &'m Pool,
    weights: &'m [u8],
    format: Precision,
    columns: usize,
    cancel: &'m Cancel,
}

impl Measure<'_> {
    fn seconds(&self) -> Result<SecondsPerGib> {
        let integers = QuantizedGroup { quads: [[3; 4]; GROUP / 4], scale: 0.1, int4_offset: -768 };
        let floats = [0.5; GROUP];
        let kernels = dispatch::fastest();
        let tile = kernels.tile(self.columns).columns();
        match self.format {
            Precision::Int4 => self.of_kernel(kernels.int4, tile, integers),
            Precision::Int8 => self.of_kernel(kernels.int8, tile, integers),
            Precision::F16 => self.of_kernel(kernels.float16, FEW_COLUMNS, floats),
            Precision::F32 | Precision::Vector | Precision::Channels => {
                self.of_kernel(kernels.float32, FEW_COLUMNS, floats)
            }
        }
    }

    /// Measures a kernel that takes so many columns at once.
    fn of_kernel<X: Copy + Sync>(
        &self,
        dot: PanelDot<X>,
        tile: usize,
        x: X,
    ) -> Result<SecondsPerGib> {
        let x = vec![x; BLOCKS * self.columns];
        let panels = MAX_PANELS * BLOCKS * Format::from(self.format).unit_bytes();
        let pieces: Vec<_> = self.weights.chunks_exact(CACHED_BYTES / panels * panels).collect();
        let multiply = |piece: &[u8]| {
            let panels = piece.chunks_exact(panels);
            panels.for_each(|panels| multiply(dot, panels, &x, tile));
        };
        let count = (WORK / self.columns / CACHED_BYTES).max(1) * self.pool.cores();
        let same = vec![pieces.first().copied().unwrap_or_default(); count];
        Ok(SecondsPerGib {
            from_cache: self.best_of_runs(&same, count, &multiply)?,
            from_memory: self.best_of_runs(&pieces, count, &multiply)?,
        })
    }

    /// Seconds a GiB of the best of several runs, each over the next `count` pieces.
    fn best_of_runs(
        &self,
        pieces: &[&[u8]],
        count: usize,
        multiply: &(dyn Fn(&[u8]) + Sync),
    ) -> Result<f64> {
        let (start, mut best) = (Instant::now(), f64::INFINITY);
        for run in pieces.chunks_exact(count.min(pieces.len()).max(1)).cycle() {
            let began = Instant::now();
            self.pool.run(run.len(), &|piece| {
                run.get(piece).into_iter().for_each(|piece| multiply(piece));
            });
            let bytes: usize = run.iter().map(|piece| piece.len()).sum();
            best = best.min(began.elapsed().as_secs_f64() / bytes as f64 * GIB);
            self.cancel.check()?;
            if start.elapsed() > REPEATING {
                break;
            }
        }
        Ok(best)
    }
}

/// Multiplies [`MAX_PANELS`] panels with activations, tile by tile as the core does.
fn multiply<X>(dot: PanelDot<X>, panels: &[u8], x: &[X], columns: usize) {
    for tile in x.chunks(BLOCKS * columns) {
        let width = tile.len() / BLOCKS;
        let mut sums = [[0.0; PANEL]; MAX_COLUMNS * MAX_PANELS];
        dot(panels, tile, width, sums.get_mut(..width * MAX_PANELS).unwrap_or_default());
        black_box(sums);
    }
}

/// Seconds that products with `bytes` of weights take: in proportion between the columns that were
/// measured, and beyond the last of them.
pub(super) fn seconds(
    products: &[Product],
    cores: usize,
    (format, bytes): (Format, u64),
    columns: u32,
    threads: usize,
) -> f64 {
    let format =
        if matches!(format, Format::Vector | Format::Channels) { Format::F32 } else { format };
    let cached = bytes <= (CACHED_BYTES * threads) as u64;
    let gib = bytes as f64 / GIB;
    let columns = f64::from(columns.max(1));
    let mut before: Option<(f64, f64)> = None;
    for product in products.iter().filter(|product| Format::from(product.format) == format) {
        let measured = f64::from(product.columns);
        let seconds = gib * product.seconds_per_gib(threads, cores, cached);
        if columns <= measured {
            let (from, at_from) = before.unwrap_or((0.0, seconds));
            return at_from + (seconds - at_from) * (columns - from) / (measured - from);
        }
        before = Some((measured, seconds));
    }
    before.map_or(0.0, |(measured, seconds)| seconds * columns / measured)
}

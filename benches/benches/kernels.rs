//! Bytes of weights a second through each kernel, beside a plain read of the same memory.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};
use criterion::{criterion_group, criterion_main};
use omex::dispatch;
use omex_core::quant::{GROUP, PANEL, QuantizedGroup, float16, float32, int4, int8};
use omex_core::simd::{FEW_COLUMNS, Kernels, MAX_COLUMNS, MAX_PANELS, PanelDot};
use std::hint::black_box;
use std::time::Duration;

/// Blocks a panel, of a matrix with 2048 columns.
const BLOCKS: usize = 2048 / GROUP;
/// Weights that stay in a core's cache, and weights that come from memory each time.
const SIZES: [(&str, usize); 2] = [("cache", 256 << 10), ("memory", 96 << 20)];

fn kernels(criterion: &mut Criterion) {
    // Small ordinary numbers in every format.
    let memory = vec![0x3c; SIZES[1].1];
    for (place, bytes) in SIZES {
        let weights = &memory[..bytes];
        let mut group = criterion.benchmark_group(place);
        group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("plain read", |bencher| bencher.iter(|| sum(black_box(weights))));
        for table @ Kernels { name, int4, int8, float16, float32, .. } in dispatch::available() {
            let mut bench = Bench { group: &mut group, weights, table: name };
            let x = QuantizedGroup { quads: [[3; 4]; GROUP / 4], scale: 0.1, int4_offset: -768 };
            let most = table.tile(usize::MAX).columns();
            bench.kernel("int4", *int4, most, x, int4::BLOCK_BYTES);
            bench.kernel("int8", *int8, most, x, int8::BLOCK_BYTES);
            bench.kernel("f16", *float16, FEW_COLUMNS, [0.5; GROUP], float16::BLOCK_BYTES);
            bench.kernel("f32", *float32, FEW_COLUMNS, [0.5; GROUP], float32::BLOCK_BYTES);
        }
        group.finish();
    }
}

/// What the machine can do at most: adds up all words.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>().0;
    words.iter().fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
}

struct Bench<'b, 'c> {
    group: &'b mut BenchmarkGroup<'c, WallTime>,
    weights: &'b [u8],
    table: &'static str,
}

impl Bench<'_, '_> {
    /// Multiplies the weights, as blocks of a format, with one column and with as many as go.
    fn kernel<X: Copy>(
        &mut self,
        format: &str,
        dot: PanelDot<X>,
        most: usize,
        x: X,
        block_bytes: usize,
    ) {
        let (weights, table) = (self.weights, self.table);
        for columns in [1, 4, most] {
            let x = vec![x; BLOCKS * columns];
            self.group.bench_function(format!("{table} {format} x{columns}"), |bencher| {
                bencher.iter(|| {
                    for panels in black_box(weights).chunks(MAX_PANELS * BLOCKS * block_bytes) {
                        let mut sums = [[0.0; PANEL]; MAX_COLUMNS * MAX_PANELS];
                        dot(panels, black_box(&x), columns, &mut sums[..columns * MAX_PANELS]);
                        black_box(sums);
                    }
                });
            });
        }
    }
}

/// Few and short measurements: all of them take about two minutes.
fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .nresamples(1000)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = quick(); targets = kernels }
criterion_main!(benches);

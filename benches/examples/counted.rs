//! One hot loop by name, between two calls that an instruction counter looks for:
//! `cargo xtask instructions` runs it under callgrind. Without a name it lists them all.

use omex::dispatch;
use omex_core::quant::{GROUP, PANEL, QuantizedGroup, float16, float32, int4, int8};
use omex_core::simd::{Attend, Kernels, KvHead, LANES, PanelDot, Query, Scaling, Softmax};
use std::hint::black_box;

/// Blocks a panel.
const BLOCKS: usize = 64;
/// Positions and head width of an attention.
const POSITIONS: usize = 256;
const WIDTH: usize = 64;

type Work = Box<dyn Fn()>;

fn main() {
    let works = dispatch::available()
        .into_iter()
        .filter(|t| !matches!(t.name, "avx512" | "amx"))
        .flat_map(works);
    match std::env::args().nth(1) {
        None => works.for_each(|(name, _)| println!("{name}")),
        Some(wanted) => match works.into_iter().find(|(name, _)| *name == wanted) {
            Some((_, work)) => counted(&work),
            None => std::process::exit(2),
        },
    }
}

/// Callgrind counts what happens in here.
#[inline(never)]
fn counted(work: &Work) {
    work();
}

/// The loops of one table: a panel by one column and by four, a group, a query head.
fn works(kernels: &'static Kernels) -> Vec<(String, Work)> {
    let x = QuantizedGroup { quads: [[3; 4]; GROUP / 4], scale: 0.1, int4_offset: -768 };
    let name = kernels.name;
    let mut works = vec![];
    for columns in [1, 4] {
        works.push((
            format!("{name}/int4x{columns}"),
            dot(kernels.int4, x, int4::BLOCK_BYTES, columns),
        ));
        works.push((
            format!("{name}/int8x{columns}"),
            dot(kernels.int8, x, int8::BLOCK_BYTES, columns),
        ));
        let x = [0.5; GROUP];
        let bytes = float16::BLOCK_BYTES;
        works.push((format!("{name}/f16x{columns}"), dot(kernels.float16, x, bytes, columns)));
        let bytes = float32::BLOCK_BYTES;
        works.push((format!("{name}/f32x{columns}"), dot(kernels.float32, x, bytes, columns)));
    }
    let quantize = move || {
        black_box((kernels.quantize)(black_box(&[0.5; GROUP])));
    };
    works.push((format!("{name}/quantize"), Box::new(quantize)));
    works.push((format!("{name}/attend"), attend(kernels.attend_half, 0x3c00, &[])));
    works.push((
        format!("{name}/attend_int8"),
        attend(kernels.attend_int8, 100, &[0.01; POSITIONS]),
    ));
    works
}

fn dot<X: Copy + 'static>(dot: PanelDot<X>, x: X, block_bytes: usize, columns: usize) -> Work {
    let (blocks, x) = (vec![0x3c; BLOCKS * block_bytes], vec![x; BLOCKS * columns]);
    Box::new(move || {
        let mut sums = [[0.0; PANEL]; 4];
        dot(black_box(&blocks), black_box(&x), columns, &mut sums[..columns]);
        black_box(sums);
    })
}

/// A query over a cache whose numbers are all one.
fn attend<T: Copy + 'static>(attend: Attend<T>, one: T, scales: &'static [f32]) -> Work {
    let (keys, values) =
        (vec![[one; LANES]; POSITIONS / LANES * WIDTH], vec![one; POSITIONS * WIDTH]);
    let query = [0.1; WIDTH];
    Box::new(move || {
        let head = KvHead { width: WIDTH, keys: &keys, values: &values, scales: (scales, scales) };
        let mut out = [0.0; WIDTH];
        let mut queries = [Query { query: &query, out: &mut out, softmax: Softmax::EMPTY }];
        attend(black_box(&head), 0..POSITIONS, Scaling { scale: 0.125, cap: 0.0 }, &mut queries);
        black_box(queries[0].softmax.total());
    })
}

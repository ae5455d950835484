//! Activation functions.

use super::{Columns, ColumnsMut};
use crate::math::exp;
use crate::program::Activation;
use crate::rows::share_rows;
use omex_hal::Parallel;

/// Fewer activations than this are not worth waking another core.
const TASK: usize = 16 << 10;
/// Floats of a cache line: tasks do not share one.
const LINE: usize = 16;

/// `output` = activation(`gate`) * `up`, elementwise.
pub(crate) fn gated(
    activation: Activation,
    gate: Columns<'_>,
    up: Columns<'_>,
    mut output: ColumnsMut<'_>,
    columns: usize,
    parallel: &dyn Parallel,
) {
    let Activation::Silu = activation;
    let rows = 0..output.width;
    let tasks = if rows.len() * columns < TASK { 1 } else { parallel.cores() };
    let per_task = rows.len().div_ceil(tasks.max(1)).next_multiple_of(LINE);
    share_rows(parallel, &mut output, rows, per_task, &|mut rows| {
        let range = rows.range();
        for c in 0..columns {
            let [gate, up] = [gate, up].map(|x| x.column(c).get(range.clone()).unwrap_or_default());
            for (y, (gate, up)) in rows.column(c).iter_mut().zip(gate.iter().zip(up)) {
                *y = gate / (1.0 + exp(-gate)) * up;
            }
        }
    });
}

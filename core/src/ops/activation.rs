//! Activation functions.

use crate::columns::{Columns, ColumnsMut};
use crate::math::{exp, tanh};
use crate::rows::share_rows;
use crate::simd::Kernels;
use omex_hal::Parallel;
use serde::{Deserialize, Serialize};

/// An activation function. They are only ever appended: their order is the encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x.
    Identity,
    /// x / (1 + exp(-x)), also called swish.
    #[default]
    Silu,
    /// x (1 + erf(x / √2)) / 2 (arXiv:1606.08415).
    Gelu,
    /// x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// tanh(x).
    Tanh,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// x / (1 + exp(-1.702 x)) (arXiv:1606.08415).
    QuickGelu,
}

impl Activation {
    /// True if this build plays it.
    pub(super) fn is_played(self) -> bool {
        cfg!(feature = "float") || self == Self::Silu
    }
}

/// Fewer activations than this are not worth waking another core.
const TASK: usize = 16 << 10;
/// Floats of a cache line: tasks do not share one.
const LINE: usize = 16;

/// `output` = activation(gate) · up, or activation(`output`) without both.
pub(super) fn elementwise(
    activation: Activation,
    inputs: Option<(Columns<'_>, Columns<'_>)>,
    output: &mut ColumnsMut<'_>,
    kernels: &Kernels,
    parallel: &dyn Parallel,
) {
    #[cfg(not(feature = "float"))]
    let _ = kernels;
    match activation {
        Activation::Silu => apply(|x| x / (1.0 + exp(-x)), inputs, output, parallel),
        // Without the feature, `Activation::is_played` has refused the others.
        _ if !cfg!(feature = "float") => {}
        Activation::Identity => apply(|x| x, inputs, output, parallel),
        Activation::Gelu => {
            #[cfg(feature = "float")]
            apply_to_all(kernels.gelu, inputs, output, parallel);
        }
        Activation::GeluTanh => {
            #[cfg(feature = "float")]
            apply_to_all(kernels.gelu_tanh, inputs, output, parallel);
        }
        Activation::Relu => apply(|x| if x > 0.0 { x } else { 0.0 }, inputs, output, parallel),
        Activation::Tanh => apply(tanh, inputs, output, parallel),
        Activation::Sigmoid => apply(|x| 1.0 / (1.0 + exp(-x)), inputs, output, parallel),
        Activation::QuickGelu => apply(|x| x / (1.0 + exp(-1.702 * x)), inputs, output, parallel),
    }
}

fn apply(
    f: impl Fn(f32) -> f32 + Sync,
    inputs: Option<(Columns<'_>, Columns<'_>)>,
    output: &mut ColumnsMut<'_>,
    parallel: &dyn Parallel,
) {
    share(inputs, output, parallel, &|inputs, y| match inputs {
        None => y.iter_mut().for_each(|y| *y = f(*y)),
        Some([gate, up]) => {
            for (y, (gate, up)) in y.iter_mut().zip(gate.iter().zip(up)) {
                *y = f(*gate) * up;
            }
        }
    });
}

/// As [`apply`], of what is computed for many numbers at once.
#[cfg(feature = "float")]
fn apply_to_all(
    f: fn(&mut [f32]),
    inputs: Option<(Columns<'_>, Columns<'_>)>,
    output: &mut ColumnsMut<'_>,
    parallel: &dyn Parallel,
) {
    share(inputs, output, parallel, &|inputs, y| {
        let Some([gate, up]) = inputs else { return f(y) };
        y.iter_mut().zip(gate).for_each(|(y, gate)| *y = *gate);
        f(y);
        y.iter_mut().zip(up).for_each(|(y, up)| *y *= up);
    });
}

/// Shares an output out over the cores: `fill` is given some rows of a column, and the same of gate and up.
fn share(
    inputs: Option<(Columns<'_>, Columns<'_>)>,
    output: &mut ColumnsMut<'_>,
    parallel: &dyn Parallel,
    fill: &(impl Fn(Option<[&[f32]; 2]>, &mut [f32]) + Sync),
) {
    let (rows, columns) = (0..output.width, output.count);
    let tasks = if rows.len() * columns < TASK { 1 } else { parallel.cores() };
    let per_task = rows.len().div_ceil(tasks.max(1)).next_multiple_of(LINE);
    share_rows(parallel, output, rows, per_task, &|mut rows| {
        let range = rows.range();
        for c in 0..columns {
            let inputs = inputs.map(|(gate, up)| {
                [gate, up].map(|x| x.column(c).get(range.clone()).unwrap_or_default())
            });
            fill(inputs, rows.column(c));
        }
    });
}

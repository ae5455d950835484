//! Gated activations (arXiv:2002.05202).

use super::activate::{gelu, gelu_tanh};
use super::{Activation, Columns, ColumnsMut, Form, Numbers, Operation, operands};
use crate::engine::Player;
use crate::error::{Fault, RunError};
use crate::math::{exp, tanh};
use crate::program::Check;
use crate::rows::share_rows;
use omex_hal::Parallel;
use serde::{Deserialize, Serialize};

/// `output` = activation(`gate`) · `up`, elementwise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Gated<F: Form = Numbers> {
    /// The activation.
    pub activation: Activation,
    /// What is activated.
    pub gate: F::Value,
    /// What it is multiplied with.
    pub up: F::Value,
    /// The result, apart from both.
    pub output: F::Value,
}

operands!(Gated { read gate, read up, write output; activation });

impl Operation for Gated {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.floats(&[self.gate, self.up, self.output])?;
        check.that(self.activation.is_played())?;
        check.equal(self.gate.width, self.output.width)?;
        check.equal(self.up.width, self.output.width)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let parallel = player.parallel;
        let ([gate, up], mut output) = player.values([self.gate, self.up], self.output)?;
        elementwise(self.activation, Some((gate, up)), &mut output, parallel);
        Ok(())
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
    parallel: &dyn Parallel,
) {
    match activation {
        Activation::Silu => apply(|x| x / (1.0 + exp(-x)), inputs, output, parallel),
        // Without the feature, `Activation::is_played` has refused the others.
        _ if !cfg!(feature = "float") => {}
        Activation::Identity => apply(|x| x, inputs, output, parallel),
        Activation::Gelu => apply(gelu, inputs, output, parallel),
        Activation::GeluTanh => apply(gelu_tanh, inputs, output, parallel),
        Activation::Relu => apply(|x| if x > 0.0 { x } else { 0.0 }, inputs, output, parallel),
        Activation::Tanh => apply(tanh, inputs, output, parallel),
        Activation::Sigmoid => apply(|x| 1.0 / (1.0 + exp(-x)), inputs, output, parallel),
    }
}

fn apply(
    f: impl Fn(f32) -> f32 + Sync,
    inputs: Option<(Columns<'_>, Columns<'_>)>,
    output: &mut ColumnsMut<'_>,
    parallel: &dyn Parallel,
) {
    let (rows, columns) = (0..output.width, output.count);
    let tasks = if rows.len() * columns < TASK { 1 } else { parallel.cores() };
    let per_task = rows.len().div_ceil(tasks.max(1)).next_multiple_of(LINE);
    share_rows(parallel, output, rows, per_task, &|mut rows| {
        let range = rows.range();
        for c in 0..columns {
            let y = rows.column(c);
            let Some((gate, up)) = inputs else {
                y.iter_mut().for_each(|y| *y = f(*y));
                continue;
            };
            let [gate, up] = [gate, up].map(|x| x.column(c).get(range.clone()).unwrap_or_default());
            for (y, (gate, up)) in y.iter_mut().zip(gate.iter().zip(up)) {
                *y = f(*gate) * up;
            }
        }
    });
}

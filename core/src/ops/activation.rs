//! Activation functions.

use super::{Columns, ColumnsMut};
use crate::math::exp;
use crate::program::Activation;

/// `output` = activation(`gate`) * `up`, elementwise.
pub(crate) fn gated(
    activation: Activation,
    gate: Columns<'_>,
    up: Columns<'_>,
    mut output: ColumnsMut<'_>,
    columns: usize,
) {
    let Activation::Silu = activation;
    for c in 0..columns {
        let inputs = gate.column(c).iter().zip(up.column(c));
        for (y, (gate, up)) in output.column(c).iter_mut().zip(inputs) {
            *y = gate / (1.0 + exp(-gate)) * up;
        }
    }
}

//! Normalization: RMSNorm (arXiv:1910.07467) and LayerNorm (arXiv:1607.06450).

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::{Combine, Player};
use crate::error::{Fault, RunError};
use crate::math::{sqrt, sum_lanes};
use crate::program::{Check, PerLayer};
use serde::{Deserialize, Serialize};

/// How a value is normalized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// x / sqrt(mean(x²) + epsilon).
    #[default]
    Rms,
    /// (x - mean(x)) / sqrt(mean((x - mean(x))²) + epsilon).
    Layer,
}

/// `output` = `input` normalized · `weight` + `bias`, piece by piece (a norm for each head).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Norm<F: Form = Numbers> {
    /// Vector [width of a piece], or [width of the value].
    pub weight: F::Name,
    /// Vector of either length, added at last.
    #[serde(default)]
    pub bias: Option<F::Name>,
    /// What is normalized.
    pub input: F::Value,
    /// The result: apart from the input, or the same value.
    pub output: F::Value,
    /// Added to the mean of the squares.
    pub epsilon: f32,
    /// How.
    #[serde(default)]
    pub kind: NormKind,
    /// Width of a piece; 0 for the whole value.
    #[serde(default)]
    pub group: u32,
}

operands!(Norm { weight weight, maybe_weight bias, source input, write output; epsilon, kind, group });

impl Norm {
    fn piece(&self) -> u32 {
        if self.group == 0 { self.output.width } else { self.group }
    }

    /// Numbers of a vector: one for each of the value, or of a piece.
    fn length(&self, check: &Check<'_>, vector: PerLayer) -> u32 {
        let width = self.output.width;
        let whole = cfg!(feature = "float") && check.vector(vector, width).is_ok();
        if whole { width } else { self.piece() }
    }
}

impl Operation for Norm {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.floats(&[self.input, self.output])?;
        check.equal(self.input.width, self.output.width)?;
        check.that(cfg!(feature = "float") || self.kind == NormKind::Rms)?;
        check.that(self.epsilon.is_finite() && self.epsilon >= 0.0)?;
        check.that(self.output.width.is_multiple_of(self.piece().max(1)))?;
        check.vector(self.weight, self.length(check, self.weight))?;
        self.bias.map_or(Ok(()), |bias| check.vector(bias, self.length(check, bias)))
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let piece = (self.piece() as usize).max(1);
        let (input, mut output) = player.source(self.input, self.output)?;
        for c in 0..output.count {
            let y = output.column(c);
            if let Some(input) = input {
                y.iter_mut().zip(input.column(c)).for_each(|(y, x)| *y = *x);
            }
            y.chunks_mut(piece).for_each(|piece| normalize(piece, self.kind, self.epsilon));
        }
        player.with_vector(self.weight, layer, self.output, Combine::Multiply)?;
        match self.bias {
            Some(bias) => player.with_vector(bias, layer, self.output, Combine::Add),
            None => Ok(()),
        }
    }
}

fn normalize(x: &mut [f32], kind: NormKind, epsilon: f32) {
    if cfg!(feature = "float") && kind == NormKind::Layer {
        let mean = mean_of(x, |x| x);
        x.iter_mut().for_each(|x| *x -= mean);
    }
    let factor = 1.0 / sqrt(mean_of(x, |x| x * x) + epsilon);
    x.iter_mut().for_each(|x| *x *= factor);
}

/// The mean, added in eight lanes, then the lanes as a tree.
fn mean_of(x: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; 8];
    for eight in x.chunks(8) {
        for (lane, x) in lanes.iter_mut().zip(eight) {
            *lane += of(*x);
        }
    }
    sum_lanes(lanes) / x.len() as f32
}

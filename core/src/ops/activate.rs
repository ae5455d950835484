//! Activation functions.

use super::{Form, Numbers, Operation, operands};
use crate::engine::Player;
use crate::error::{Fault, RunError};
use crate::math::{erf, tanh};
use crate::program::Check;
use serde::{Deserialize, Serialize};

/// An activation function. They are only ever appended: their order is the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x.
    Identity,
    /// x / (1 + exp(-x)), also called swish.
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
}

impl Activation {
    /// True if this build plays it.
    pub(super) fn is_played(self) -> bool {
        cfg!(feature = "float") || self == Self::Silu
    }
}

/// √(2/π).
const GELU: f32 = 0.797_884_6;

pub(super) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * core::f32::consts::FRAC_1_SQRT_2))
}

pub(super) fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(GELU * (x + 0.044_715 * x * x * x)))
}

/// `value` = activation(`value`), elementwise, in place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Activate<F: Form = Numbers> {
    /// The activation.
    pub activation: Activation,
    /// What is activated.
    pub value: F::Value,
}

operands!(Activate { update value; activation });

impl Operation for Activate {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.floats(&[self.value]).map(|_| ())
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let parallel = player.parallel;
        let ([], mut value) = player.values([], self.value)?;
        super::gated::elementwise(self.activation, None, &mut value, parallel);
        Ok(())
    }
}

//! Functions of a value, element by element.

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::math::{erf, exp, softplus};
use crate::program::{Check, Per};
use serde::{Deserialize, Serialize};

/// A function of a number. They are only ever appended: their order is the encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UnaryFunction {
    /// exp(x).
    #[default]
    Exp,
    /// The natural logarithm of x.
    Log,
    /// √x.
    Sqrt,
    /// |x|.
    Abs,
    /// 1 / x.
    Reciprocal,
    /// x · min(max(x + 3, 0), 6) / 6 (arXiv:1905.02244).
    HardSwish,
    /// The error function of x.
    Erf,
    /// ln(1 + exp(x)).
    Softplus,
    /// The largest whole number that is not above x.
    Floor,
    /// The smallest whole number that is not below x.
    Ceil,
    /// The nearest whole number, halves to the even one.
    Round,
    /// exp(x) - 1 where x is negative, else x (arXiv:1511.07289).
    Elu,
    /// sin(x).
    Sin,
    /// cos(x).
    Cos,
}

/// `value` = function(`value`), elementwise, in place. Floats with one column.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Unary<F: Form = Numbers> {
    /// The function.
    pub function: UnaryFunction,
    /// What becomes it.
    pub value: F::Value,
}

operands!(Unary { update value; function });

impl Operation for Unary {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.that(check.floats(&[self.value])? == Per::Pass)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let ([], value) = player.values([], self.value)?;
        let values = value.into_column(0);
        match self.function {
            UnaryFunction::Exp => apply(values, exp_of_any),
            UnaryFunction::Log => apply(values, libm::logf),
            UnaryFunction::Sqrt => apply(values, libm::sqrtf),
            UnaryFunction::Abs => apply(values, libm::fabsf),
            UnaryFunction::Reciprocal => apply(values, |x| 1.0 / x),
            UnaryFunction::HardSwish => apply(values, |x| x * six(x + 3.0) / 6.0),
            UnaryFunction::Erf => apply(values, erf),
            UnaryFunction::Softplus => apply(values, softplus),
            UnaryFunction::Floor => apply(values, libm::floorf),
            UnaryFunction::Ceil => apply(values, libm::ceilf),
            UnaryFunction::Round => apply(values, libm::rintf),
            UnaryFunction::Elu => apply(values, |x| if x < 0.0 { libm::expm1f(x) } else { x }),
            UnaryFunction::Sin => apply(values, libm::sinf),
            UnaryFunction::Cos => apply(values, libm::cosf),
        }
        Ok(())
    }
}

fn apply(values: &mut [f32], function: impl Fn(f32) -> f32) {
    values.iter_mut().for_each(|x| *x = function(*x));
}

/// e to any power, where [`exp`] has limits.
fn exp_of_any(x: f32) -> f32 {
    if (-87.0..=88.0).contains(&x) { exp(x) } else { libm::expf(x) }
}

/// x between 0 and 6.
fn six(x: f32) -> f32 {
    let x = if x < 0.0 { 0.0 } else { x };
    if x > 6.0 { 6.0 } else { x }
}

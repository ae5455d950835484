//! Functions of two values, element by element.

use super::rearrange::{check_count, check_steps, for_each_row};
use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::{Check, Per};
use serde::{Deserialize, Serialize};

/// Axes along which operands may be repeated.
pub const BROADCAST_AXES: usize = 4;

/// A function of two numbers. They are only ever appended: their order is the encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BinaryFunction {
    /// x + y.
    #[default]
    Add,
    /// x - y.
    Subtract,
    /// x · y.
    Multiply,
    /// x / y.
    Divide,
    /// The larger of both; NaN of either stays.
    Max,
    /// The smaller of both; NaN of either stays.
    Min,
    /// x to the power y.
    Power,
    /// x, or x · y where it is negative.
    LeakyRelu,
}

/// `output`[i] = function(`first`[Σ i_a · `first_steps`_a], `second`[Σ i_a · `second_steps`_a]) for all
/// indices i_a below `dims`_a, whose elements lie in order in the output. Floats with one column.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Binary<F: Form = Numbers> {
    /// The function.
    pub function: BinaryFunction,
    /// x.
    pub first: F::Value,
    /// y.
    pub second: F::Value,
    /// The result, apart from both.
    pub output: F::Value,
    /// Dimensions of the result, the outermost first.
    pub dims: [u32; BROADCAST_AXES],
    /// How far apart neighbours along an axis lie in x; 0 repeats.
    pub first_steps: [i32; BROADCAST_AXES],
    /// And in y.
    pub second_steps: [i32; BROADCAST_AXES],
}

operands!(Binary {
    read first, read second, write output; function, dims, first_steps, second_steps
});

impl Operation for Binary {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.that(check.floats(&[self.first, self.second, self.output])? == Per::Pass)?;
        check_count(check, self.dims)?;
        check_steps(check, self.dims, self.first_steps, 0, self.first.width)?;
        check_steps(check, self.dims, self.second_steps, 0, self.second.width)?;
        check.equal(self.dims.iter().product(), self.output.width)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        match self.function {
            BinaryFunction::Add => self.apply(player, |x, y| x + y),
            BinaryFunction::Subtract => self.apply(player, |x, y| x - y),
            BinaryFunction::Multiply => self.apply(player, |x, y| x * y),
            BinaryFunction::Divide => self.apply(player, |x, y| x / y),
            BinaryFunction::Max => {
                self.apply(player, |x, y| if x > y || x.is_nan() { x } else { y })
            }
            BinaryFunction::Min => {
                self.apply(player, |x, y| if x < y || x.is_nan() { x } else { y })
            }
            BinaryFunction::Power => self.apply(player, libm::powf),
            BinaryFunction::LeakyRelu => self.apply(player, |x, y| if x < 0.0 { x * y } else { x }),
        }
    }
}

impl Binary {
    fn apply(
        &self,
        player: &mut Player<'_>,
        function: impl Fn(f32, f32) -> f32,
    ) -> Result<(), RunError> {
        let ([first, second], mut output) =
            player.values([self.first, self.second], self.output)?;
        let (first, second) = (first.column(0), second.column(0));
        let [.., count] = self.dims.map(|dim| dim as usize);
        let steps = [self.first_steps, self.second_steps];
        let ([.., x_step], [.., y_step]) = (self.first_steps, self.second_steps);
        let mut rows = output.column(0).chunks_exact_mut(count.max(1));
        for_each_row(self.dims, steps, [0, 0], |[x, y]| {
            let Some(out) = rows.next() else { return };
            let (xs, ys) = (first.get(x as usize..), second.get(y as usize..));
            let (xs, ys) = (xs.unwrap_or_default(), ys.unwrap_or_default());
            match (x_step, y_step) {
                (1, 1) => {
                    let pairs = xs.iter().zip(ys);
                    out.iter_mut().zip(pairs).for_each(|(out, (x, y))| *out = function(*x, *y));
                }
                (1, 0) => {
                    let y = ys.first().copied().unwrap_or_default();
                    out.iter_mut().zip(xs).for_each(|(out, x)| *out = function(*x, y));
                }
                _ => {
                    let (mut x, mut y) = (x, y);
                    for out in out {
                        let number = |values: &[f32], place: isize| {
                            values.get(place as usize).copied().unwrap_or_default()
                        };
                        *out = function(number(first, x), number(second, y));
                        x += x_step as isize;
                        y += y_step as isize;
                    }
                }
            }
        });
        Ok(())
    }
}

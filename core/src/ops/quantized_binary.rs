//! Functions of two values of signed bytes, as TensorFlow Lite's reference kernels compute them
//! (arXiv:1712.05877).

use super::quantized_add::SHIFT;
use super::rearrange::{check_count, check_steps, for_each_row};
use super::{BROADCAST_AXES, Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::fixed_point::multiply_by_quantized_multiplier;
use crate::program::{Check, Dtype, Per};
use serde::{Deserialize, Serialize};

/// A function of two bytes. They are only ever appended: their order is the encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum QuantizedFunction {
    /// clamp(zero + scale · (scale_1 · 2^20 · (x - zero_1) - scale_2 · 2^20 · (y - zero_2))).
    #[default]
    Subtract,
    /// clamp(zero + scale · (x - zero_1) · (y - zero_2)).
    Multiply,
    /// clamp(the larger of both).
    Max,
    /// clamp(the smaller of both).
    Min,
}

/// `output`[i] = function(`first`[Σ i_a · `first_steps`_a], `second`[Σ i_a · `second_steps`_a]) for all
/// indices i_a below `dims`_a, whose elements lie in order in the output. Signed bytes with one column. Scales are
/// multiplier · 2^(shift - 31), and each product with one is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct QuantizedBinary<F: Form = Numbers> {
    /// The function.
    pub function: QuantizedFunction,
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
    /// The zero points of both and of the result.
    pub zeros: [i32; 3],
    /// The multipliers of both, and of what the function makes of them.
    pub multipliers: [i32; 3],
    /// Their shifts.
    pub shifts: [i32; 3],
    /// The least and the largest output.
    pub clamp: [i8; 2],
}

operands!(QuantizedBinary {
    read first, read second, write output;
    function, dims, first_steps, second_steps, zeros, multipliers, shifts, clamp
});

impl Operation for QuantizedBinary {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        for value in [self.first, self.second, self.output] {
            check.that(check.value(value)? == (Per::Pass, Dtype::I8))?;
        }
        check_count(check, self.dims)?;
        check_steps(check, self.dims, self.first_steps, 0, self.first.width)?;
        check_steps(check, self.dims, self.second_steps, 0, self.second.width)?;
        check.equal(self.dims.iter().product(), self.output.width)?;
        let [low, high] = self.clamp;
        check.that(low <= high && self.zeros.iter().all(|zero| (-128..=127).contains(zero)))?;
        // Scaled inputs stay so small that two of them add up.
        let [first, second, _] = self.shifts;
        check.that(first <= 0 && second <= 0)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let ([zero_1, zero_2, zero], [by_1, by_2, by]) = (self.zeros, self.multipliers);
        let [shift_1, shift_2, shift] = self.shifts;
        let result = |x: i32| multiply_by_quantized_multiplier(x, by, shift).saturating_add(zero);
        match self.function {
            QuantizedFunction::Subtract => self.apply(player, |x, y| {
                let x = multiply_by_quantized_multiplier((x - zero_1) << SHIFT, by_1, shift_1);
                let y = multiply_by_quantized_multiplier((y - zero_2) << SHIFT, by_2, shift_2);
                result(x.wrapping_sub(y))
            }),
            QuantizedFunction::Multiply => {
                self.apply(player, |x, y| result((x - zero_1) * (y - zero_2)))
            }
            QuantizedFunction::Max => self.apply(player, Ord::max),
            QuantizedFunction::Min => self.apply(player, Ord::min),
        }
    }
}

impl QuantizedBinary {
    fn apply(
        &self,
        player: &mut Player<'_>,
        function: impl Fn(i32, i32) -> i32,
    ) -> Result<(), RunError> {
        let Player { memory, program, inputs, .. } = player;
        let read = [self.first, self.second];
        let ([first, second], mut output) =
            memory.split_as::<2, i8, i8>(program, inputs.counts(), read, self.output)?;
        let (first, second) = (first.column(0), second.column(0));
        let [low, high] = self.clamp.map(i32::from);
        let [.., count] = self.dims.map(|dim| dim as usize);
        let ([.., x_step], [.., y_step]) = (self.first_steps, self.second_steps);
        let number = |values: &[i8], place: isize| {
            i32::from(values.get(place as usize).copied().unwrap_or_default())
        };
        let mut rows = output.column(0).chunks_exact_mut(count.max(1));
        let steps = [self.first_steps, self.second_steps];
        for_each_row(self.dims, steps, [0, 0], |[mut x, mut y]| {
            for out in rows.next().unwrap_or_default() {
                let value = function(number(first, x), number(second, y));
                *out = value.max(low).min(high) as i8;
                x += x_step as isize;
                y += y_step as isize;
            }
        });
        Ok(())
    }
}

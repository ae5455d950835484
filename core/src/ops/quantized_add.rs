//! The sum of two values of signed bytes, as TensorFlow Lite's reference kernels compute it
//! (arXiv:1712.05877).

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::fixed_point::multiply_by_quantized_multiplier;
use crate::program::{Check, Dtype, Per, Program};
use crate::simd::Kernels;
use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

/// Bits behind the point that the inputs get before they are scaled.
pub(super) const SHIFT: u32 = 20;
/// Bytes of what each byte of either input is once it is scaled.
const TABLES: usize = 2 * 256 * 4;

/// `output` = clamp(zero + scale · Σ scale_i · 2^20 · (input_i - zero_i)), elementwise, one value a pass. Scales are
/// multiplier · 2^(shift - 31), and each product is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct QuantizedAdd<F: Form = Numbers> {
    /// One input.
    pub first: F::Value,
    /// The other.
    pub second: F::Value,
    /// The result, apart from both.
    pub output: F::Value,
    /// The zero points of both and of the result.
    pub zeros: [i32; 3],
    /// The multipliers of both, and of their sum.
    pub multipliers: [i32; 3],
    /// Their shifts.
    pub shifts: [i32; 3],
    /// The least and the largest output.
    pub clamp: [i8; 2],
}

operands!(QuantizedAdd { read first, read second, write output; zeros, multipliers, shifts, clamp });

impl Operation for QuantizedAdd {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        for value in [self.first, self.second, self.output] {
            check.that(check.value(value)? == (Per::Pass, Dtype::I8))?;
            check.equal(value.width, self.output.width)?;
        }
        let [low, high] = self.clamp;
        check.that(low <= high && self.zeros.iter().all(|zero| (-128..=127).contains(zero)))?;
        // Scaled inputs stay so small that two of them add up.
        let [first, second, _] = self.shifts;
        check.that(first <= 0 && second <= 0)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let Player { memory, program, inputs, staging, kernels, .. } = player;
        let read = [self.first, self.second];
        let ([first, second], mut output) =
            memory.split_as(program, inputs.counts(), read, self.output)?;
        let (first, second): (&[i8], &[i8]) = (first.column(0), second.column(0));
        if self.add_by(kernels, [first, second], output.column(0)) {
            return Ok(());
        }
        let tables = staging.get_mut(..TABLES).map(<[[i32; 256]; 2]>::mut_from_bytes);
        let Some(Ok([table_1, table_2])) = tables else { return Err(RunError::Program) };
        self.fill(table_1, 0);
        self.fill(table_2, 1);
        self.add([first, second], [table_1, table_2], output.column(0));
        Ok(())
    }

    fn staging_bytes(&self, _: &Program<'_>) -> u64 {
        TABLES as u64
    }
}

impl QuantizedAdd {
    /// Adds by a kernel, if there is one.
    #[cfg(target_arch = "x86_64")]
    fn add_by(&self, kernels: &Kernels, values: [&[i8]; 2], output: &mut [i8]) -> bool {
        use crate::simd::channels::Scale;
        let ([a, b, c], [d, e, f]) = (self.multipliers, self.shifts);
        let [x, y, zero] = self.zeros;
        let Some(kernels) = &kernels.convolve else { return false };
        // The lowest number times itself saturates, which kernels don't.
        if self.multipliers.contains(&i32::MIN) {
            return false;
        }
        let scales = [(x, a, d), (y, b, e), (zero, c, f)];
        let scales = scales.map(|(zero, multiplier, shift)| Scale { zero, multiplier, shift });
        (kernels.add)(values, scales, self.clamp, output);
        true
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn add_by(&self, _: &Kernels, _: [&[i8]; 2], _: &mut [i8]) -> bool {
        false
    }

    /// What each byte of an input is once it is scaled, by its bits.
    fn fill(&self, table: &mut [i32; 256], input: usize) {
        let [zeros, multipliers, shifts] = [&self.zeros, &self.multipliers, &self.shifts];
        let of = |numbers: &[i32; 3]| numbers.get(input).copied().unwrap_or_default();
        let (zero, multiplier, shift) = (of(zeros), of(multipliers), of(shifts));
        for (byte, scaled) in (0..=u8::MAX).zip(table) {
            let x = (i32::from(byte.cast_signed()) - zero) << SHIFT;
            *scaled = multiply_by_quantized_multiplier(x, multiplier, shift);
        }
    }

    /// Adds what the tables have for two inputs, and scales the sums.
    fn add(&self, [first, second]: [&[i8]; 2], tables: [&[i32; 256]; 2], output: &mut [i8]) {
        let ([_, _, zero], [_, _, multiplier]) = (self.zeros, self.multipliers);
        let [_, _, shift] = self.shifts;
        let [low, high] = self.clamp;
        #[cfg(dsp)]
        if (-31..=-1).contains(&shift) {
            crate::convolve::add_tables(
                [first, second],
                tables,
                output,
                [multiplier, -shift, zero],
            );
            crate::convolve::Rescale { zero, low, high }.clamp(output);
            return;
        }
        let [low, high] = [low, high].map(i32::from);
        let [table_1, table_2] = tables;
        let scaled = |table: &[i32; 256], byte: i8| {
            table.get(usize::from(byte.cast_unsigned())).copied().unwrap_or_default()
        };
        for ((out, x), y) in output.iter_mut().zip(first).zip(second) {
            let sum = scaled(table_1, *x).wrapping_add(scaled(table_2, *y));
            let value = multiply_by_quantized_multiplier(sum, multiplier, shift);
            *out = value.saturating_add(zero).max(low).min(high) as i8;
        }
    }
}

//! One number in all elements of a value.

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::{Check, Dtype, Per};
use serde::{Deserialize, Serialize};

/// Every element of `output` = `number`, a value that a pass has one of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Fill<F: Form = Numbers> {
    /// The value.
    pub output: F::Value,
    /// The number; of integers, a whole one that fits.
    #[serde(default)]
    pub number: f32,
}

operands!(Fill { write output; number });

impl Operation for Fill {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let (per, dtype) = check.value(self.output)?;
        check.that(per == Per::Pass)?;
        let whole = |most: i32| (self.number as i32).unsigned_abs() <= most.unsigned_abs();
        check.that(match dtype {
            Dtype::F32 => true,
            Dtype::I8 => whole(128) && self.number as i8 as f32 == self.number,
            Dtype::I16 => whole(1 << 15) && self.number as i16 as f32 == self.number,
            Dtype::I32 => self.number as i32 as f32 == self.number,
        })
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let Player { memory, program, .. } = player;
        let slot = program.slot(self.output.slot).ok_or(RunError::Program)?;
        let bytes = memory.bytes_mut(program, self.output);
        match slot.dtype {
            Dtype::I8 => bytes.fill((self.number as i8).cast_unsigned()),
            Dtype::I16 => fill(bytes, (self.number as i16).to_le_bytes()),
            Dtype::I32 => fill(bytes, (self.number as i32).to_le_bytes()),
            Dtype::F32 => fill(bytes, self.number.to_le_bytes()),
        }
        Ok(())
    }
}

fn fill<const N: usize>(bytes: &mut [u8], element: [u8; N]) {
    bytes.as_chunks_mut::<N>().0.fill(element);
}

//! A function of signed bytes, as a table.

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::{Player, stream};
use crate::error::{Fault, RunError};
use crate::program::{Check, Dtype, Per};
use serde::{Deserialize, Serialize};

/// `output` = `table`[`input` + 128], elementwise: any function of one signed byte, such as an activation or
/// another scale. Values have one column.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Lookup<F: Form = Numbers> {
    /// Vector [256] of whole numbers from -128 to 127.
    pub table: F::Name,
    /// The bytes.
    pub input: F::Value,
    /// What they become, apart from the input.
    pub output: F::Value,
}

operands!(Lookup { weight table, read input, write output; });

/// Entries of a table.
const ENTRIES: u32 = 256;

impl Operation for Lookup {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let bytes = (Per::Pass, Dtype::I8);
        check.that(check.value(self.input)? == bytes && check.value(self.output)? == bytes)?;
        check.equal(self.input.width, self.output.width)?;
        check.vector(self.table, ENTRIES)
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let tensor = player.tensor(self.table, layer)?;
        let Player { memory, program, inputs, pages, carry, .. } = player;
        let ([input], mut output) =
            memory.split_as::<1, i8, i8>(program, inputs.counts(), [self.input], self.output)?;
        let mut table = [0i8; ENTRIES as usize];
        let mut entries = table.iter_mut();
        let mut elements = stream(pages, carry, &tensor);
        while let Some(bytes) = elements.next_units()? {
            for (entry, bytes) in entries.by_ref().zip(bytes.as_chunks::<4>().0) {
                *entry = f32::from_le_bytes(*bytes) as i8;
            }
        }
        for (out, x) in output.column(0).iter_mut().zip(input.column(0)) {
            // Signed bytes in order, from -128 on.
            *out = table.get(usize::from(x.cast_unsigned() ^ 0x80)).copied().unwrap_or_default();
        }
        Ok(())
    }
}

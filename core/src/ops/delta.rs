//! Low-rank changes of a matrix: adapters (LoRA, arXiv:2106.09685).

use super::linear::multiply;
use super::{Form, Numbers, Operation, Reads, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::pass::Inputs;
use crate::program::{Check, PartKind, Per, PerLayer, Program};
use serde::{Deserialize, Serialize};

/// `output` += `scale` · `up` × (`down` × `input`): what is added to a product with a large matrix.
///
/// If its part is an adapter, it is played for the tokens whose input asks for that adapter, and
/// reads nothing where there are none. A token's sum does not depend on the others in the pass.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(
        bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema, F::Part: schemars::JsonSchema"
    )
)]
#[serde(deny_unknown_fields)]
pub struct Delta<F: Form = Numbers> {
    /// Matrix [rank, input width].
    pub down: F::Name,
    /// Matrix [output width, rank].
    pub up: F::Name,
    /// What the product is multiplied with.
    pub scale: f32,
    /// What is multiplied.
    pub input: F::Value,
    /// Room for the inputs that it is played for, as wide as the input.
    pub gathered: F::Value,
    /// Room for their products with `down`: `[rank]`.
    pub low: F::Value,
    /// Room for the results, as wide as the output.
    pub result: F::Value,
    /// What is added to.
    pub output: F::Value,
    /// Its part.
    #[serde(default)]
    pub part: F::Part,
}

operands!(Delta {
    weight down, weight up, read input, write gathered, write low, write result, update output,
    part part; scale
});

impl Operation for Delta {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let Self { input, gathered, low, result, output, .. } = *self;
        let values = [input, gathered, low, result, output];
        // Inputs are of tokens.
        check.that(check.floats(&values)? != Per::Pass)?;
        check.apart(&values)?;
        check.equal(input.width, gathered.width)?;
        check.equal(output.width, result.width)?;
        check.matrix(self.down, low.width, input.width)?;
        check.matrix(self.up, output.width, low.width)
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let Self { gathered, low, result, .. } = *self;
        let columns = self.gather(player)?;
        if columns == 0 {
            return Ok(());
        }
        let (down, up) = (player.tensor(self.down, layer)?, player.tensor(self.up, layer)?);
        for matrix in [down, up] {
            player.pages.want(&(matrix.address..matrix.address.saturating_add(matrix.bytes())));
        }
        multiply(player, &down, [gathered, low], Some(columns), false)?;
        multiply(player, &up, [low, result], Some(columns), false)?;
        self.scatter(player)
    }

    fn multiply_adds(&self, program: &Program<'_>, layer: u32) -> (u64, u64) {
        let of = |weight: PerLayer| {
            let matrix = program.tensor(weight.at(layer));
            matrix.map_or(0, |m| u64::from(m.rows) * u64::from(m.columns))
        };
        (of(self.down) + of(self.up), 0)
    }

    fn reads(&self) -> Reads {
        Reads::Rows
    }
}

impl Delta {
    /// The columns that it is played for.
    fn columns<'i>(
        &self,
        program: &Program<'_>,
        inputs: &'i Inputs<'_>,
    ) -> Result<impl Iterator<Item = usize> + use<'i>, RunError> {
        let (part, per) = (self.part, program.slot(self.output.slot).ok_or(RunError::Program)?.per);
        let all = program.part_kind(part) != Some(PartKind::Adapter);
        let inputs = inputs.iter().filter(move |input| per == Per::Token || input.logits);
        let columns = inputs.enumerate();
        Ok(columns.filter_map(move |(c, input)| (all || input.adapter == part).then_some(c)))
    }

    /// Copies the columns that it is played for side by side, and counts them.
    fn gather(&self, player: &mut Player<'_>) -> Result<usize, RunError> {
        let Player { memory, program, inputs, .. } = player;
        let ([input], mut gathered) =
            memory.split(program, inputs.counts(), [self.input], self.gathered)?;
        let mut found = 0;
        for column in self.columns(program, inputs)? {
            let to = gathered.column(found).iter_mut();
            to.zip(input.column(column)).for_each(|(y, x)| *y = *x);
            found += 1;
        }
        Ok(found)
    }

    /// Adds the results to the columns that they belong to.
    fn scatter(&self, player: &mut Player<'_>) -> Result<(), RunError> {
        let Player { memory, program, inputs, .. } = player;
        let ([results], mut output) =
            memory.split(program, inputs.counts(), [self.result], self.output)?;
        for (found, column) in self.columns(program, inputs)?.enumerate() {
            for (y, x) in output.column(column).iter_mut().zip(results.column(found)) {
                *y += self.scale * x;
            }
        }
        Ok(())
    }
}

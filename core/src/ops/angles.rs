//! Angles of rotary position embedding (RoPE, arXiv:2104.09864).

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::math::{cos, sin};
use crate::pass::Input;
use crate::program::Check;
use serde::{Deserialize, Serialize};

/// `output` = cosines and sines of the angles of each token's position, then those of the angles by
/// which a query is turned back before it meets the attention sinks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Angles<F: Form = Numbers> {
    /// Vector [rotated width / 2] of inverse frequencies, scaling included.
    pub frequencies: F::Name,
    /// Four values a frequency: all cosines, all sines, and the same for the sinks.
    pub output: F::Value,
    /// What cosines and sines are multiplied with (YaRN, arXiv:2309.00071); 0 for 1.
    #[serde(default)]
    pub scale: f32,
}

operands!(Angles { weight frequencies, write output; scale });

impl Operation for Angles {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.tokens(&[self.output])?;
        check.that(self.output.width.is_multiple_of(4) && self.scale.is_finite())?;
        check.vector(self.frequencies, self.output.width / 4)
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let tensor = player.tensor(self.frequencies, layer)?;
        let count = self.output.width as usize / 4;
        // Only the window that does not slide has sinks.
        let window = player.plan.window(0);
        let scale = if self.scale == 0.0 { 1.0 } else { self.scale };
        let Player { memory, program, inputs, pages, carry, .. } = player;
        let ([], mut output) = memory.split(program, inputs.counts(), [], self.output)?;
        let mut frequencies = crate::engine::player::stream(pages, carry, &tensor);
        let mut done = 0;
        while let Some(bytes) = frequencies.next_units()? {
            let (frequencies, _) = bytes.as_chunks::<4>();
            for (c, Input { position, .. }) in inputs.iter().enumerate() {
                let turns = [position as f32, -(window.sink_shift(position) as f32)];
                let scales = [scale, 1.0];
                let parts = output.column(c).chunks_mut((2 * count).max(1));
                for ((part, turn), scale) in parts.zip(turns).zip(scales) {
                    let Some((cosines, sines)) = part.split_at_mut_checked(count) else { continue };
                    let both = cosines.iter_mut().zip(sines).skip(done);
                    for ((cosine, sine), frequency) in both.zip(frequencies) {
                        let angle = turn * f32::from_le_bytes(*frequency);
                        (*cosine, *sine) = (scale * cos(angle), scale * sin(angle));
                    }
                }
            }
            done += frequencies.len();
        }
        Ok(())
    }
}

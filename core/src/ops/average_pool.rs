//! Average pooling of signed bytes, as TensorFlow Lite's reference kernels compute it.

use super::conv2d::{check_image, image};
use super::{Form, Numbers, Operation, operands};
use crate::convolve::taps;
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::{Check, Dtype};
use serde::{Deserialize, Serialize};

/// `output` = the mean of the input's pixels under a window, rounded half away from zero; what lies
/// outside of the image does not count. Values are images [1, height, width, channels], one a pass.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct AveragePool<F: Form = Numbers> {
    /// The image.
    pub input: F::Value,
    /// The result, apart from the input.
    pub output: F::Value,
    /// Height and width of the window.
    pub kernel: [u16; 2],
    /// Steps down and to the right.
    pub stride: [u16; 2],
    /// Rows above the image and columns left of it.
    #[serde(default)]
    pub pad: [u16; 2],
    /// The least and the largest output.
    pub clamp: [i8; 2],
}

operands!(AveragePool { read input, write output; kernel, stride, pad, clamp });

impl Operation for AveragePool {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let [_, _, inputs] = check_image(check, self.input, Dtype::I8)?;
        let [_, _, outputs] = check_image(check, self.output, Dtype::I8)?;
        check.that(inputs == outputs && !self.kernel.contains(&0) && !self.stride.contains(&0))?;
        let [low, high] = self.clamp;
        check.that(low <= high)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let Player { memory, program, inputs, .. } = player;
        let [height, width, channels] = image(program, self.input)?;
        let [rows, columns, _] = image(program, self.output)?;
        let ([input], mut output) =
            memory.split_as(program, inputs.counts(), [self.input], self.output)?;
        let (input, output): (&[i8], &mut [i8]) = (input.column(0), output.column(0));
        let [low, high] = self.clamp.map(i32::from);
        let [kernel, stride, pad] =
            [self.kernel, self.stride, self.pad].map(|sides| sides.map(usize::from));
        for (number, out) in output.iter_mut().enumerate() {
            let (pixel, channel) = (number / channels.max(1), number % channels.max(1));
            let (y, x) = (pixel / columns.max(1), pixel % columns.max(1));
            if y >= rows {
                break;
            }
            let [top, ky0, ky1] = taps(y, stride[0], pad[0], kernel[0], height);
            let [left, kx0, kx1] = taps(x, stride[1], pad[1], kernel[1], width);
            let (mut sum, mut count) = (0i32, 0i32);
            for ky in ky0..ky1 {
                for kx in kx0..kx1 {
                    let y = top + ky - pad[0];
                    let x = left + kx - pad[1];
                    let at = (y * width + x) * channels + channel;
                    sum += i32::from(input.get(at).copied().unwrap_or_default());
                    count += 1;
                }
            }
            let half = if sum > 0 { count / 2 } else { -(count / 2) };
            *out = ((sum + half) / count.max(1)).max(low).min(high) as i8;
        }
        Ok(())
    }
}

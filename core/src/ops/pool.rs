//! The largest or the mean numbers under windows of an image.

use super::conv2d::{check_image, image};
use super::{Form, Numbers, Operation, operands};
use crate::convolve::taps;
use crate::engine::memory::Element;
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::{Check, Dtype};
use serde::{Deserialize, Serialize};

/// What the pixels under a window become. They are only ever appended: their order is the encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The largest; NaN stays.
    #[default]
    Max,
    /// Their mean, of floats.
    Mean,
    /// Their sum, divided by the pixels of a whole window, of floats.
    MeanOfWindow,
}

/// `output` = what the input's pixels under a window become, channel by channel; what lies outside of the image
/// does not count, and a window that sees nothing is refused. Values are images [1, height, width, channels] of
/// floats or signed bytes, one a pass.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Pool<F: Form = Numbers> {
    /// What pixels become.
    pub pooling: Pooling,
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
}

operands!(Pool { read input, write output; pooling, kernel, stride, pad });

/// Checks that windows lie where they see some of an image along a side.
fn check_windows(
    check: &Check<'_>,
    [kernel, stride, pad]: [u16; 3],
    from: usize,
    to: usize,
) -> Result<(), Fault> {
    check.that(kernel > 0 && stride > 0 && pad < kernel)?;
    check.that((to - 1) * usize::from(stride) < from + usize::from(pad))
}

impl Operation for Pool {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let (_, dtype) = check.value(self.input)?;
        check.that(dtype == Dtype::F32 || (dtype == Dtype::I8 && self.pooling == Pooling::Max))?;
        let [height, width, inputs] = check_image(check, self.input, dtype)?;
        let [rows, columns, outputs] = check_image(check, self.output, dtype)?;
        check.that(inputs == outputs)?;
        let ([kernel_y, kernel_x], [stride_y, stride_x]) = (self.kernel, self.stride);
        let [pad_y, pad_x] = self.pad;
        check_windows(check, [kernel_y, stride_y, pad_y], height, rows)?;
        check_windows(check, [kernel_x, stride_x, pad_x], width, columns)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let slot = player.program.slot(self.input.slot).ok_or(RunError::Program)?;
        match (slot.dtype, self.pooling) {
            (Dtype::I8, _) => {
                self.pool(player, |best: &mut i8, x| *best = (*best).max(x), |_, _| ())
            }
            (_, Pooling::Max) => {
                // NaN replaces and stays.
                let larger = |best: &mut f32, x: f32| {
                    if x > *best || x.is_nan() {
                        *best = x;
                    }
                };
                self.pool(player, larger, |_, _| ())
            }
            (_, Pooling::Mean) => {
                self.pool(player, |sum: &mut f32, x| *sum += x, |sum, seen| *sum /= seen as f32)
            }
            (_, Pooling::MeanOfWindow) => {
                let pixels = self.kernel.map(f32::from).iter().product::<f32>();
                self.pool(player, |sum: &mut f32, x| *sum += x, |sum, _| *sum /= pixels)
            }
        }
    }
}

impl Pool {
    /// Folds the pixels under each window from the first on, and ends with the result and how many they were.
    fn pool<T: Element + Copy>(
        &self,
        player: &mut Player<'_>,
        fold: impl Fn(&mut T, T),
        end: impl Fn(&mut T, usize),
    ) -> Result<(), RunError> {
        let Player { memory, program, inputs, .. } = player;
        let [height, width, channels] = image(program, self.input)?;
        let [_, columns, _] = image(program, self.output)?;
        let ([input], mut output) =
            memory.split_as::<1, T, T>(program, inputs.counts(), [self.input], self.output)?;
        let input = input.column(0);
        let [kernel, stride, pad] =
            [self.kernel, self.stride, self.pad].map(|sides| sides.map(usize::from));
        let [pad_y, pad_x] = pad;
        for (pixel, out) in output.column(0).chunks_exact_mut(channels.max(1)).enumerate() {
            let (y, x) = (pixel / columns.max(1), pixel % columns.max(1));
            let [top, ky0, ky1] = taps(y, stride[0], pad_y, kernel[0], height);
            let [left, kx0, kx1] = taps(x, stride[1], pad_x, kernel[1], width);
            for ky in ky0..ky1 {
                for kx in kx0..kx1 {
                    let at = ((top + ky - pad_y) * width + left + kx - pad_x) * channels;
                    let pairs = out.iter_mut().zip(input.get(at..).unwrap_or_default());
                    if (ky, kx) == (ky0, kx0) {
                        pairs.for_each(|(out, x)| *out = *x);
                    } else {
                        pairs.for_each(|(out, x)| fold(out, *x));
                    }
                }
            }
            let seen = ky1.saturating_sub(ky0) * kx1.saturating_sub(kx0);
            out.iter_mut().for_each(|out| end(out, seen));
        }
        Ok(())
    }
}

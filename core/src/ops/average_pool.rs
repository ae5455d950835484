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
        for (pixel, out) in output.chunks_exact_mut(channels.max(1)).enumerate() {
            let (y, x) = (pixel / columns.max(1), pixel % columns.max(1));
            if y >= rows {
                break;
            }
            let [top, ky0, ky1] = taps(y, stride[0], pad[0], kernel[0], height);
            let [left, kx0, kx1] = taps(x, stride[1], pad[1], kernel[1], width);
            let count = ky1.saturating_sub(ky0) * kx1.saturating_sub(kx0);
            let window = if count > 0 {
                let first = (top + ky0 - pad[0]) * width + left + kx0 - pad[1];
                let image = input.get(first * channels..).unwrap_or_default();
                let (lines, columns) = (ky1 - ky0, kx1 - kx0);
                // Whole rows of the image are one line.
                let one = columns == width;
                let (lines, columns) = if one { (1, lines * columns) } else { (lines, columns) };
                Window { image, channels, width, lines, columns }
            } else {
                Window { image: &[], channels, width, lines: 0, columns: 0 }
            };
            let count = count as i32;
            let mean = |sum: i32| {
                let half = if sum > 0 { count / 2 } else { -(count / 2) };
                ((sum + half) / count.max(1)).max(low).min(high) as i8
            };
            for (channel, four) in (0..).step_by(4).zip(out.chunks_mut(4)) {
                for (out, sum) in four.iter_mut().zip(window.sums(channel)) {
                    *out = mean(sum);
                }
            }
        }
        Ok(())
    }
}

/// What is seen of an image from the window's first pixel on.
struct Window<'a> {
    image: &'a [i8],
    channels: usize,
    /// Pixels from a line to the next.
    width: usize,
    lines: usize,
    columns: usize,
}

impl Window<'_> {
    /// The sums of four channels from one on; what is behind the last channel means nothing.
    fn sums(&self, channel: usize) -> [i32; 4] {
        let [mut a, mut b, mut c, mut d] = [0; 4];
        for line in 0..self.lines {
            let start = line * self.width * self.channels + channel;
            let seen = self.image.get(start..).unwrap_or_default();
            #[cfg(dsp)]
            if let Some([e, f, g, h]) = crate::convolve::sum(seen, self.channels, self.columns) {
                (a, b, c, d) = (a + e, b + f, c + g, d + h);
                continue;
            }
            for pixel in seen.chunks(self.channels.max(1)).take(self.columns) {
                let mut numbers = [0; 4];
                match pixel.first_chunk() {
                    Some(four) => numbers = *four,
                    None => numbers.iter_mut().zip(pixel).for_each(|(to, from)| *to = *from),
                }
                let [e, f, g, h] = numbers.map(i32::from);
                (a, b, c, d) = (a + e, b + f, c + g, d + h);
            }
        }
        [a, b, c, d]
    }
}

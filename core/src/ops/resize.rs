//! Images of another size.

use super::conv2d::{check_image, image};
use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::{Check, Dtype};
use serde::{Deserialize, Serialize};

/// Where a pixel of the result lies in the image. They are only ever appended: their order is the encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Alignment {
    /// Pixel p at p · size of the image / size of the result.
    #[default]
    Corner,
    /// The middles of pixels: at (p + 1/2) · size of the image / size of the result - 1/2.
    HalfPixel,
    /// The first at the first and the last at the last.
    Ends,
}

/// `output` = the input at each pixel's place, channel by channel: the pixel there, or the mean of the four
/// around it by their nearness. Places outside of the image are moved to its edge. Values are images [1, height,
/// width, channels] of floats, one a pass.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Resize<F: Form = Numbers> {
    /// The image.
    pub input: F::Value,
    /// The result, apart from the input.
    pub output: F::Value,
    /// Where pixels lie.
    #[serde(default)]
    pub alignment: Alignment,
    /// Takes the mean of four pixels.
    #[serde(default)]
    pub bilinear: bool,
    /// Without it, a place is rounded down to a pixel; with it, to the nearest, halves down.
    #[serde(default)]
    pub nearest: bool,
}

operands!(Resize { read input, write output; alignment, bilinear, nearest });

impl Operation for Resize {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let [.., inputs] = check_image(check, self.input, Dtype::F32)?;
        let [.., outputs] = check_image(check, self.output, Dtype::F32)?;
        check.that(inputs == outputs)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let [height, width, channels] = image(&player.program, self.input)?;
        let [rows, columns, _] = image(&player.program, self.output)?;
        let ([input], mut output) = player.values([self.input], self.output)?;
        let input = input.column(0);
        let pixel = |y: usize, x: usize| {
            let at = (y * width + x) * channels;
            input.get(at..at + channels).unwrap_or_default()
        };
        for (number, out) in output.column(0).chunks_exact_mut(channels.max(1)).enumerate() {
            let (y, x) = (number / columns.max(1), number % columns.max(1));
            let ([y0, y1], down) = self.place(y, height, rows);
            let ([x0, x1], right) = self.place(x, width, columns);
            let pixels = [pixel(y0, x0), pixel(y0, x1), pixel(y1, x0), pixel(y1, x1)];
            for (channel, out) in out.iter_mut().enumerate() {
                let [a, b, c, d] =
                    pixels.map(|pixel| pixel.get(channel).copied().unwrap_or_default());
                *out = if self.bilinear {
                    let (upper, lower) = (a + (b - a) * right, c + (d - c) * right);
                    upper + (lower - upper) * down
                } else {
                    a
                };
            }
        }
        Ok(())
    }
}

impl Resize {
    /// The pixels before and behind the place of pixel `at` of `to` among `from`, and how far it lies behind
    /// the first.
    fn place(&self, at: usize, from: usize, to: usize) -> ([usize; 2], f32) {
        let ratio = from as f32 / to as f32;
        let place = match self.alignment {
            Alignment::Corner => at as f32 * ratio,
            Alignment::HalfPixel => (at as f32 + 0.5) * ratio - 0.5,
            Alignment::Ends if to > 1 => at as f32 * ((from - 1) as f32 / (to - 1) as f32),
            Alignment::Ends => 0.0,
        };
        let last = from.saturating_sub(1);
        let place = if place > 0.0 { place } else { 0.0 };
        if !self.bilinear && self.nearest {
            let nearest = libm::ceilf(place - 0.5);
            let first = (nearest as usize).min(last);
            return ([first, first], 0.0);
        }
        let first = (place as usize).min(last);
        ([first, (first + 1).min(last)], (place - first as f32).min(1.0))
    }
}

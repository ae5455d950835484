//! Images of another size.

use super::conv2d::{check_image, image};
use super::{Form, Numbers, Operation, operands};
use crate::engine::memory::Element;
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
    /// At (p + 1/2) · size of the image / size of the result: on the pixel that the middle lies in.
    Middle,
}

/// `output` = the input at each pixel's place, channel by channel: the pixel there, or the mean of the four
/// around it by their nearness. Places outside of the image are moved to its edge. Values are images [1, height,
/// width, channels] of floats or signed bytes, one a pass; means of bytes have places in steps of 1/1024, as TensorFlow
/// Lite Micro's reference kernels.
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

/// 1 in steps of the places of bytes.
const ONE: i64 = 1 << 10;

impl Operation for Resize {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let (_, dtype) = check.value(self.input)?;
        check.that(matches!(dtype, Dtype::F32 | Dtype::I8))?;
        let [.., inputs] = check_image(check, self.input, dtype)?;
        let [.., outputs] = check_image(check, self.output, dtype)?;
        check.that(inputs == outputs)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let slot = player.program.slot(self.input.slot).ok_or(RunError::Program)?;
        match (slot.dtype, self.bilinear) {
            (Dtype::I8, true) => self.resize(player, |p, a, b| self.fixed_place(p, a, b), mean),
            (Dtype::I8, false) => {
                self.resize(player, |p, a, b| self.place(p, a, b), |[a, ..]: [i8; 4], _, _| a)
            }
            (_, true) => self.resize(
                player,
                |p, a, b| self.place(p, a, b),
                |[a, b, c, d]: [f32; 4], down, right| {
                    let (upper, lower) = (a + (b - a) * right, c + (d - c) * right);
                    upper + (lower - upper) * down
                },
            ),
            (_, false) => {
                self.resize(player, |p, a, b| self.place(p, a, b), |[a, ..]: [f32; 4], _, _| a)
            }
        }
    }
}

impl Resize {
    /// Mixes the four pixels around each pixel's place.
    fn resize<T: Element + Copy + Default, P: Copy>(
        &self,
        player: &mut Player<'_>,
        place: impl Fn(usize, usize, usize) -> ([usize; 2], P),
        mix: impl Fn([T; 4], P, P) -> T,
    ) -> Result<(), RunError> {
        let Player { memory, program, inputs, .. } = player;
        let [height, width, channels] = image(program, self.input)?;
        let [rows, columns, _] = image(program, self.output)?;
        let ([input], mut output) =
            memory.split_as::<1, T, T>(program, inputs.counts(), [self.input], self.output)?;
        let input = input.column(0);
        let pixel = |y: usize, x: usize| {
            let at = (y * width + x) * channels;
            input.get(at..at + channels).unwrap_or_default()
        };
        for (number, out) in output.column(0).chunks_exact_mut(channels.max(1)).enumerate() {
            let (y, x) = (number / columns.max(1), number % columns.max(1));
            let ([y0, y1], down) = place(y, height, rows);
            let ([x0, x1], right) = place(x, width, columns);
            let pixels = [pixel(y0, x0), pixel(y0, x1), pixel(y1, x0), pixel(y1, x1)];
            for (channel, out) in out.iter_mut().enumerate() {
                let four = pixels.map(|pixel| pixel.get(channel).copied().unwrap_or_default());
                *out = mix(four, down, right);
            }
        }
        Ok(())
    }

    /// The pixels before and behind the place of pixel `at` of `to` among `from`, and how far it lies behind
    /// the first.
    fn place(&self, at: usize, from: usize, to: usize) -> ([usize; 2], f32) {
        let ratio = from as f32 / to as f32;
        let place = match self.alignment {
            Alignment::Corner => at as f32 * ratio,
            Alignment::HalfPixel => (at as f32 + 0.5) * ratio - 0.5,
            Alignment::Ends if to > 1 => at as f32 * ((from - 1) as f32 / (to - 1) as f32),
            Alignment::Ends => 0.0,
            Alignment::Middle => (at as f32 + 0.5) * ratio,
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

    /// The same in steps of 1/1024.
    fn fixed_place(&self, at: usize, from: usize, to: usize) -> ([usize; 2], i64) {
        let (at, size, to) = (at as i64, from as i64, to as i64);
        let ratio = |from: i64, to: i64| (ONE * from + to / 2) / to.max(1);
        let scale = match self.alignment {
            Alignment::Ends if to > 1 => ratio(size - 1, to - 1),
            _ => ratio(size, to),
        };
        let place = match self.alignment {
            Alignment::HalfPixel => at * scale + scale / 2 - ONE / 2,
            Alignment::Middle => at * scale + scale / 2,
            _ => at * scale,
        };
        let last = (size - 1).max(0);
        let place = place.clamp(0, last * ONE);
        let first = place / ONE;
        ([first as usize, (first + 1).min(last) as usize], place - first * ONE)
    }
}

/// The mean of four bytes by their nearness, rounded half away from zero.
fn mean([a, b, c, d]: [i8; 4], down: i64, right: i64) -> i8 {
    let row = |a: i8, b: i8| i64::from(a) * (ONE - right) + i64::from(b) * right;
    let sum = row(a, b) * (ONE - down) + row(c, d) * down;
    let half = if sum > 0 { ONE * ONE / 2 } else { -(ONE * ONE / 2) };
    ((sum + half) / (ONE * ONE)) as i8
}

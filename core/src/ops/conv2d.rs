//! Two-dimensional convolution of signed bytes, as TensorFlow Lite's reference kernels compute it
//! (arXiv:1712.05877).

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::{Player, stream};
use crate::error::{Fault, RunError};
use crate::fixed_point::multiply_by_quantized_multiplier;
use crate::program::{Check, Dtype, Per, Program, Value};
use crate::quant::{CHANNEL_HEAD, Format};
use serde::{Deserialize, Serialize};

/// `output`[y, x, o] = clamp(`output_zero` + scale_o · (bias_o + Σ (`input`[y', x', i] - `input_zero`) ·
/// weight_o[ky, kx, i])), with y' = y · stride + ky - pad and x' likewise; what lies outside of the
/// image adds nothing. Values are images [1, height, width, channels], one a pass. A matrix times a
/// vector is the convolution of an image of one pixel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Conv2d<F: Form = Numbers> {
    /// A row for each output channel: bias, multiplier, shift, and weights [ky, kx, i].
    pub weight: F::Name,
    /// The image.
    pub input: F::Value,
    /// The result, apart from the input.
    pub output: F::Value,
    /// Height and width of the kernel.
    pub kernel: [u16; 2],
    /// Steps down and to the right.
    pub stride: [u16; 2],
    /// Rows above the image and columns left of it.
    #[serde(default)]
    pub pad: [u16; 2],
    /// The input's zero point.
    #[serde(default)]
    pub input_zero: i32,
    /// The output's zero point.
    #[serde(default)]
    pub output_zero: i32,
    /// The least and the largest output.
    pub clamp: [i8; 2],
    /// Output channel o has only input channel o / (output channels / input channels).
    #[serde(default)]
    pub depthwise: bool,
}

operands!(Conv2d {
    weight weight, read input, write output;
    kernel, stride, pad, input_zero, output_zero, clamp, depthwise
});

/// Height, width and channels of an image.
type Image = [usize; 3];

/// An image of signed bytes: [1, height, width, channels], a whole slot.
pub(super) fn check_image(check: &Check<'_>, value: Value) -> Result<Image, Fault> {
    let slot = check.program().slot(value.slot).ok_or(Fault::Value)?;
    check.that(check.value(value)? == (Per::Pass, Dtype::I8))?;
    check.that(value.first == 0 && value.width == slot.width)?;
    let [one, height, width, channels] = slot.dims.map(usize::from);
    check.that(one == 1 && channels > 0)?;
    Ok([height, width, channels])
}

/// The dimensions of an image that was checked.
pub(super) fn image(program: &Program<'_>, value: Value) -> Result<Image, RunError> {
    let slot = program.slot(value.slot).ok_or(RunError::Program)?;
    let [_, height, width, channels] = slot.dims.map(usize::from);
    Ok([height, width, channels])
}

/// The input rows or columns that output number `at` sees, as numbers of the kernel's.
pub(super) fn taps(at: usize, stride: u16, pad: u16, kernel: u16, size: usize) -> [usize; 3] {
    let start = at * usize::from(stride);
    let first = usize::from(pad).saturating_sub(start).min(usize::from(kernel));
    let end = (size + usize::from(pad)).saturating_sub(start).min(usize::from(kernel));
    // Where kernel row or column 0 lies, counted from `pad` before the image.
    [start, first, end]
}

impl Operation for Conv2d {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let [_, _, inputs] = check_image(check, self.input)?;
        let [_, _, outputs] = check_image(check, self.output)?;
        let each = if self.depthwise { 1 } else { inputs };
        let [height, width] = self.kernel.map(usize::from);
        check.that(height > 0 && width > 0 && !self.stride.contains(&0))?;
        check.that(!self.depthwise || outputs.is_multiple_of(inputs))?;
        let [low, high] = self.clamp;
        check.that(low <= high)?;
        let zeros = [self.input_zero, self.output_zero];
        check.that(zeros.iter().all(|zero| (-128..=127).contains(zero)))?;
        check.tensors(self.weight, |t| {
            t.format == Format::Channels
                && t.rows as usize == outputs
                && t.columns as usize == height * width * each
        })
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let tensor = player.tensor(self.weight, layer)?;
        let Player { memory, program, inputs, pages, carry, .. } = player;
        let (from, to) = (image(program, self.input)?, image(program, self.output)?);
        let ([input], mut output) =
            memory.split_as(program, inputs.counts(), [self.input], self.output)?;
        let (input, output) = (input.column(0), output.column(0));
        let unit = tensor.unit_bytes();
        let mut rows = stream(pages, carry, &tensor);
        let mut channel = 0;
        while let Some(units) = rows.next_units()? {
            for row in units.chunks_exact(unit.max(1)) {
                self.channel(row, channel, (input, from), (output, to));
                channel += 1;
            }
        }
        Ok(())
    }

    fn multiply_adds(&self, program: &Program<'_>, layer: u32) -> (u64, u64) {
        let pixels = image(program, self.output).map_or(0, |[h, w, _]| h as u64 * w as u64);
        let weights = program.tensor(self.weight.at(layer));
        (pixels * weights.map_or(0, |t| u64::from(t.rows) * u64::from(t.columns)), 0)
    }
}

impl Conv2d {
    /// Computes one output channel.
    fn channel(
        &self,
        row: &[u8],
        channel: usize,
        (input, [height, width, inputs]): (&[i8], Image),
        (output, [rows, columns, outputs]): (&mut [i8], Image),
    ) {
        let Some((head, weights)) = row.split_first_chunk::<CHANNEL_HEAD>() else { return };
        let mut words = [0; 3];
        for (word, bytes) in words.iter_mut().zip(head.as_chunks::<4>().0) {
            *word = i32::from_le_bytes(*bytes);
        }
        let [bias, multiplier, shift] = words;
        let (first, each) = match self.depthwise {
            true => (channel / (outputs / inputs.max(1)).max(1), 1),
            false => (0, inputs),
        };
        let [low, high] = self.clamp.map(i32::from);
        for y in 0..rows {
            let [top, ky0, ky1] = taps(y, self.stride[0], self.pad[0], self.kernel[0], height);
            for x in 0..columns {
                let [left, kx0, kx1] = taps(x, self.stride[1], self.pad[1], self.kernel[1], width);
                let mut sum = bias;
                // A window that lies beside the image sees nothing of it.
                let seen = if kx0 < kx1 { ky0..ky1 } else { 0..0 };
                for ky in seen {
                    // Neighbours of a row of the image lie side by side, as their weights do.
                    let pixel = (top + ky - usize::from(self.pad[0])) * width + left + kx0;
                    let pixels = (pixel - usize::from(self.pad[1])) * inputs + first;
                    let at = (ky * usize::from(self.kernel[1]) + kx0) * each;
                    let count = (kx1 - kx0) * each;
                    let weights = weights.get(at..at + count).unwrap_or_default();
                    let input = input.get(pixels..).unwrap_or_default();
                    sum = sum.wrapping_add(self.dot(
                        input,
                        weights,
                        if each == 1 { inputs } else { 1 },
                    ));
                }
                let scaled = multiply_by_quantized_multiplier(sum, multiplier, shift);
                let value = scaled.saturating_add(self.output_zero).max(low).min(high);
                if let Some(out) = output.get_mut((y * columns + x) * outputs + channel) {
                    *out = value as i8;
                }
            }
        }
    }

    fn dot(&self, input: &[i8], weights: &[u8], step: usize) -> i32 {
        let product =
            |x: &i8, w: &u8| (i32::from(*x) - self.input_zero) * i32::from(w.cast_signed());
        if step == 1 {
            return input.iter().zip(weights).map(|(x, w)| product(x, w)).sum();
        }
        input.iter().step_by(step.max(1)).zip(weights).map(|(x, w)| product(x, w)).sum()
    }
}

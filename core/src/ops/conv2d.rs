//! Two-dimensional convolution of signed bytes, as TensorFlow Lite's reference kernels compute it
//! (arXiv:1712.05877).

use super::{Form, Numbers, Operation, operands};
#[cfg(target_arch = "x86_64")]
use crate::convolve::convolve as wide;
use crate::convolve::{Block, Rescale, Shape, depthwise, matrix};
use crate::engine::player::{Player, stream};
use crate::error::{Fault, RunError};
use crate::program::{Check, Dtype, Per, Program, Value};
use crate::quant::Format;
#[cfg(not(target_arch = "x86_64"))]
use crate::simd::Kernels;
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

/// An image of such elements: [1, height, width, channels], or some of a slot's rows of pixels.
pub(super) fn check_image(check: &Check<'_>, value: Value, dtype: Dtype) -> Result<Image, Fault> {
    let slot = check.program().slot(value.slot).ok_or(Fault::Value)?;
    check.that(check.value(value)? == (Per::Pass, dtype))?;
    let [one, _, width, channels] = slot.dims.map(u32::from);
    let row = width * channels;
    let is_whole = |elements: u32| elements.checked_rem(row) == Some(0);
    check.that(one == 1 && is_whole(value.first) && is_whole(value.width))?;
    image(check.program(), value).map_err(|_| Fault::Value)
}

/// The dimensions of an image that was checked.
pub(super) fn image(program: &Program<'_>, value: Value) -> Result<Image, RunError> {
    let slot = program.slot(value.slot).ok_or(RunError::Program)?;
    let [_, _, width, channels] = slot.dims.map(usize::from);
    Ok([value.width as usize / (width * channels).max(1), width, channels])
}

/// Multiplications of a convolution: each weight once for each pixel of the result.
pub(super) fn products(program: &Program<'_>, output: Value, weight: u32) -> (u64, u64) {
    let pixels = image(program, output).map_or(0, |[h, w, _]| h as u64 * w as u64);
    let weights = program.tensor(weight).map_or(0, |t| u64::from(t.rows) * u64::from(t.columns));
    (pixels * weights, 0)
}

impl Operation for Conv2d {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let [_, _, inputs] = check_image(check, self.input, Dtype::I8)?;
        let [_, _, outputs] = check_image(check, self.output, Dtype::I8)?;
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
        let Player { memory, program, inputs, pages, carry, staging, kernels, .. } = player;
        let (from, to) = (image(program, self.input)?, image(program, self.output)?);
        let ([input], mut output) =
            memory.split_as(program, inputs.counts(), [self.input], self.output)?;
        let (input, output) = (input.column(0), output.column(0));
        let row_bytes = tensor.unit_bytes();
        let shape = self.shape(from, to);
        let convolve = if self.depthwise { depthwise } else { matrix };
        let mut units = stream(pages, carry, &tensor);
        let mut channel = 0;
        while let Some(rows) = units.next_units()? {
            let block = Block { rows, row_bytes, rescale: shape.rescale };
            if !wide(kernels, &shape, self.depthwise, (&block, channel), input, output) {
                convolve(&shape, &block, channel, input, output, staging);
            }
            channel += rows.len() / row_bytes.max(1);
        }
        Ok(())
    }

    fn staging_bytes(&self, program: &Program<'_>) -> u64 {
        let (from, to) = (image(program, self.input), image(program, self.output));
        let (Ok(from), Ok(to)) = (from, to) else { return 0 };
        let shape = self.shape(from, to);
        if self.depthwise { shape.depthwise_staging() } else { shape.matrix_staging() }
    }

    fn multiply_adds(&self, program: &Program<'_>, layer: u32) -> (u64, u64) {
        products(program, self.output, self.weight.at(layer))
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn wide(_: &Kernels, _: &Shape, _: bool, _: (&Block<'_>, usize), _: &[i8], _: &mut [i8]) -> bool {
    false
}

impl Conv2d {
    fn shape(&self, from: Image, to: Image) -> Shape {
        let [low, high] = self.clamp;
        Shape {
            from,
            to,
            kernel: self.kernel.map(usize::from),
            stride: self.stride.map(usize::from),
            pad: self.pad.map(usize::from),
            zero: self.input_zero,
            rescale: Rescale { zero: self.output_zero, low, high },
        }
    }
}

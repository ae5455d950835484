//! Two-dimensional convolution of floats.

use super::conv2d::{check_image, image, products};
use super::{Form, Numbers, Operation, operands};
use crate::engine::player::{Combine, Player, stream};
use crate::error::{Fault, RunError};
use crate::program::{Check, Dtype, Program, Tensor};
use crate::quant::{FloatGroup, Format, GROUP, PANEL};
use crate::rows::share_rows;
use crate::simd::{FEW_COLUMNS, PanelDot};
use serde::{Deserialize, Serialize};

/// `output`[y, x, o] = bias_o + Σ `input`[y', x', i] · weight_o[ky, kx, i], with y' = y · stride + ky · dilation -
/// pad and x' likewise; what lies outside of the image adds nothing. Values are images [1, height, width,
/// channels], one a pass. A matrix times rows of a value is the convolution of an image whose pixels are the
/// rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct FloatConv2d<F: Form = Numbers> {
    /// Vector [output channels].
    #[serde(default)]
    pub bias: Option<F::Name>,
    /// Matrix with a row for each output channel, [ky, kx, i]; if depthwise, a vector [ky, kx, o].
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
    /// How far apart the kernel's rows and columns lie.
    pub dilation: [u16; 2],
    /// Output channel o has only input channel o / (output channels / input channels).
    #[serde(default)]
    pub depthwise: bool,
}

operands!(FloatConv2d {
    maybe_weight bias, weight weight, read input, write output;
    kernel, stride, pad, dilation, depthwise
});

/// Below this many multiplications, work is not worth waking another core.
const TASK: usize = 64 << 10;

impl Operation for FloatConv2d {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let [_, _, inputs] = check_image(check, self.input, Dtype::F32)?;
        let [_, _, outputs] = check_image(check, self.output, Dtype::F32)?;
        let all = [self.kernel, self.stride, self.dilation];
        check.that(all.iter().flatten().all(|n| *n > 0))?;
        if let Some(bias) = self.bias {
            check.vector(bias, outputs as u32)?;
        }
        let taps = self.kernel.map(u32::from).iter().product::<u32>();
        if self.depthwise {
            check.that(outputs.is_multiple_of(inputs))?;
            return check.vector(self.weight, taps.saturating_mul(outputs as u32));
        }
        check.matrix(self.weight, outputs as u32, taps.saturating_mul(inputs as u32))
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        match self.bias {
            Some(bias) => player.with_vector(bias, layer, self.output, Combine::Set)?,
            None => player.values([], self.output)?.1.into_column(0).fill(0.0),
        }
        let weight = player.tensor(self.weight, layer)?;
        let kernels = player.kernels;
        match weight.format {
            Format::Vector => self.depthwise(player, &weight),
            Format::Int4 => self.multiply(player, &weight, kernels.int4, kernels.quantize),
            Format::Int8 => self.multiply(player, &weight, kernels.int8, kernels.quantize),
            Format::F16 if Format::F16.is_played() => {
                self.multiply(player, &weight, kernels.float16, |x| *x)
            }
            Format::F32 if Format::F32.is_played() => {
                self.multiply(player, &weight, kernels.float32, |x| *x)
            }
            _ => Err(RunError::Program),
        }
    }

    fn multiply_adds(&self, program: &Program<'_>, layer: u32) -> (u64, u64) {
        products(program, self.output, self.weight.at(layer))
    }
}

/// Where the pixels of an image are that a kernel sees.
struct Window {
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
    dilation: [usize; 2],
    /// Height, width and channels of the image.
    image: [usize; 3],
    /// Height, width and channels of the result.
    result: [usize; 3],
}

impl Window {
    /// The channels of the input's pixel that output pixel number `pixel` sees with tap number `tap`; none
    /// beside the image.
    fn seen<'i>(&self, input: &'i [f32], pixel: usize, tap: usize) -> Option<&'i [f32]> {
        let [height, width, channels] = self.image;
        let columns = self.result[1].max(1);
        let taps = self.kernel[1].max(1);
        let place = |at: usize, tap: usize, side: usize, size: usize| {
            let [stride, dilation, pad] = match side {
                0 => [self.stride[0], self.dilation[0], self.pad[0]],
                _ => [self.stride[1], self.dilation[1], self.pad[1]],
            };
            (at * stride + tap * dilation).checked_sub(pad).filter(|place| *place < size)
        };
        let y = place(pixel / columns, tap / taps, 0, height)?;
        let x = place(pixel % columns, tap % taps, 1, width)?;
        input.get((y * width + x) * channels..)?.get(..channels)
    }

    /// Numbers `first` and on of what an output pixel sees, tap by tap; zeros behind the last.
    fn patch(&self, input: &[f32], pixel: usize, first: usize) -> FloatGroup {
        let mut group = [0.0; GROUP];
        let channels = self.image[2].max(1);
        let end = self.kernel[0] * self.kernel[1] * channels;
        let mut at = 0;
        while at < GROUP && first + at < end {
            let (tap, channel) = ((first + at) / channels, (first + at) % channels);
            let count = (channels - channel).min(GROUP - at);
            let seen = self.seen(input, pixel, tap).and_then(|seen| seen.get(channel..));
            if let (Some(seen), Some(group)) = (seen, group.get_mut(at..at + count)) {
                group.iter_mut().zip(seen).for_each(|(x, seen)| *x = *seen);
            }
            at += count;
        }
        group
    }
}

impl FloatConv2d {
    fn window(&self, program: &Program<'_>) -> Result<Window, RunError> {
        Ok(Window {
            kernel: self.kernel.map(usize::from),
            stride: self.stride.map(usize::from),
            pad: self.pad.map(usize::from),
            dilation: self.dilation.map(usize::from),
            image: image(program, self.input)?,
            result: image(program, self.output)?,
        })
    }

    /// Multiplies patches with a matrix that comes block by block.
    fn multiply<X: Sync>(
        &self,
        player: &mut Player<'_>,
        matrix: &Tensor,
        dot: PanelDot<X>,
        convert: impl Fn(&FloatGroup) -> X + Sync,
    ) -> Result<(), RunError> {
        let window = self.window(&player.program)?;
        let Player { memory, program, inputs, pages, carry, parallel, .. } = player;
        let ([input], mut output) =
            memory.split(program, inputs.counts(), [self.input], self.output)?;
        let (unit, input) = (matrix.unit_bytes().max(1), input.column(0));
        let groups = (matrix.columns as usize).div_ceil(GROUP).max(1);
        let [height, width, channels] = window.result;
        let (mut stream, mut first) = (stream(pages, carry, matrix), 0);
        while let Some(blocks) = stream.next_units()? {
            let count = blocks.len() / unit;
            let piece = Piece { blocks, first, end: first + count, groups, unit };
            let work = height * width * count * PANEL * GROUP;
            let tasks = (work / TASK).clamp(1, parallel.cores().max(1) * 4);
            let pixels = (height * width).div_ceil(tasks).next_multiple_of(FEW_COLUMNS);
            let all = 0..height * width * channels;
            share_rows(*parallel, &mut output, all, pixels * channels, &|mut rows| {
                let mut pixel = rows.range().start / channels.max(1);
                for tile in rows.column(0).chunks_mut((FEW_COLUMNS * channels).max(1)) {
                    piece.add(tile, channels, dot, |at, group| {
                        convert(&window.patch(input, pixel + at, group * GROUP))
                    });
                    pixel += FEW_COLUMNS;
                }
            });
            first += count;
        }
        Ok(())
    }

    /// Adds each channel's products with its own weights, which come tap by tap.
    fn depthwise(&self, player: &mut Player<'_>, weight: &Tensor) -> Result<(), RunError> {
        let window = self.window(&player.program)?;
        let Player { memory, program, inputs, pages, carry, parallel, .. } = player;
        let ([input], mut output) =
            memory.split(program, inputs.counts(), [self.input], self.output)?;
        let input = input.column(0);
        let [height, width, channels] = window.result;
        let each = channels.checked_div(window.image[2]).unwrap_or(1).max(1);
        let (mut stream, mut first) = (stream(pages, carry, weight), 0);
        while let Some(bytes) = stream.next_units()? {
            let weights = bytes.as_chunks::<4>().0;
            let tasks = (height * width * weights.len() / TASK).clamp(1, parallel.cores().max(1));
            let pixels = (height * width).div_ceil(tasks);
            let all = 0..height * width * channels;
            share_rows(*parallel, &mut output, all, pixels * channels, &|mut rows| {
                let pixel = rows.range().start / channels.max(1);
                for (out, pixel) in rows.column(0).chunks_mut(channels.max(1)).zip(pixel..) {
                    window.add_taps(input, pixel, (first, weights), each, out);
                }
            });
            first += weights.len();
        }
        Ok(())
    }
}

impl Window {
    /// Adds the products of weights, of which `first` come before, to an output pixel.
    fn add_taps(
        &self,
        input: &[f32],
        pixel: usize,
        (first, weights): (usize, &[[u8; 4]]),
        each: usize,
        out: &mut [f32],
    ) {
        let channels = out.len().max(1);
        let mut at = 0;
        while at < weights.len() {
            let (tap, channel) = ((first + at) / channels, (first + at) % channels);
            let count = (channels - channel).min(weights.len() - at);
            let weights = weights.get(at..at + count).unwrap_or_default();
            at += count;
            let Some(seen) = self.seen(input, pixel, tap) else { continue };
            let out = out.get_mut(channel..).unwrap_or_default().iter_mut().zip(weights);
            let weight = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
            if each == 1 {
                let seen = seen.get(channel..).unwrap_or_default();
                out.zip(seen).for_each(|((sum, w), x)| *sum += weight(w) * x);
            } else {
                for (n, (sum, w)) in out.enumerate() {
                    let x = seen.get((channel + n) / each).copied().unwrap_or_default();
                    *sum += weight(w) * x;
                }
            }
        }
    }
}

/// Consecutive blocks of a matrix, possibly beginning and ending inside a panel.
struct Piece<'p> {
    blocks: &'p [u8],
    /// Number of the first block in the matrix, and the one behind the last.
    first: usize,
    end: usize,
    /// Blocks of a panel.
    groups: usize,
    unit: usize,
}

impl Piece<'_> {
    /// Adds the products of these blocks with some pixels' patches to the pixels: `patch` gives a group of the
    /// patch of a pixel of the tile.
    fn add<X>(
        &self,
        tile: &mut [f32],
        channels: usize,
        dot: PanelDot<X>,
        patch: impl Fn(usize, usize) -> X,
    ) {
        let pixels = tile.len() / channels.max(1);
        let panels = self.first / self.groups..self.end.div_ceil(self.groups);
        for group in 0..self.groups {
            let at = |panel: usize| panel * self.groups + group;
            let here = |panel: &usize| (self.first..self.end).contains(&at(*panel));
            if !panels.clone().any(|panel| here(&panel)) {
                continue;
            }
            let x: [X; FEW_COLUMNS] = core::array::from_fn(|pixel| patch(pixel, group));
            let Some(x) = x.get(..pixels) else { return };
            for panel in panels.clone().filter(here) {
                let place = (at(panel) - self.first) * self.unit;
                let block = self.blocks.get(place..place + self.unit).unwrap_or_default();
                let mut sums = [[0.0; PANEL]; FEW_COLUMNS];
                let Some(sums) = sums.get_mut(..pixels) else { return };
                let rows = || panel * PANEL..((panel + 1) * PANEL).min(channels);
                for (sum, pixel) in sums.iter_mut().zip(tile.chunks_exact(channels.max(1))) {
                    let values = pixel.get(rows()).unwrap_or_default();
                    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum = *value);
                }
                dot(block, x, pixels, sums);
                for (sum, pixel) in sums.iter().zip(tile.chunks_exact_mut(channels.max(1))) {
                    let values = pixel.get_mut(rows()).unwrap_or_default();
                    values.iter_mut().zip(sum).for_each(|(value, sum)| *value = *sum);
                }
            }
        }
    }
}

//! Convolutions and poolings, whose images are [1, channels, height, width].

use super::*;
use omex_core::ops::Pooling;

impl Call<'_> {
    /// Nodes that see windows of an image; none for others.
    pub(super) fn windowed(&mut self) -> Drawn<Option<View>> {
        Ok(Some(match self.node.operation.as_str() {
            "Conv" => {
                let input = self.view(0)?;
                let weights = self.known(1)?;
                let bias = if self.has(2) { Some(self.known(2)?.to_floats()) } else { None };
                self.conv(&input, &weights, bias)?
            }
            "ConvTranspose" => self.transposed()?,
            "MaxPool" => self.pool(Pooling::Max)?,
            "AveragePool" if self.number("count_include_pad", 0) != 0 => {
                self.pool(Pooling::MeanOfWindow)?
            }
            "AveragePool" => self.pool(Pooling::Mean)?,
            "GlobalAveragePool" | "GlobalMaxPool" => {
                let image = self.image(0)?;
                let [_, height, width, _] = image.shape[..] else {
                    return Err(Refused::new("no image", "one"));
                };
                let window = Window { kernel: [height, width], ..Window::pixel([1, 1]) };
                let largest = self.node.operation == "GlobalMaxPool";
                let pooling = if largest { Pooling::Max } else { Pooling::Mean };
                let pooled = self.drawing().pool(&image, window, pooling)?;
                self.channels_first(pooled, 0)?
            }
            _ => return Ok(None),
        }))
    }

    /// An image with its channels innermost: [1, height, width, channels].
    fn image(&mut self, place: usize) -> Drawn<View> {
        let view = self.view(place)?;
        channels_last(&mut self.door.drawing, &view)
    }

    /// A result with its channels in front, of as many sides as an input has.
    pub(super) fn channels_first(&mut self, view: View, place: usize) -> Drawn<View> {
        let rank = self.input(place)?.shape().len();
        channels_first(&mut self.door.drawing, &view, rank)
    }

    /// A convolution of floats.
    pub(super) fn conv(
        &mut self,
        input: &View,
        weights: &Array,
        bias: Option<Vec<f32>>,
    ) -> Drawn<View> {
        let rank = input.shape.len();
        let image = channels_last(&mut self.door.drawing, input)?;
        let groups = usize::try_from(self.number("group", 1)).unwrap_or(1).max(1);
        let kernel = Kernel::new(weights, image.shape[3], groups)?;
        let [_, height, width, _] = image.shape[..] else {
            return Err(Refused::new("no image", "one"));
        };
        let window = self.window([kernel.sides[0], kernel.sides[1]], [height, width], rank)?;
        let weights = kernel.weights(bias)?;
        let result = self.drawing().convolve(&image, window, &weights)?;
        channels_first(&mut self.door.drawing, &result, rank)
    }

    fn transposed(&mut self) -> Drawn<View> {
        let (input, weights) = (self.view(0)?, self.known(1)?);
        let rank = input.shape.len();
        let image = channels_last(&mut self.door.drawing, &input)?;
        if self.number("group", 1) != 1 || weights.shape.len() != rank {
            return Err(Refused::new("groups, or weights of other sides", "one group"));
        }
        let mut shape = weights.shape.clone();
        if rank == 3 {
            shape.insert(2, 1);
        }
        // [i, o, ky, kx] as [o, ky, kx, i].
        let four = Array { shape: shape.clone(), ..weights };
        let numbers = viewed(&four, |view| view.transposed(&[1, 2, 3, 0]))?.to_floats();
        let [_, height, width, _] = image.shape[..] else {
            return Err(Refused::new("no image", "one"));
        };
        let side = |name: &str, default: i64| sides_of(self.numbers(name), rank, default);
        let (stride, dilation) = (side("strides", 1)?, side("dilations", 1)?);
        let pads = self.pads(rank)?;
        let extra = side("output_padding", 0)?;
        if dilation != [1, 1] || !matches!(self.text("auto_pad"), "" | "NOTSET") {
            return Err(Refused::new("dilation, or padding by name", "neither"));
        }
        let kernel = [shape[2], shape[3]];
        let mut result = [0; 2];
        for (n, from) in [height, width].into_iter().enumerate() {
            let whole = (from - 1) * stride[n] + kernel[n] + extra[n];
            result[n] = whole.saturating_sub(pads[n] + pads[n + 2]);
        }
        if let Some(asked) = self.numbers("output_shape") {
            return Err(Refused::new(format!("output_shape {asked:?}"), "pads"));
        }
        let bias = if self.has(2) { Some(self.known(2)?.to_floats()) } else { None };
        let weights = Weights { numbers, outputs: shape[1], depthwise: false, bias };
        let window = Window::transposed(kernel, [pads[0], pads[1]], result)?;
        let drawn = self.drawing().convolve_transposed(&image, stride, window, &weights)?;
        channels_first(&mut self.door.drawing, &drawn, rank)
    }

    fn pool(&mut self, pooling: Pooling) -> Drawn<View> {
        if self.node.outputs.len() > 1 {
            return Err(Refused::new("indices of the largest", "the largest alone"));
        }
        let rank = self.input(0)?.shape().len();
        let image = self.image(0)?;
        let [_, height, width, _] = image.shape[..] else {
            return Err(Refused::new("no image", "one"));
        };
        let kernel = sides_of(self.numbers("kernel_shape"), rank, 1)?;
        let window = self.window(kernel, [height, width], rank)?;
        let pooled = self.drawing().pool(&image, window, pooling)?;
        self.channels_first(pooled, 0)
    }

    /// Rows above and columns left of an image, then below and right of it.
    fn pads(&self, rank: usize) -> Drawn<[usize; 4]> {
        let pads = self.numbers("pads").unwrap_or_default();
        if pads.iter().any(|pad| *pad > FAR) {
            return Err(Refused::new(format!("pads {pads:?}"), "of usual size"));
        }
        let pad = |n: usize| usize::try_from(pads[n]);
        let found = match (rank, pads.len()) {
            (_, 0) => Ok([0; 4]),
            (3, 2) => pad(0).and_then(|left| Ok([0, left, 0, pad(1)?])),
            (_, 4) => pad(0).and_then(|top| Ok([top, pad(1)?, pad(2)?, pad(3)?])),
            _ => return Err(Refused::new(format!("pads {pads:?}"), "two for each side")),
        };
        found.map_err(|_| Refused::new(format!("pads {pads:?}"), "none below 0"))
    }

    fn window(&self, kernel: [usize; 2], from: [usize; 2], rank: usize) -> Drawn<Window> {
        let side = |name: &str| sides_of(self.numbers(name), rank, 1);
        let (stride, dilation) = (side("strides")?, side("dilations")?);
        let mut pads = self.pads(rank)?;
        let mut result = [0; 2];
        for n in 0..2 {
            let reach = (kernel[n] - 1) * dilation[n] + 1;
            if let auto @ ("SAME_UPPER" | "SAME_LOWER") = self.text("auto_pad") {
                let size = from[n].div_ceil(stride[n]);
                let all = ((size - 1) * stride[n] + reach).saturating_sub(from[n]);
                let less = all / 2;
                let first = if auto == "SAME_UPPER" { less } else { all - less };
                (pads[n], pads[n + 2]) = (first, all - first);
            }
            let room = (from[n] + pads[n] + pads[n + 2]).checked_sub(reach);
            let room = room.ok_or_else(|| {
                Refused::new(format!("a window of {kernel:?} over {from:?}"), "one that fits")
            })?;
            let up = self.number("ceil_mode", 0) != 0;
            result[n] = if up { room.div_ceil(stride[n]) } else { room / stride[n] } + 1;
            // A window that begins behind the image is none.
            if up && (result[n] - 1) * stride[n] >= from[n] + pads[n] {
                result[n] -= 1;
            }
        }
        Ok(Window { kernel, stride, pad: [pads[0], pads[1]], dilation, result })
    }
}

/// A setting for each side of an image; a row of height 1 has one for its columns.
fn sides_of(numbers: Option<Vec<i64>>, rank: usize, default: i64) -> Drawn<[usize; 2]> {
    let numbers = numbers.unwrap_or_else(|| vec![default; rank.saturating_sub(2)]);
    let row = if default == 0 { 0 } else { 1 };
    if numbers.iter().any(|number| *number > FAR) {
        return Err(Refused::new(format!("{numbers:?}"), "numbers of usual size"));
    }
    let sides = match numbers[..] {
        [x] if rank == 3 => [row, x],
        [y, x] => [y, x],
        _ => return Err(Refused::new(format!("{numbers:?}"), "a number for each side")),
    };
    match sides.map(usize::try_from) {
        [Ok(y), Ok(x)] if y >= row as usize && x >= row as usize => Ok([y, x]),
        _ => Err(Refused::new(format!("{numbers:?}"), "numbers from 1 on")),
    }
}

/// An image, or a row of height 1, with its channels innermost.
pub(super) fn channels_last(drawing: &mut Drawing, view: &View) -> Drawn<View> {
    match view.shape[..] {
        [1, _, _, _] => view.transposed(&[0, 2, 3, 1]),
        [1, channels, width] => {
            drawing.reshape(view, &[1, channels, 1, width])?.transposed(&[0, 2, 3, 1])
        }
        _ => {
            let found = format!("an image {:?}", view.shape);
            Err(Refused::new(found, "[1, channels, height, width]"))
        }
    }
}

/// The other way about.
fn channels_first(drawing: &mut Drawing, view: &View, rank: usize) -> Drawn<View> {
    let turned = view.transposed(&[0, 3, 1, 2])?;
    match (rank, &turned.shape[..]) {
        (3, [n, channels, 1, width]) => {
            let shape = [*n, *channels, *width];
            drawing.reshape(&turned, &shape)
        }
        _ => Ok(turned),
    }
}

/// Weights [o, i, ky, kx] of some groups.
struct Kernel {
    numbers: Array,
    sides: [usize; 2],
    outputs: usize,
    inputs: usize,
    groups: usize,
}

impl Kernel {
    fn new(weights: &Array, inputs: usize, groups: usize) -> Drawn<Self> {
        let shape = match weights.shape[..] {
            [o, i, x] => vec![o, i, 1, x],
            _ => weights.shape.clone(),
        };
        let [outputs, each, height, width] = shape[..] else {
            return Err(Refused::new(format!("weights {shape:?}"), "four sides"));
        };
        let fits = each * groups == inputs && outputs.is_multiple_of(groups) && height * width > 0;
        if !fits {
            let found = format!("weights {shape:?} for {inputs} channels in {groups} groups");
            return Err(Refused::new(found, "channels that fit"));
        }
        let four = Array { shape, ..weights.clone() };
        // [o, ky, kx, i]
        let numbers = viewed(&four, |view| view.transposed(&[0, 2, 3, 1]))?;
        Ok(Self { numbers, sides: [height, width], outputs, inputs, groups })
    }

    fn weights(&self, bias: Option<Vec<f32>>) -> Drawn<Weights> {
        let (outputs, groups, inputs) = (self.outputs, self.groups, self.inputs);
        let taps = self.sides.iter().product::<usize>();
        if groups == inputs && groups > 1 {
            // [ky, kx, o]
            let flat = Array { shape: vec![outputs, taps], ..self.numbers.clone() };
            let turned = viewed(&flat, |view| view.transposed(&[1, 0]))?;
            return Ok(Weights { numbers: turned.to_floats(), outputs, depthwise: true, bias });
        }
        let numbers = self.numbers.to_floats();
        if groups == 1 {
            return Ok(Weights { numbers, outputs, depthwise: false, bias });
        }
        // Channels of other groups have weights of 0.
        let each = inputs / groups;
        count(&[outputs, taps, inputs])?;
        let mut dense = vec![0.0; outputs * taps * inputs];
        for (at, row) in numbers.chunks(each.max(1)).enumerate() {
            let first = at / taps / (outputs / groups) * each;
            dense[at * inputs + first..][..row.len()].copy_from_slice(row);
        }
        Ok(Weights { numbers: dense, outputs, depthwise: false, bias })
    }
}

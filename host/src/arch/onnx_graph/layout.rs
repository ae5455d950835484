//! Nodes that move elements and compute nothing.

use super::known::sizes;
use super::*;
use omex_core::ops::Alignment;

/// The most parts that a tensor is made of one by one.
const MAX_PARTS: usize = 64;

impl Call<'_> {
    /// A node of several results; none for others.
    pub(super) fn several(&mut self) -> Drawn<Option<Vec<Option<Tensor>>>> {
        match self.node.operation.as_str() {
            "Split" => self.split().map(Some),
            "LSTM" | "GRU" => self.recurrent().map(Some),
            "DynamicQuantizeLinear" => self.unrounded().map(Some),
            _ => match self.moved()? {
                Some(tensor) => Ok(Some(vec![Some(tensor)])),
                None => Ok(None),
            },
        }
    }

    fn reshaped(&mut self, tensor: &Tensor, shape: &[usize]) -> Drawn<Tensor> {
        Ok(match tensor {
            Tensor::Computed(view) => Tensor::Computed(self.drawing().reshape(view, shape)?),
            Tensor::Known(array) => {
                if count(shape)? != array.count() {
                    let found = format!("{:?} as {shape:?}", array.shape);
                    return Err(Refused::new(found, "as many elements"));
                }
                Tensor::Known(Array { shape: shape.to_vec(), ..array.clone() })
            }
        })
    }

    /// A node of which one tensor comes out as it went in, seen otherwise; none for others.
    fn moved(&mut self) -> Drawn<Option<Tensor>> {
        let operation = self.node.operation.as_str();
        let known = [
            "Identity",
            "Dropout",
            "Reshape",
            "Flatten",
            "Squeeze",
            "Unsqueeze",
            "Transpose",
            "Slice",
            "Expand",
        ];
        if !known.contains(&operation) {
            return Ok(None);
        }
        let tensor = self.input(0)?;
        let from = tensor.shape().to_vec();
        let rank = from.len();
        Ok(Some(match operation {
            "Reshape" => {
                let shape = self.target(&from)?;
                self.reshaped(&tensor, &shape)?
            }
            "Flatten" => {
                let at = self.number("axis", 1);
                let at = if at < 0 { at + rank as i64 } else { at }.clamp(0, rank as i64) as usize;
                let shape = [from[..at].iter().product(), from[at..].iter().product()];
                self.reshaped(&tensor, &shape)?
            }
            "Squeeze" => {
                let axes = match self.listed("axes", 1)? {
                    Some(listed) => axes(&listed, rank)?,
                    None => (0..rank).filter(|at| from[*at] == 1).collect(),
                };
                let kept = (0..rank).filter(|at| !axes.contains(at));
                let shape: Vec<_> = kept.map(|at| from[at]).collect();
                self.reshaped(&tensor, &shape)?
            }
            "Unsqueeze" => {
                let listed = self.listed("axes", 1)?.unwrap_or_default();
                let rank = rank + listed.len();
                let axes = axes(&listed, rank)?;
                let mut old = from.iter();
                let side = |at: usize| {
                    if axes.contains(&at) { 1 } else { old.next().copied().unwrap_or(1) }
                };
                let shape: Vec<_> = (0..rank).map(side).collect();
                self.reshaped(&tensor, &shape)?
            }
            "Transpose" => {
                let order = match self.numbers("perm") {
                    Some(order) => axes(&order, rank)?,
                    None => (0..rank).rev().collect::<Vec<_>>(),
                };
                seen(&tensor, |view| view.transposed(&order))?
            }
            "Slice" => self.slice(&tensor)?,
            "Expand" => {
                let shape = sizes(&self.known(1)?)?;
                let shape = super::super::tensors::broadcast_shape(&from, &shape)?;
                seen(&tensor, |view| view.broadcast(&shape))?
            }
            _ => tensor,
        }))
    }

    /// The dimensions that a reshape asks for: 0 as before, -1 whatever is left.
    fn target(&self, from: &[usize]) -> Drawn<Vec<usize>> {
        let wanted = self.listed("shape", 1)?.unwrap_or_default();
        let whole = self.number("allowzero", 0) != 0;
        let mut shape = vec![];
        for (at, side) in wanted.iter().enumerate() {
            shape.push(match side {
                -1 => 1,
                0 if !whole => from.get(at).copied().unwrap_or(0),
                side => usize::try_from(*side).unwrap_or(0),
            });
        }
        if let Some(open) = wanted.iter().position(|side| *side == -1) {
            let others = count(&shape)?;
            let all = count(from)?;
            if others == 0 || !all.is_multiple_of(others) {
                let found = format!("{from:?} as {wanted:?}");
                return Err(Refused::new(found, "dimensions of as many elements"));
            }
            shape[open] = all / others;
        }
        Ok(shape)
    }

    fn slice(&mut self, tensor: &Tensor) -> Drawn<Tensor> {
        let from = tensor.shape().to_vec();
        let none = || Refused::new("a slice without ends", "starts and ends");
        let starts = self.listed("starts", 1)?.ok_or_else(none)?;
        let ends = self.listed("ends", 2)?.ok_or_else(none)?;
        let axes = self.listed("axes", 3)?;
        let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let by = if self.has(4) { self.whole(4)? } else { vec![1; starts.len()] };
        if [ends.len(), axes.len(), by.len()] != [starts.len(); 3] {
            return Err(Refused::new("lists of other lengths", "a start and an end for each axis"));
        }
        let mut parts = vec![];
        for (n, at) in axes.iter().enumerate() {
            let at = axis(*at, from.len())?;
            let (start, count, by) = span(from[at], [Some(starts[n]), Some(ends[n])], by[n]);
            parts.push((at, start, count, by));
        }
        // An empty list of numbers stays one.
        if let (Tensor::Known(array), true) = (tensor, parts.iter().any(|part| part.2 == 0)) {
            let mut shape = from;
            parts.iter().for_each(|part| shape[part.0] = part.2);
            let empty = array.picked(shape, &[]);
            return empty.map(Tensor::Known).ok_or_else(|| Refused::new("a slice", "elements"));
        }
        seen(tensor, |mut view| {
            for (at, start, count, by) in parts {
                view = view.sliced(at, start, count, by)?;
            }
            Ok(view)
        })
    }

    fn split(&mut self) -> Drawn<Vec<Option<Tensor>>> {
        let tensor = self.input(0)?;
        let shape = tensor.shape().to_vec();
        let at = axis(self.number("axis", 0), shape.len())?;
        let parts = self.node.outputs.len().max(1);
        let sizes = match self.listed("split", 1)? {
            Some(sizes) => sizes.iter().map(|n| usize::try_from(*n).unwrap_or(0)).collect(),
            None => {
                let each = shape[at].div_ceil(parts);
                (0..parts).map(|n| each.min(shape[at].saturating_sub(n * each))).collect::<Vec<_>>()
            }
        };
        let mut start = 0;
        let mut results = vec![];
        for size in sizes {
            results.push(Some(seen(&tensor, |view| view.sliced(at, start, size, 1))?));
            start += size as i64;
        }
        Ok(results)
    }

    /// Nodes that copy; none for others.
    pub(super) fn layout(&mut self) -> Drawn<Option<View>> {
        Ok(Some(match self.node.operation.as_str() {
            "Concat" => {
                let mut views = vec![];
                for place in 0..self.node.inputs.len() {
                    views.push(self.view(place)?);
                }
                let rank = views.first().map_or(0, |view| view.shape.len());
                let at = axis(self.number("axis", 0), rank)?;
                self.drawing().concat(&views, at)?
            }
            "Pad" => self.pad()?,
            "DepthToSpace" | "SpaceToDepth" => self.blocks()?,
            "Gather" => self.gather()?,
            "Tile" => {
                let repeats = sizes(&self.known(1)?)?;
                let mut view = self.view(0)?;
                for (at, times) in repeats.into_iter().enumerate() {
                    if !(1..=MAX_PARTS).contains(&times) {
                        let expected = format!("1 to {MAX_PARTS}");
                        return Err(Refused::new(format!("{times} repetitions"), expected));
                    }
                    if times > 1 {
                        view = self.drawing().concat(&vec![view; times], at)?;
                    }
                }
                view
            }
            "Resize" | "Upsample" => self.resize()?,
            _ => return Ok(None),
        }))
    }

    fn pad(&mut self) -> Drawn<View> {
        let view = self.view(0)?;
        let rank = view.shape.len();
        let listed = self.listed("pads", 1)?.unwrap_or_default();
        let axes: Vec<usize> = match self.has(3) {
            true => axes(&self.whole(3)?, rank)?,
            false => (0..rank).collect(),
        };
        if listed.len() != 2 * axes.len() {
            return Err(Refused::new(format!("pads {listed:?}"), "two for each axis"));
        }
        let mut pads = vec![[0; 2]; rank];
        for (n, at) in axes.iter().enumerate() {
            pads[*at] = [listed[n], listed[n + axes.len()]];
        }
        match self.text("mode") {
            "" | "constant" => {
                let number = self.bound("value", 2)?.unwrap_or(0.0);
                self.drawing().pad(&view, &pads, number)
            }
            "reflect" => self.mirrored(view, &pads, 1),
            "edge" => self.mirrored(view, &pads, 0),
            other => Err(Refused::new(format!("mode {other}"), "constant, reflect or edge")),
        }
    }

    /// Elements before and behind each axis that are the image of those within, or of the last one.
    fn mirrored(&mut self, mut view: View, pads: &[[i64; 2]], by: i64) -> Drawn<View> {
        for (at, [before, after]) in pads.iter().enumerate() {
            let dim = view.shape[at] as i64;
            let part = |start: i64, count: i64| -> Drawn<Option<View>> {
                match usize::try_from(count).unwrap_or(0) {
                    0 => Ok(None),
                    count if by == 0 => {
                        let edge = view.sliced(at, start, 1, 1)?;
                        let mut shape = edge.shape.clone();
                        shape[at] = count;
                        edge.broadcast(&shape).map(Some)
                    }
                    count => view.sliced(at, start, count, -1).map(Some),
                }
            };
            let front = part(if by == 0 { 0 } else { *before }, *before)?;
            let back = part(if by == 0 { dim - 1 } else { dim - 2 }, *after)?;
            if front.is_some() || back.is_some() {
                let parts: Vec<View> =
                    front.into_iter().chain([view.clone()]).chain(back).collect();
                view = self.drawing().concat(&parts, at)?;
            }
        }
        Ok(view)
    }

    fn blocks(&mut self) -> Drawn<View> {
        let view = self.view(0)?;
        let size = usize::try_from(self.number("blocksize", 1)).unwrap_or(1).max(1);
        let [n, c, h, w] = view.shape[..] else {
            return Err(Refused::new(format!("{:?}", view.shape), "[1, channels, height, width]"));
        };
        let (split, order, shape) = match (self.node.operation.as_str(), self.text("mode")) {
            ("SpaceToDepth", _) => (
                [n, c, h / size, size, w / size, size],
                [0, 3, 5, 1, 2, 4],
                [n, c * size * size, h / size, w / size],
            ),
            (_, "CRD") => (
                [n, c / (size * size), size, size, h, w],
                [0, 1, 4, 2, 5, 3],
                [n, c / (size * size), h * size, w * size],
            ),
            _ => (
                [n, size, size, c / (size * size), h, w],
                [0, 3, 4, 1, 5, 2],
                [n, c / (size * size), h * size, w * size],
            ),
        };
        let split = self.drawing().reshape(&view, &split)?;
        let turned = split.transposed(&order)?;
        self.drawing().reshape(&turned, &shape)
    }

    fn gather(&mut self) -> Drawn<View> {
        let view = self.view(0)?;
        let at = axis(self.number("axis", 0), view.shape.len())?;
        let indices = self.known(1)?;
        let dim = view.shape[at] as i64;
        if indices.count() > MAX_PARTS {
            let found = format!("{} indices", indices.count());
            return Err(Refused::new(found, format!("{MAX_PARTS} at most")));
        }
        let mut parts = vec![];
        for index in indices.to_whole().unwrap_or_default() {
            let index = if index < 0 { index + dim } else { index };
            parts.push(view.sliced(at, index, 1, 1)?);
        }
        let joined = match &parts[..] {
            [only] => only.clone(),
            _ => self.drawing().concat(&parts, at)?,
        };
        let shape = [&view.shape[..at], &indices.shape, &view.shape[at + 1..]].concat();
        self.drawing().reshape(&joined, &shape)
    }

    fn resize(&mut self) -> Drawn<View> {
        let view = self.view(0)?;
        let [n, c, _, _] = view.shape[..] else {
            return Err(Refused::new(format!("{:?}", view.shape), "[1, channels, height, width]"));
        };
        let old = self.node.operation == "Upsample" || self.node.inputs.len() == 2;
        let (scales, size) = if old { (1, 9) } else { (2, 3) };
        let sides = match self.has(size) {
            true => sizes(&self.known(size)?)?,
            false => {
                let scales = match self.node.attributes.get("scales") {
                    Some(OnnxAttribute::Floats(scales)) => scales.clone(),
                    _ => self.known(scales)?.to_floats(),
                };
                let side = |(side, scale): (&usize, &f32)| (*side as f32 * scale) as usize;
                view.shape.iter().zip(&scales).map(side).collect()
            }
        };
        let [to_n, to_c, rows, columns] = sides[..] else {
            return Err(Refused::new(format!("sides {sides:?}"), "four"));
        };
        if [to_n, to_c] != [n, c] {
            return Err(Refused::new("other channels", "other rows and columns alone"));
        }
        let bilinear = match self.text("mode") {
            "linear" => true,
            "" | "nearest" => false,
            other => return Err(Refused::new(format!("mode {other}"), "nearest or linear")),
        };
        let default = if old { "asymmetric" } else { "half_pixel" };
        let how = self.text("coordinate_transformation_mode");
        let alignment = match if how.is_empty() { default } else { how } {
            "asymmetric" => Alignment::Corner,
            "half_pixel" => Alignment::HalfPixel,
            "pytorch_half_pixel" if rows > 1 && columns > 1 => Alignment::HalfPixel,
            "align_corners" => Alignment::Ends,
            other => return Err(Refused::new(format!("places by {other}"), "a usual way")),
        };
        let nearest = match self.text("nearest_mode") {
            "floor" => false,
            "" | "round_prefer_floor" => self.node.operation == "Resize",
            other if !bilinear => {
                return Err(Refused::new(format!("rounding by {other}"), "floor"));
            }
            _ => true,
        };
        let image = view.transposed(&[0, 2, 3, 1])?;
        let resized =
            self.drawing().resize(&image, [rows, columns], (alignment, bilinear, nearest))?;
        resized.transposed(&[0, 3, 1, 2])
    }
}

/// Changes how a tensor is seen, be it known or computed.
fn seen(tensor: &Tensor, change: impl FnOnce(View) -> Drawn<View>) -> Drawn<Tensor> {
    Ok(match tensor {
        Tensor::Known(array) => Tensor::Known(viewed(array, change)?),
        Tensor::Computed(view) => Tensor::Computed(change(view.clone())?),
    })
}

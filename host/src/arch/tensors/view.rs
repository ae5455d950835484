//! Values as operations of a graph see them: elements of a buffer, so far apart along each axis. Transposing,
//! slicing and repeating move nothing.

use super::refused::{Drawn, Refused};
use crate::import::Array;
use omex_core::program::Dtype;

/// What a step of a signed byte is worth, and the byte that stands for 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Scale {
    pub(in super::super) scale: f32,
    pub(in super::super) zero: i32,
}

/// Elements of a value of the graph that is drawn.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct View {
    /// The name of the value.
    pub(in super::super) buffer: String,
    pub(in super::super) dtype: Dtype,
    pub(in super::super) scale: Option<Scale>,
    pub(in super::super) shape: Vec<usize>,
    /// How far apart neighbours along each axis lie.
    pub(in super::super) steps: Vec<i64>,
    /// The first element.
    pub(in super::super) first: i64,
}

/// How far apart neighbours along each axis lie in an array in row-major order.
pub(in super::super) fn row_major(shape: &[usize]) -> Vec<i64> {
    let mut steps = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        steps[axis - 1] = steps[axis] * shape[axis] as i64;
    }
    steps
}

/// The most elements of a tensor.
const MAX_ELEMENTS: usize = 1 << 24;

/// The most of an array that is not stored, but made while a graph is read.
pub(in super::super) const MAX_MADE: usize = 1 << 20;
/// The most dimensions.
const MAX_RANK: usize = 8;
/// Steps, pads and the like that are larger lead beyond any tensor.
pub(in super::super) const FAR: i64 = 1 << 24;

/// The elements of arrays of this shape, if they are not too many.
pub(in super::super) fn count(shape: &[usize]) -> Result<usize, Refused> {
    let count = shape.iter().try_fold(1usize, |count, dim| count.checked_mul(*dim));
    let fits = |count: &usize| *count <= MAX_ELEMENTS && shape.len() <= MAX_RANK;
    count.filter(fits).ok_or_else(|| {
        let expected = format!("at most {MAX_RANK} of them, and {MAX_ELEMENTS} elements");
        Refused::new(format!("dimensions {shape:?}"), expected)
    })
}

/// Elements of an array that is known, in an order that takes no thought of it: a view of it, which is then
/// taken.
pub(in super::super) fn viewed(
    array: &Array,
    change: impl FnOnce(View) -> Result<View, Refused>,
) -> Result<Array, Refused> {
    let steps = row_major(&array.shape);
    let (buffer, dtype, shape) = (String::new(), Dtype::F32, array.shape.clone());
    let view = change(View { buffer, dtype, scale: None, shape, steps, first: 0 })?;
    if count(&view.shape)? > array.count().max(MAX_MADE) {
        let found = format!("{:?} of {:?}", view.shape, array.shape);
        return Err(Refused::new(found, format!("at most {MAX_MADE} elements")));
    }
    let mut places = vec![view.first];
    for (dim, step) in view.shape.iter().zip(&view.steps) {
        let along = |place: i64| (0..*dim as i64).map(move |n| place + n * step);
        places = places.into_iter().flat_map(along).collect();
    }
    let place = |place| usize::try_from(place).ok();
    let places: Option<Vec<_>> = places.into_iter().map(place).collect();
    let picked = places.and_then(|places| array.picked(view.shape, &places));
    picked.ok_or_else(|| Refused::new("elements that are not there", "elements of the tensor"))
}

/// An axis from the front, of which those from the back are negative.
pub(in super::super) fn axis(axis: i64, rank: usize) -> Result<usize, Refused> {
    let front = if axis < 0 { axis + rank as i64 } else { axis };
    let found = usize::try_from(front).ok().filter(|front| *front < rank);
    found.ok_or_else(|| Refused::new(format!("axis {axis}"), format!("an axis of {rank}")))
}

/// The same of several.
pub(in super::super) fn axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, Refused> {
    axes.iter().map(|at| axis(*at, rank)).collect()
}

/// The first and the number of the elements from `start` to before `end` along an axis of so many, every so
/// many: as Python slices, where negative places count from the end, and none stands for the end that elements
/// come from or go to.
pub(in super::super) fn span(
    dim: usize,
    [start, end]: [Option<i64>; 2],
    by: i64,
) -> (i64, usize, i64) {
    let (dim, by) = (dim as i64, by.clamp(-FAR, FAR));
    let (least, most) = if by > 0 { (0, dim) } else { (-1, dim - 1) };
    let place = |at: i64| {
        let front = if at < 0 { at.saturating_add(dim) } else { at };
        front.clamp(least, most)
    };
    let (first, last) = if by > 0 { (least, most) } else { (most, least) };
    let (start, end) = (start.map_or(first, place), end.map_or(last, place));
    let count = if by == 0 { 0 } else { (end - start + by - by.signum()) / by };
    (start, usize::try_from(count).unwrap_or(0), by)
}

impl View {
    pub(in super::super) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// True if the elements lie one after another in order; where is `first`.
    pub(in super::super) fn is_dense(&self) -> bool {
        let steps = row_major(&self.shape);
        let mut axes = self.shape.iter().zip(&self.steps).zip(&steps);
        axes.all(|((dim, step), dense)| *dim == 1 || step == dense)
    }

    /// The axes in this order.
    pub(in super::super) fn transposed(&self, order: &[usize]) -> Result<Self, Refused> {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..self.shape.len()) {
            let found = format!("axes {order:?} of {:?}", self.shape);
            return Err(Refused::new(found, "each axis once"));
        }
        let shape = order.iter().map(|axis| self.shape[*axis]).collect();
        let steps = order.iter().map(|axis| self.steps[*axis]).collect();
        Ok(Self { shape, steps, ..self.clone() })
    }

    /// Every so many elements along an axis from `start` on, `count` of them.
    pub(in super::super) fn sliced(
        &self,
        axis: usize,
        start: i64,
        count: usize,
        by: i64,
    ) -> Result<Self, Refused> {
        let dim = self.shape.get(axis).copied().unwrap_or(0) as i64;
        let last = i128::from(start) + (count as i128 - 1) * i128::from(by);
        let inside = |at: i128| (0..i128::from(dim)).contains(&at);
        if count == 0 || by.abs() > FAR || !inside(start.into()) || !inside(last) {
            let found = format!("elements {start} to {last} along axis {axis} of {:?}", self.shape);
            return Err(Refused::new(found, "elements that are there, one at least"));
        }
        let mut view = self.clone();
        view.first += start * self.steps[axis];
        view.steps[axis] *= by;
        view.shape[axis] = count;
        Ok(view)
    }

    /// Other dimensions of as many elements, if that takes no moving.
    pub(in super::super) fn reshaped(&self, shape: &[usize]) -> Option<Self> {
        // Runs of axes that lie as one, outermost first: elements, and the step of the innermost.
        let mut runs: Vec<(usize, i64)> = vec![];
        for (dim, step) in self.shape.iter().zip(&self.steps).filter(|(dim, _)| **dim != 1) {
            match runs.last_mut() {
                Some((count, inner)) if *inner == step * *dim as i64 => {
                    (*count, *inner) = (*count * dim, *step);
                }
                _ => runs.push((*dim, *step)),
            }
        }
        let mut steps = vec![0; shape.len()];
        let mut runs = runs.into_iter().rev();
        let (mut left, mut step) = runs.next().unwrap_or((1, 1));
        for (axis, dim) in shape.iter().enumerate().rev() {
            if *dim == 1 {
                continue;
            }
            if left == 1 {
                (left, step) = runs.next()?;
            }
            if !left.is_multiple_of(*dim) {
                return None;
            }
            (steps[axis], left, step) = (step, left / dim, step * *dim as i64);
        }
        (left == 1 && runs.next().is_none()).then(|| Self {
            shape: shape.to_vec(),
            steps,
            ..self.clone()
        })
    }

    /// Repeated along axes of 1 and new outer ones, as NumPy broadcasts.
    pub(in super::super) fn broadcast(&self, shape: &[usize]) -> Result<Self, Refused> {
        let lead = shape.len().checked_sub(self.shape.len());
        let fits = |lead: &usize| {
            let mut axes = self.shape.iter().zip(&shape[*lead..]);
            axes.all(|(own, dim)| own == dim || *own == 1)
        };
        let Some(lead) = lead.filter(fits) else {
            return Err(Refused::new(
                format!("dimensions {:?}", self.shape),
                format!("dimensions that can be repeated to {shape:?}"),
            ));
        };
        let repeated = |(dim, step): (&usize, &i64)| if *dim == 1 { 0 } else { *step };
        let own = self.shape.iter().zip(&self.steps).map(repeated);
        let steps = std::iter::repeat_n(0, lead).chain(own).collect();
        Ok(Self { shape: shape.to_vec(), steps, ..self.clone() })
    }
}

/// The dimensions that two operands are repeated to.
pub(in super::super) fn broadcast_shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Refused> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[usize], axis: usize| match (axis + shape.len()).checked_sub(rank) {
        Some(own) => shape[own],
        None => 1,
    };
    (0..rank)
        .map(|axis| match (dim(a, axis), dim(b, axis)) {
            (a, b) if a == b || b == 1 => Ok(a),
            (1, b) => Ok(b),
            _ => Err(Refused::new(
                format!("operands of {a:?} and {b:?}"),
                "dimensions that are equal or 1",
            )),
        })
        .collect()
}

/// Dimensions without those of 1, where axes that lie as one in all operands are one; 1 in front of the
/// others.
pub(super) fn merged<const N: usize, const AXES: usize>(
    shape: &[usize],
    steps: [&[i64]; N],
) -> Drawn<([u32; AXES], [[i32; AXES]; N])> {
    let mut axes: Vec<(usize, [i64; N])> = vec![];
    for (axis, dim) in shape.iter().enumerate().filter(|(_, dim)| **dim != 1) {
        let own = steps.map(|steps| steps[axis]);
        let joins = |outer: &[i64; N]| outer.iter().zip(own).all(|(o, i)| *o == i * *dim as i64);
        match axes.last_mut() {
            Some((outer, steps)) if joins(steps) => (*outer, *steps) = (*outer * dim, own),
            _ => axes.push((*dim, own)),
        }
    }
    if axes.len() > AXES {
        let found = format!("elements along {} axes, each with its own order", axes.len());
        return Err(Refused::new(found, format!("{AXES} at most")));
    }
    let (mut dims, mut all) = ([1; AXES], [[0; AXES]; N]);
    for (place, (dim, steps)) in (AXES - axes.len()..).zip(axes) {
        dims[place] = dim as u32;
        for (all, step) in all.iter_mut().zip(steps) {
            all[place] = i32::try_from(step)
                .map_err(|_| Refused::new(format!("a step of {step}"), "a smaller tensor"))?;
        }
    }
    Ok((dims, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(shape: &[usize]) -> View {
        View {
            buffer: "x".into(),
            dtype: Dtype::F32,
            scale: None,
            shape: shape.to_vec(),
            steps: row_major(shape),
            first: 0,
        }
    }

    #[test]
    fn reshaping_moves_nothing_where_runs_stay_whole() {
        let turned = view(&[2, 3, 4]).transposed(&[1, 0, 2]).unwrap();
        assert_eq!(turned.steps, [4, 12, 1]);
        assert_eq!(turned.reshaped(&[3, 2, 2, 2]).unwrap().steps, [4, 12, 2, 1]);
        assert_eq!(turned.reshaped(&[6, 4]), None, "3 and 2 do not lie as one");
        assert_eq!(view(&[2, 3, 4]).reshaped(&[24]).unwrap().steps, [1]);
        assert_eq!(view(&[1, 1]).reshaped(&[1, 1, 1]).unwrap().count(), 1);
        assert_eq!(view(&[4, 6]).reshaped(&[2, 2, 3, 2]).unwrap().steps, [12, 6, 2, 1]);
    }

    #[test]
    fn slices_and_repetitions_are_views() {
        let back = view(&[2, 5]).sliced(1, 4, 3, -2).unwrap();
        assert_eq!((back.first, &back.steps[..], &back.shape[..]), (4, &[5, -2][..], &[2, 3][..]));
        assert!(view(&[2, 5]).sliced(1, 4, 2, 2).is_err());
        assert_eq!(view(&[3, 1]).broadcast(&[2, 3, 4]).unwrap().steps, [0, 1, 0]);
        assert!(view(&[3]).broadcast(&[4]).is_err());
        assert_eq!(broadcast_shape(&[3, 1], &[2, 1, 4]).unwrap(), [2, 3, 4]);
    }
}

//! Numbers that are known before a graph is run.

use super::Refused;

/// An array in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Array {
    pub(in super::super) shape: Vec<usize>,
    pub(in super::super) numbers: Numbers,
}

/// The elements of an [`Array`].
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Numbers {
    F32(Vec<f32>),
    /// Signed bytes.
    I8(Vec<i8>),
    /// Integers of any other kind, and truth values.
    Whole(Vec<i64>),
}

/// The most elements of an array that is computed while a graph is read.
const MAX_ELEMENTS: usize = 1 << 24;

impl Array {
    pub(in super::super) fn floats(shape: Vec<usize>, numbers: Vec<f32>) -> Self {
        Self { shape, numbers: Numbers::F32(numbers) }
    }

    pub(in super::super) fn whole(shape: Vec<usize>, numbers: Vec<i64>) -> Self {
        Self { shape, numbers: Numbers::Whole(numbers) }
    }

    pub(in super::super) fn len(&self) -> usize {
        match &self.numbers {
            Numbers::F32(numbers) => numbers.len(),
            Numbers::I8(numbers) => numbers.len(),
            Numbers::Whole(numbers) => numbers.len(),
        }
    }

    /// The elements as floats.
    pub(in super::super) fn to_floats(&self) -> Vec<f32> {
        match &self.numbers {
            Numbers::F32(numbers) => numbers.clone(),
            Numbers::I8(numbers) => numbers.iter().map(|x| f32::from(*x)).collect(),
            Numbers::Whole(numbers) => numbers.iter().map(|x| *x as f32).collect(),
        }
    }

    /// The elements, if they are whole numbers.
    pub(in super::super) fn to_whole(&self) -> Option<Vec<i64>> {
        match &self.numbers {
            Numbers::Whole(numbers) => Some(numbers.clone()),
            Numbers::I8(numbers) => Some(numbers.iter().map(|x| i64::from(*x)).collect()),
            Numbers::F32(_) => None,
        }
    }

    /// The elements in the order of other dimensions, whose neighbours lie so far apart from `first` on.
    pub(in super::super) fn viewed(
        &self,
        shape: Vec<usize>,
        steps: &[i64],
        first: i64,
    ) -> Result<Self, Refused> {
        let places = places(&shape, steps, first)?;
        fn pick<T: Copy>(numbers: &[T], places: &[usize]) -> Option<Vec<T>> {
            places.iter().map(|place| numbers.get(*place).copied()).collect()
        }
        let numbers = match &self.numbers {
            Numbers::F32(numbers) => pick(numbers, &places).map(Numbers::F32),
            Numbers::I8(numbers) => pick(numbers, &places).map(Numbers::I8),
            Numbers::Whole(numbers) => pick(numbers, &places).map(Numbers::Whole),
        };
        let numbers = numbers.ok_or_else(|| Refused::new("indices past the end", "fewer"))?;
        Ok(Self { shape, numbers })
    }
}

/// The elements of arrays of this shape, if they are not too many.
pub(in super::super) fn count(shape: &[usize]) -> Result<usize, Refused> {
    let count = shape.iter().try_fold(1usize, |count, dim| count.checked_mul(*dim));
    count.filter(|count| *count <= MAX_ELEMENTS).ok_or_else(|| {
        Refused::new(format!("dimensions {shape:?}"), format!("at most {MAX_ELEMENTS} elements"))
    })
}

/// Where the elements of a view lie, in order.
fn places(shape: &[usize], steps: &[i64], first: i64) -> Result<Vec<usize>, Refused> {
    let mut places = vec![first];
    count(shape)?;
    for (dim, step) in shape.iter().zip(steps) {
        let along = |place: i64| (0..*dim as i64).map(move |n| place + n * step);
        places = places.into_iter().flat_map(along).collect();
    }
    let place = |place| usize::try_from(place).ok();
    let places: Option<Vec<_>> = places.into_iter().map(place).collect();
    places.ok_or_else(|| Refused::new("indices before the start", "indices from 0 on"))
}

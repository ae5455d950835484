//! Arrays of numbers that a model's file has.

/// An array in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Its dimensions; none of a single number.
    pub shape: Vec<usize>,
    /// The elements.
    pub numbers: Numbers,
}

/// The elements of an [`Array`].
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// Floats.
    F32(Vec<f32>),
    /// Signed bytes.
    I8(Vec<i8>),
    /// Bytes.
    U8(Vec<u8>),
    /// Integers of any other kind, and truth values.
    Whole(Vec<i64>),
}

impl Array {
    /// An array of floats.
    #[must_use]
    pub fn floats(shape: Vec<usize>, numbers: Vec<f32>) -> Self {
        Self { shape, numbers: Numbers::F32(numbers) }
    }

    /// An array of integers.
    #[must_use]
    pub fn whole(shape: Vec<usize>, numbers: Vec<i64>) -> Self {
        Self { shape, numbers: Numbers::Whole(numbers) }
    }

    /// How many elements there are.
    #[must_use]
    pub fn count(&self) -> usize {
        match &self.numbers {
            Numbers::F32(numbers) => numbers.len(),
            Numbers::I8(numbers) => numbers.len(),
            Numbers::U8(numbers) => numbers.len(),
            Numbers::Whole(numbers) => numbers.len(),
        }
    }

    /// The elements as floats.
    #[must_use]
    pub fn to_floats(&self) -> Vec<f32> {
        match &self.numbers {
            Numbers::F32(numbers) => numbers.clone(),
            Numbers::I8(numbers) => numbers.iter().map(|x| f32::from(*x)).collect(),
            Numbers::U8(numbers) => numbers.iter().map(|x| f32::from(*x)).collect(),
            Numbers::Whole(numbers) => numbers.iter().map(|x| *x as f32).collect(),
        }
    }

    /// The elements, if they are integers.
    #[must_use]
    pub fn to_whole(&self) -> Option<Vec<i64>> {
        match &self.numbers {
            Numbers::Whole(numbers) => Some(numbers.clone()),
            Numbers::I8(numbers) => Some(numbers.iter().map(|x| i64::from(*x)).collect()),
            Numbers::U8(numbers) => Some(numbers.iter().map(|x| i64::from(*x)).collect()),
            Numbers::F32(_) => None,
        }
    }

    /// The elements at these places, with other dimensions; none if some are not there.
    #[must_use]
    pub fn picked(&self, shape: Vec<usize>, places: &[usize]) -> Option<Self> {
        fn pick<T: Copy>(numbers: &[T], places: &[usize]) -> Option<Vec<T>> {
            places.iter().map(|place| numbers.get(*place).copied()).collect()
        }
        let numbers = match &self.numbers {
            Numbers::F32(numbers) => pick(numbers, places).map(Numbers::F32),
            Numbers::I8(numbers) => pick(numbers, places).map(Numbers::I8),
            Numbers::U8(numbers) => pick(numbers, places).map(Numbers::U8),
            Numbers::Whole(numbers) => pick(numbers, places).map(Numbers::Whole),
        };
        Some(Self { shape, numbers: numbers? })
    }
}

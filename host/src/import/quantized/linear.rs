//! Integers of 8 bits with a scale and a zero point for all of a matrix, or for each of its rows or columns:
//! `(integer - zero point) * scale`, ONNX's DequantizeLinear.

use crate::Result;
use crate::import::TensorInfo;
use crate::import::container::Container;
use crate::import::stored::StoredModel;

/// A matrix.
#[derive(Debug)]
pub(in super::super) struct Linear {
    /// The tensor of integers.
    integers: String,
    info: TensorInfo,
    signed: bool,
    /// What stands for 0, and what a step is worth.
    steps: Steps,
}

#[derive(Debug)]
enum Steps {
    Whole([f32; 2]),
    Rows(Vec<[f32; 2]>),
    Columns(Vec<[f32; 2]>),
}

impl Linear {
    /// A matrix of the integers in a tensor of this shape. Scales and zero points are one for all, or one for each
    /// row, or column; without zero points, they are 0. None where they are fewer or more.
    pub(in super::super) fn new(
        (integers, info): (&str, TensorInfo),
        signed: bool,
        (scales, zeros): (&[f32], Option<&[f32]>),
        by_row: bool,
    ) -> Option<Self> {
        let zeros = zeros.unwrap_or(&[0.0]);
        let side = if by_row { info.rows } else { info.columns } as usize;
        let fits = |numbers: &[f32]| numbers.len() == 1 || numbers.len() == side;
        if !fits(scales) || !fits(zeros) {
            return None;
        }
        let of =
            |numbers: &[f32], at: usize| if numbers.len() == 1 { numbers[0] } else { numbers[at] };
        let each = || (0..side).map(|at| [of(zeros, at), of(scales, at)]).collect();
        let steps = match by_row {
            _ if scales.len() == 1 && zeros.len() == 1 => Steps::Whole([zeros[0], scales[0]]),
            true => Steps::Rows(each()),
            false => Steps::Columns(each()),
        };
        Some(Self { integers: integers.to_owned(), info, signed, steps })
    }

    pub(super) fn shape(&self) -> [u32; 2] {
        [self.info.rows, self.info.columns]
    }

    /// The tensor that holds the integers.
    pub(super) fn stored_as(&self) -> &str {
        &self.integers
    }

    pub(super) fn read_row(&self, model: &StoredModel, row: u32, out: &mut [f32]) -> Result<()> {
        let mut bytes = vec![];
        model.read_row_bytes(&self.integers, row, &mut bytes)?;
        let whole = match &self.steps {
            Steps::Whole(step) => Some(*step),
            Steps::Rows(steps) => Some(steps[row as usize]),
            Steps::Columns(_) => None,
        };
        for (column, (x, byte)) in out.iter_mut().zip(bytes).enumerate() {
            let [zero, scale] = match (&self.steps, whole) {
                (Steps::Columns(steps), _) => steps[column],
                (_, step) => step.unwrap_or_default(),
            };
            let integer = if self.signed { f32::from(byte.cast_signed()) } else { f32::from(byte) };
            *x = (integer - zero) * scale;
        }
        Ok(())
    }
}

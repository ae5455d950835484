//! Elements of one value, in another order, in another: transposing, slicing, joining, repeating, padding.

use super::{Form, Numbers, Operation, operands};
use crate::engine::memory::Element;
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::{Check, MAX_WIDTH, Per};
use serde::{Deserialize, Serialize};

/// Axes of a rearrangement.
pub const AXES: usize = 5;

/// `output`[`to_first` + Σ i_a · `to`_a] = `input`[`from_first` + Σ i_a · `from`_a] for all indices i_a below
/// `dims`_a; other elements of the output stay. Values have one type and one column.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Rearrange<F: Form = Numbers> {
    /// Where elements come from.
    pub input: F::Value,
    /// Where they go, apart from the input.
    pub output: F::Value,
    /// How many indices there are along each axis, the outermost first.
    pub dims: [u32; AXES],
    /// How far apart neighbours along an axis lie in the input; 0 repeats.
    pub from: [i32; AXES],
    /// And in the output.
    pub to: [i32; AXES],
    /// The first element that is read.
    #[serde(default)]
    pub from_first: u32,
    /// The first element that is written.
    #[serde(default)]
    pub to_first: u32,
}

operands!(Rearrange { read input, update output; dims, from, to, from_first, to_first });

/// Checks that all elements that steps lead to lie in a value of this width.
pub(super) fn check_steps<const N: usize>(
    check: &Check<'_>,
    dims: [u32; N],
    steps: [i32; N],
    first: u32,
    width: u32,
) -> Result<(), Fault> {
    let (mut least, mut most) = (i64::from(first), i64::from(first));
    for (dim, step) in dims.into_iter().zip(steps) {
        check.that((1..=MAX_WIDTH).contains(&dim))?;
        let reach = i64::from(dim - 1) * i64::from(step);
        if reach < 0 { least += reach } else { most += reach }
    }
    check.that(least >= 0 && most < i64::from(width))
}

/// Checks that there are not more indices than a value may have elements.
pub(super) fn check_count<const N: usize>(check: &Check<'_>, dims: [u32; N]) -> Result<(), Fault> {
    let count = dims.into_iter().try_fold(1u32, u32::checked_mul);
    check.that(count.is_some_and(|count| count <= MAX_WIDTH))
}

/// Shows `row` the places of the first elements of all rows along the innermost axis, as steps lead to
/// them.
pub(super) fn for_each_row<const N: usize, const VALUES: usize>(
    dims: [u32; N],
    steps: [[i32; N]; VALUES],
    firsts: [u32; VALUES],
    mut row: impl FnMut([isize; VALUES]),
) {
    let mut places = firsts.map(|first| first as isize);
    let mut indices = [0u32; N];
    loop {
        row(places);
        let mut axis = N.saturating_sub(1);
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            let (Some(index), Some(dim)) = (indices.get_mut(axis), dims.get(axis)) else { return };
            *index += 1;
            let back = if *index < *dim { 0 } else { *index };
            for (place, steps) in places.iter_mut().zip(&steps) {
                let step = steps.get(axis).copied().unwrap_or_default() as isize;
                *place += step - back as isize * step;
            }
            if back == 0 {
                break;
            }
            *index = 0;
        }
    }
}

impl Operation for Rearrange {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let kind = check.value(self.output)?;
        check.that(kind.0 == Per::Pass && check.value(self.input)? == kind)?;
        check_count(check, self.dims)?;
        check_steps(check, self.dims, self.from, self.from_first, self.input.width)?;
        check_steps(check, self.dims, self.to, self.to_first, self.output.width)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let slot = player.program.slot(self.output.slot).ok_or(RunError::Program)?;
        match slot.dtype.bytes() {
            1 => self.copy::<i8>(player),
            2 => self.copy::<i16>(player),
            _ => self.copy::<i32>(player),
        }
    }
}

impl Rearrange {
    fn copy<T: Element + Copy>(&self, player: &mut Player<'_>) -> Result<(), RunError> {
        let Player { memory, program, inputs, .. } = player;
        let ([input], mut output) =
            memory.split_as::<1, T, T>(program, inputs.counts(), [self.input], self.output)?;
        let (input, output) = (input.column(0), output.column(0));
        let [.., count] = self.dims.map(|dim| dim as usize);
        let ([.., from_step], [.., to_step]) = (self.from, self.to);
        let firsts = [self.from_first, self.to_first];
        for_each_row(self.dims, [self.from, self.to], firsts, |[from, to]| {
            if (from_step, to_step) == (1, 1) {
                let read = input.get(from as usize..from as usize + count);
                let written = output.get_mut(to as usize..to as usize + count);
                if let (Some(read), Some(written)) = (read, written) {
                    written.copy_from_slice(read);
                }
                return;
            }
            let (mut from, mut to) = (from, to);
            for _ in 0..count {
                if let (Some(x), Some(y)) = (input.get(from as usize), output.get_mut(to as usize))
                {
                    *y = *x;
                }
                from += from_step as isize;
                to += to_step as isize;
            }
        });
        Ok(())
    }
}

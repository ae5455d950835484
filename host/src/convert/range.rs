//! Weights that a format can't hold are refused by name: infinite ones would end every run, and one
//! that is not a number would silently become one that is.

use crate::import::Container;
use crate::quantize::Group;
use crate::{Error, Result};
use half::f16;
use omex_core::quant::{Format, GROUP};

/// Reads a row of numbers that can be stored in `format`.
///
/// # Errors
/// Those of [`Container::read_row`], or the first number that can't.
pub(super) fn read_row(
    source: &dyn Container,
    (name, row): (&str, u32),
    format: Format,
    out: &mut [f32],
) -> Result<()> {
    source.read_row(name, row, out)?;
    let (least, most) = range(format);
    let outside = |x: &f32| !(least..=most).contains(x);
    match out.iter().position(outside) {
        None => Ok(()),
        Some(column) => Err(refusal(source, (name, row, column), out[column], format)),
    }
}

/// Checks that blocks of integers, of a row that was read or made, have scales that are numbers.
///
/// # Errors
/// The first that has not.
pub(super) fn check_scales(
    source: &dyn Container,
    (name, row): (&str, u32),
    groups: &[Group],
    format: Format,
) -> Result<()> {
    let scale = |group: &Group| match group {
        Group::Integers(scale, _) => *scale,
        Group::Floats(_) => f16::ZERO,
    };
    match groups.iter().position(|group| !scale(group).is_finite()) {
        None => Ok(()),
        Some(group) => {
            Err(refusal(source, (name, row, group * GROUP), scale(&groups[group]).to_f32(), format))
        }
    }
}

/// The numbers that a format can hold; where there are scales, they are f16.
fn range(format: Format) -> (f32, f32) {
    let most = f16::MAX.to_f32();
    match format {
        Format::F32 | Format::Vector | Format::Channels => (f32::MIN, f32::MAX),
        Format::F16 => (-most, most),
        Format::Int8 => (-127.0 * most, 127.0 * most),
        Format::Int4 => (-8.0 * most, 7.0 * most),
    }
}

fn refusal(
    source: &dyn Container,
    (name, row, column): (&str, u32, usize),
    found: f32,
    format: Format,
) -> Error {
    let precision = format!("{format:?}").to_lowercase();
    let (least, most) = range(format);
    let remedy = match found.is_finite() {
        true => "convert with another --quantization",
        false => "the file is damaged or the model's training failed: get it again",
    };
    let field = format!("{name}: row {row}, column {column}");
    let expected = format!("a number from {least:e} to {most:e}, as {precision} can hold");
    Error::malformed(source.tensor_path(name), field, found.to_string(), expected, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::quantize;

    #[test]
    fn what_lies_in_the_range_is_stored_and_what_does_not_is_not() {
        for format in [Format::Int8, Format::Int4] {
            for edge in [range(format).0, range(format).1] {
                let mut x = [0.0; GROUP];
                x[5] = edge;
                let stored = quantize(format, &x).values()[5];
                assert!((stored / edge - 1.0).abs() < 1e-3, "{format:?}: {stored} of {edge}");
            }
        }
        assert!(f16::from_f32(range(Format::F16).1).is_finite());
    }
}

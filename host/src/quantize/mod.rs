//! Floats to blocks of weights.

mod gptq;

pub use gptq::{Compensation, Hessian};

use half::f16;
use omex_core::quant::{FloatGroup, Format, GROUP, PANEL, float16, float32, int4, int8};
use serde::{Deserialize, Serialize};

/// A weight format by the name that users type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// A vector of 32-bit floats.
    Vector,
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit integers, 32 a scale.
    Int8,
    /// 4-bit integers, 32 a scale.
    Int4,
    /// Rows of integer operations: bias, multiplier, shift, and signed bytes.
    Channels,
}

impl From<Precision> for Format {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Vector => Self::Vector,
            Precision::F32 => Self::F32,
            Precision::F16 => Self::F16,
            Precision::Int8 => Self::Int8,
            Precision::Int4 => Self::Int4,
            Precision::Channels => Self::Channels,
        }
    }
}

/// One group of a row, ready to be laid into a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Group {
    /// Floats, for the float formats.
    Floats(FloatGroup),
    /// Integers and their scale, for the integer formats.
    Integers(f16, [i8; GROUP]),
}

impl Group {
    /// The weights that it stands for.
    #[must_use]
    pub fn values(&self) -> FloatGroup {
        match self {
            Self::Floats(x) => *x,
            Self::Integers(scale, q) => {
                let scale = scale.to_f32();
                q.map(|q| f32::from(q) * scale)
            }
        }
    }
}

/// Quantizes a group of floats to a matrix format, with the scale that minimises the squared
/// error.
#[must_use]
pub fn quantize(format: Format, x: &FloatGroup) -> Group {
    match format {
        Format::Int8 => best_scale(x, -127, 127, &[1.0]),
        Format::Int4 => best_scale(x, -8, 7, &INT4_RANGES),
        Format::F32 | Format::F16 | Format::Vector | Format::Channels => Group::Floats(*x),
    }
}

/// How much of the largest magnitude the outermost level covers, to begin the search with.
const INT4_RANGES: [f32; 9] = [0.68, 0.74, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1];

/// The scale of int4 for a group.
fn int4_scale(x: &FloatGroup) -> f16 {
    match best_scale(x, -8, 7, &INT4_RANGES) {
        Group::Integers(scale, _) => scale,
        Group::Floats(_) => f16::ZERO,
    }
}

/// Tries scales around the one that the largest value asks for. For each, the values are rounded,
/// the scale is fitted to the rounded ones by least squares, and they are rounded again.
fn best_scale(x: &FloatGroup, low: i8, high: i8, ranges: &[f32]) -> Group {
    let largest = largest(x);
    if !largest.is_finite() {
        return Group::Integers(f16::NAN, [0; GROUP]);
    }
    // Both signs where the range reaches further on one side; elsewhere the other sign's is a mirror image.
    let levels = [low, high].map(f32::from);
    let levels = if low == -high { &levels[..1] } else { &levels };
    let mut best = (f32::INFINITY, f16::ZERO, [0.0; GROUP]);
    let mut consider = |scale: f16, q: FloatGroup| {
        let error = squared_error(x, scale, &q);
        if error < best.0 {
            best = (error, scale, q);
        }
    };
    for range in ranges {
        for level in levels {
            let start = f16::from_f32(largest * range / level);
            let q = round(x, start, low, high);
            consider(start, q);
            if let Some(fitted) = fit(x, &q).filter(|fitted| *fitted != start) {
                consider(fitted, round(x, fitted, low, high));
            }
        }
    }
    Group::Integers(best.1, best.2.map(|q| q as i8))
}

/// The first value of the largest magnitude.
fn largest(x: &FloatGroup) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for x in x.as_chunks::<LANES>().0 {
        lanes.iter_mut().zip(x).for_each(|(lane, x)| *lane = lane.max(x.abs()));
    }
    let most = lanes.into_iter().fold(0.0, f32::max);
    x.iter().copied().find(|x| x.abs() == most).unwrap_or(most)
}

/// Values in units of the scale, as whole numbers within the limits.
fn round(x: &FloatGroup, scale: f16, low: i8, high: i8) -> FloatGroup {
    let scale = scale.to_f32();
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let limits = (f32::from(low), f32::from(high));
    // Floats around this one are whole numbers, so that adding it rounds, ties to even. The method
    // for that is a call of a library where no instruction set can be assumed.
    const WHOLE: f32 = 1.5 * (1u32 << 23) as f32;
    x.map(|v| (v * inverse).clamp(limits.0, limits.1) + WHOLE - WHOLE)
}

fn fit(x: &FloatGroup, q: &FloatGroup) -> Option<f16> {
    let squares = sum(q, q, |q, _| q * q);
    (squares > 0.0).then(|| f16::from_f32(sum(x, q, |x, q| x * q) / squares))
}

fn squared_error(x: &FloatGroup, scale: f16, q: &FloatGroup) -> f32 {
    let scale = scale.to_f32();
    sum(x, q, |x, q| (x - q * scale) * (x - q * scale))
}

/// Sums that do not wait for one another.
const LANES: usize = 8;

fn sum(a: &FloatGroup, b: &FloatGroup, term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += term(*a, *b);
        }
    }
    lanes.iter().sum()
}

/// Lays up to [`PANEL`] rows of groups into the blocks of one panel, appended to `out`. The groups
/// are those that [`quantize`] makes for this format.
pub fn write_panel(format: Format, rows: &[Vec<Group>], out: &mut Vec<u8>) {
    let groups = rows.first().map_or(0, Vec::len);
    for g in 0..groups {
        let lanes =
            rows.iter().take(PANEL).enumerate().filter_map(|(lane, row)| Some((lane, row.get(g)?)));
        match format {
            Format::Int8 => {
                let mut block = int8::EMPTY;
                for_integers(lanes, |lane, scale, q| int8::write_row(&mut block, lane, scale, q));
                out.extend_from_slice(&block);
            }
            Format::Int4 => {
                let mut block = int4::EMPTY;
                for_integers(lanes, |lane, scale, q| int4::write_row(&mut block, lane, scale, q));
                out.extend_from_slice(&block);
            }
            Format::F16 => {
                let mut block = [0; float16::BLOCK_BYTES];
                for_floats(lanes, |lane, x| float16::write_row(&mut block, lane, x));
                out.extend_from_slice(&block);
            }
            Format::F32 | Format::Vector | Format::Channels => {
                let mut block = [0; float32::BLOCK_BYTES];
                for_floats(lanes, |lane, x| float32::write_row(&mut block, lane, x));
                out.extend_from_slice(&block);
            }
        }
    }
}

fn for_floats<'g>(
    lanes: impl Iterator<Item = (usize, &'g Group)>,
    mut write: impl FnMut(usize, &FloatGroup),
) {
    for (lane, group) in lanes {
        if let Group::Floats(x) = group {
            write(lane, x);
        }
    }
}

fn for_integers<'g>(
    lanes: impl Iterator<Item = (usize, &'g Group)>,
    mut write: impl FnMut(usize, f16, &[i8; GROUP]),
) {
    for (lane, group) in lanes {
        if let Group::Integers(scale, q) = group {
            write(lane, *scale, q);
        }
    }
}

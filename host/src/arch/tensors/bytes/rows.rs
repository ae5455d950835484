//! Weights of convolutions as bytes.

use super::step::Step;
use crate::arch::blueprint::{Data, Role, TensorPlan};
use crate::fixed_point::quantize_multiplier;

/// The numbers of a convolution.
pub(super) struct Weights<'w> {
    pub(super) numbers: &'w [f32],
    /// Output channels.
    pub(super) rows: usize,
    /// The numbers of a channel are a column, not a row.
    pub(super) turned: bool,
}

impl Weights<'_> {
    /// The numbers of an output channel.
    fn channel(&self, channel: usize) -> Vec<f32> {
        let columns = self.numbers.len() / self.rows.max(1);
        match self.turned {
            true => (0..columns).map(|at| self.numbers[at * self.rows + channel]).collect(),
            false => self.numbers[channel * columns..][..columns].to_vec(),
        }
    }

    /// True if the weights of each channel are whole numbers of some steps.
    pub(super) fn are_whole(&self) -> bool {
        (0..self.rows).all(|channel| whole_steps(&self.channel(channel)).is_some())
    }
}

/// The rows of a convolution's weights, symmetric with a scale for each channel: bias, multiplier, shift and bytes.
pub(super) fn channels(
    name: String,
    weights: &Weights<'_>,
    bias: Option<&[f32]>,
    (from, to): (Step, Step),
) -> Option<TensorPlan> {
    let rows = weights.rows;
    let columns = weights.numbers.len().checked_div(rows)?;
    if columns * rows != weights.numbers.len() || bias.is_some_and(|bias| bias.len() != rows) {
        return None;
    }
    let mut bytes = vec![];
    for channel in 0..rows {
        let numbers = weights.channel(channel);
        let bias = bias.map_or(0.0, |bias| bias[channel]);
        // Biases have 31 bits.
        let least = bias.abs() / (from.scale * (1 << 30) as f32);
        let scale = scale_of(&numbers).max(least);
        let scale = if scale > 0.0 && scale.is_finite() { scale } else { 1.0 };
        let factor = f64::from(from.scale) * f64::from(scale);
        let (multiplier, shift) = quantize_multiplier(factor / f64::from(to.scale));
        let bias = (f64::from(bias) / factor).round() as i32;
        bytes.extend([bias, multiplier, shift].iter().flat_map(|word| word.to_le_bytes()));
        let byte = |x: &f32| (x / scale).round().clamp(-127.0, 127.0) as i8;
        bytes.extend(numbers.iter().map(|x| byte(x).cast_unsigned()));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Some(TensorPlan {
        name,
        role: Role::Channels,
        rows: rows as u32,
        columns: columns as u32,
        data: Data::Raw(bytes),
        skipped: 0,
    })
}

/// The largest byte of weights.
const LARGEST: u8 = 127;

/// What a step of weights is worth: such that all are whole numbers of steps, if they are of some; if not, such that
/// the largest has the largest byte.
fn scale_of(numbers: &[f32]) -> f32 {
    let steps = whole_steps(numbers).map_or(LARGEST, |steps| LARGEST / steps * steps);
    largest(numbers) / f32::from(steps)
}

/// The fewest steps that the largest of some numbers may be if all are whole numbers of them.
fn whole_steps(numbers: &[f32]) -> Option<u8> {
    let largest = largest(numbers);
    (1..=LARGEST).find(|steps| {
        let scale = largest / f32::from(*steps);
        // Bytes lie at least 1/127 of a step apart from the whole numbers of other steps.
        let whole = |x: &f32| (x / scale - (x / scale).round()).abs() < 1e-3;
        numbers.iter().all(whole) || largest == 0.0
    })
}

fn largest(numbers: &[f32]) -> f32 {
    numbers.iter().fold(0.0f32, |most, x| most.max(x.abs()))
}

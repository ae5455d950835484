//! Which experts of a mixture a token is sent to (arXiv:2401.04088).

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::math::exp;
use crate::program::{Check, MAX_WIDTH};
use serde::{Deserialize, Serialize};

/// The most experts that a token is sent to.
pub(super) const MAX_CHOSEN: u32 = 64;

/// `output` = for each of the k largest numbers of `input`, largest first, which one it is, and its
/// share in the softmax over the k.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Route<F: Form = Numbers> {
    /// A score for each expert.
    pub input: F::Value,
    /// [k, 2]: an expert's number, and its weight.
    pub output: F::Value,
}

operands!(Route { read input, write output });

impl Operation for Route {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.floats(&[self.input, self.output])?;
        // Numbers up to 2^24 are exact as floats.
        check.that(self.input.width <= MAX_WIDTH)?;
        check_choice(check, self.output.width, self.input.width)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let ([input], mut output) = player.values([self.input], self.output)?;
        for column in 0..output.count {
            choose(input.column(column), output.column(column));
        }
        Ok(())
    }
}

/// Checks that a choice of this width is one of some of the experts.
pub(super) fn check_choice(check: &Check<'_>, width: u32, experts: u32) -> Result<(), Fault> {
    let chosen = width / 2;
    check.equal(width, 2 * chosen)?;
    check.that((1..=MAX_CHOSEN.min(experts)).contains(&chosen))
}

/// Fills in the largest scores' numbers and weights. Scores that are not numbers count as the largest,
/// so that they are not lost; of equal ones the first comes first.
fn choose(scores: &[f32], chosen: &mut [f32]) {
    let chosen = chosen.as_chunks_mut::<2>().0;
    for place in 0..chosen.len() {
        let (before, rest) = chosen.split_at_mut(place);
        let mut best: Option<(usize, f32)> = None;
        for (number, score) in scores.iter().enumerate() {
            let larger =
                best.is_none_or(|(_, best)| *score > best || score.is_nan() && !best.is_nan());
            if larger && before.iter().all(|[other, _]| *other != number as f32) {
                best = Some((number, *score));
            }
        }
        if let (Some((number, score)), Some(found)) = (best, rest.first_mut()) {
            *found = [number as f32, score];
        }
    }
    let largest = chosen.first().map_or(0.0, |[_, score]| *score);
    let mut sum = 0.0;
    for [_, weight] in chosen.iter_mut() {
        *weight = exp(*weight - largest);
        sum += *weight;
    }
    chosen.iter_mut().for_each(|[_, weight]| *weight /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_chosen_and_weighed() {
        let mut chosen = [0.0; 4];
        choose(&[1.0, 3.0, 3.0, -1.0], &mut chosen);
        assert_eq!(chosen, [1.0, 0.5, 2.0, 0.5]);
        choose(&[0.0, 2.0, 1.0], &mut chosen);
        assert_eq!((chosen[0], chosen[2]), (1.0, 2.0));
        let e = core::f32::consts::E;
        assert!(
            (chosen[1] - e / (e + 1.0)).abs() < 1e-6 && (chosen[3] - 1.0 / (e + 1.0)).abs() < 1e-6
        );
    }

    #[test]
    fn what_is_not_a_number_is_not_lost() {
        let mut chosen = [0.0; 4];
        choose(&[5.0, -f32::NAN, 7.0], &mut chosen);
        assert!(chosen[0] == 1.0 && chosen[2] == 2.0);
        assert!(chosen[1].is_nan() && chosen[3].is_nan());
        choose(&[f32::INFINITY, 0.0], &mut chosen);
        assert!(chosen[1].is_nan());
    }
}

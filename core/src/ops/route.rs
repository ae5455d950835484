//! Which experts of a mixture a token is sent to (arXiv:2401.04088).

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::math::exp;
use crate::program::{Check, Dtype, MAX_WIDTH, Per};
use serde::{Deserialize, Serialize};

/// The most experts that a token is sent to, and the most groups that they lie in.
pub(super) const MAX_CHOSEN: u32 = 64;

/// What the weights of the chosen experts are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// The softmax over the scores of the chosen (Mixtral, arXiv:2401.04088).
    #[default]
    Softmax,
    /// The softmax over all scores (OLMoE, arXiv:2409.02060).
    SoftmaxOfAll,
    /// The scores themselves.
    Scores,
    /// The scores, divided by the sum of the chosen and 1e-20 (DeepSeek-V3, arXiv:2412.19437).
    Shares,
}

/// `output` = for each of the k largest numbers of `input`, largest first, which one it is, and its
/// weight.
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
    /// What weights are made of.
    #[serde(default)]
    pub weights: Weights,
    /// What weights are multiplied with; 0 stands for 1.
    #[serde(default)]
    pub factor: f32,
    /// A number for each expert, once a pass, that is added to its score for the choice, and not for
    /// its weight (DeepSeek-V3, arXiv:2412.19437).
    #[serde(default)]
    pub bias: Option<F::Value>,
    /// Experts lie in so many groups of one size; 0 for no groups.
    #[serde(default)]
    pub groups: u32,
    /// Of the groups, how many a token's experts are chosen from: those with the largest scores.
    #[serde(default)]
    pub kept_groups: u32,
    /// A number for each expert, once a pass, that its weight is multiplied with.
    #[serde(default)]
    pub factors: Option<F::Value>,
    /// A group's score is its best expert's (DeepSeek-V2, arXiv:2405.04434), not the sum of its best two's
    /// (DeepSeek-V3).
    #[serde(default)]
    pub by_best: bool,
}

operands!(Route {
    read input, write output, maybe_read bias, maybe_read factors; weights, factor, groups, kept_groups, by_best
});

impl Operation for Route {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.floats(&[self.input, self.output])?;
        // Numbers up to 2^24 are exact as floats.
        check.that(self.input.width <= MAX_WIDTH)?;
        check.that(self.factor.is_finite())?;
        check_choice(check, self.output.width, self.input.width)?;
        for of_experts in [self.bias, self.factors].into_iter().flatten() {
            check.that(check.value(of_experts)? == (Per::Pass, Dtype::F32))?;
            check.equal(of_experts.width, self.input.width)?;
        }
        if self.groups == 0 {
            return check.equal(self.kept_groups, 0);
        }
        let size = self.input.width / self.groups;
        check.that(self.groups <= MAX_CHOSEN && size >= 2)?;
        check.equal(size * self.groups, self.input.width)?;
        check.that((1..=self.groups).contains(&self.kept_groups))?;
        check.that(self.output.width / 2 <= size * self.kept_groups)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let [bias, factors] = [self.bias, self.factors].map(|value| value.unwrap_or(self.input));
        let ([input, bias, factors], mut output) =
            player.values([self.input, bias, factors], self.output)?;
        let bias = self.bias.map_or(&[][..], |_| bias.column(0));
        let factors = self.factors.map_or(&[][..], |_| factors.column(0));
        for column in 0..output.count {
            let scores = Choice { scores: input.column(column), bias };
            let chosen = output.column(column).as_chunks_mut::<2>().0;
            scores.choose(self.groups(&scores), chosen);
            scores.weigh(self.weights, if self.factor == 0.0 { 1.0 } else { self.factor }, chosen);
            for [number, weight] in chosen {
                *weight *= factors.get(*number as usize).unwrap_or(&1.0);
            }
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

impl Route {
    /// The size of a group, and the groups that are kept, a bit each.
    fn groups(&self, scores: &Choice<'_>) -> (usize, u64) {
        let (groups, size) = (self.groups as usize, self.input.width / self.groups.max(1));
        let size = (size as usize).max(1);
        let mut kept = 0;
        if groups == 0 {
            return (size, 1);
        }
        for _ in 0..self.kept_groups {
            let left = (0..groups).filter(|group| kept >> group & 1 == 0);
            let best =
                best(left.map(|group| (group, scores.of_group(group * size, size, self.by_best))));
            kept |= best.map_or(0, |(group, _)| 1 << group);
        }
        (size, kept)
    }
}

/// The first of the largest. What is not a number counts as the largest, so that it is not lost.
fn best(all: impl Iterator<Item = (usize, f32)>) -> Option<(usize, f32)> {
    let mut best: Option<(usize, f32)> = None;
    for (number, score) in all {
        let larger = best.is_none_or(|(_, best)| score > best || score.is_nan() && !best.is_nan());
        if larger {
            best = Some((number, score));
        }
    }
    best
}

/// A token's scores, of which some are chosen.
struct Choice<'s> {
    scores: &'s [f32],
    /// What is added to them for the choice; may be missing.
    bias: &'s [f32],
}

impl Choice<'_> {
    /// What an expert is chosen by.
    fn of(&self, number: usize) -> f32 {
        let of = |all: &[f32]| all.get(number).copied().unwrap_or_default();
        of(self.scores) + of(self.bias)
    }

    /// The largest of a group, or the sum of the two largest.
    fn of_group(&self, first: usize, size: usize, by_best: bool) -> f32 {
        let all = || (first..first + size).map(|number| (number, self.of(number)));
        let Some((largest, score)) = best(all()) else { return 0.0 };
        if by_best {
            return score;
        }
        let second = best(all().filter(|(number, _)| *number != largest));
        score + second.map_or(0.0, |(_, score)| score)
    }

    /// Fills in the numbers and scores of those that are chosen among the groups of this size whose bits
    /// are set.
    fn choose(&self, (size, kept): (usize, u64), chosen: &mut [[f32; 2]]) {
        for place in 0..chosen.len() {
            let (before, rest) = chosen.split_at_mut(place);
            let all = 0..self.scores.len();
            let left = all.filter(|number| {
                let group = (number / size) as u32;
                kept.checked_shr(group).is_some_and(|bits| bits & 1 == 1)
                    && before.iter().all(|[other, _]| *other != *number as f32)
            });
            let best = best(left.map(|number| (number, self.of(number))));
            if let (Some((number, _)), Some(found)) = (best, rest.first_mut()) {
                *found = [number as f32, self.scores.get(number).copied().unwrap_or_default()];
            }
        }
    }

    /// Makes weights of the scores of the chosen.
    fn weigh(&self, weights: Weights, factor: f32, chosen: &mut [[f32; 2]]) {
        let of_chosen = chosen.iter().map(|[_, score]| *score);
        let (largest, sum) = match weights {
            Weights::Softmax => exponentials(of_chosen),
            Weights::SoftmaxOfAll => exponentials(self.scores.iter().copied()),
            Weights::Scores => (0.0, 1.0),
            Weights::Shares => (0.0, of_chosen.sum::<f32>() + 1e-20),
        };
        let softmax = matches!(weights, Weights::Softmax | Weights::SoftmaxOfAll);
        for [_, weight] in chosen {
            let part = if softmax { exp(*weight - largest) } else { *weight };
            *weight = part / sum * factor;
        }
    }
}

/// The largest of some scores, and the sum of the exponentials of all less the largest.
fn exponentials(scores: impl Iterator<Item = f32> + Clone) -> (f32, f32) {
    let largest = scores.clone().fold(f32::NEG_INFINITY, f32::max);
    (largest, scores.map(|score| exp(score - largest)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose<const K: usize>(scores: &[f32], weights: Weights) -> [[f32; 2]; K] {
        let (mut chosen, scores) = ([[0.0; 2]; K], Choice { scores, bias: &[] });
        scores.choose((1, u64::MAX), &mut chosen);
        scores.weigh(weights, 1.0, &mut chosen);
        chosen
    }

    #[test]
    fn the_largest_are_chosen_and_weighed() {
        let equal = choose(&[1.0, 3.0, 3.0, -1.0], Weights::Softmax);
        assert_eq!(equal, [[1.0, 0.5], [2.0, 0.5]]);
        let [first, second] = choose(&[0.0, 2.0, 1.0], Weights::Softmax);
        assert_eq!((first[0], second[0]), (1.0, 2.0));
        let e = core::f32::consts::E;
        assert!(
            (first[1] - e / (e + 1.0)).abs() < 1e-6 && (second[1] - 1.0 / (e + 1.0)).abs() < 1e-6
        );
        let [[_, of_all]] = choose(&[0.0, 2.0, 1.0], Weights::SoftmaxOfAll);
        assert!((of_all - e * e / (e * e + e + 1.0)).abs() < 1e-6);
        assert_eq!(choose(&[0.25, 0.5, 0.75], Weights::Scores), [[2.0, 0.75], [1.0, 0.5]]);
        assert_eq!(choose(&[0.25, 0.5, 0.75], Weights::Shares), [[2.0, 0.6], [1.0, 0.4]]);
    }

    #[test]
    fn a_bias_counts_for_the_choice_only_and_so_do_groups() {
        let scores = Choice {
            scores: &[0.1, 0.2, 0.3, 0.4, 0.5, 0.1],
            bias: &[0.0, 0.9, 0.0, 0.0, 0.0, 0.0],
        };
        let mut chosen = [[0.0; 2]; 2];
        scores.choose((2, 0b101), &mut chosen);
        assert_eq!(chosen, [[1.0, 0.2], [4.0, 0.5]]);
        assert!((scores.of_group(0, 2, false) - 1.2).abs() < 1e-6);
        assert!((scores.of_group(0, 2, true) - 1.1).abs() < 1e-6);
        scores.choose((2, 0b010), &mut chosen);
        assert_eq!(chosen, [[3.0, 0.4], [2.0, 0.3]]);
    }

    #[test]
    fn what_is_not_a_number_is_not_lost() {
        let [first, second] = choose(&[5.0, -f32::NAN, 7.0], Weights::Softmax);
        assert!(first[0] == 1.0 && second[0] == 2.0);
        assert!(first[1].is_nan() && second[1].is_nan());
        for weights in [Weights::Softmax, Weights::SoftmaxOfAll] {
            let [_, [_, weight]] = choose(&[f32::INFINITY, 0.0], weights);
            assert!(weight.is_nan());
        }
        let [first, second] = choose(&[5.0, f32::NAN, 7.0], Weights::Shares);
        assert!(first[0] == 1.0 && second[1].is_nan());
    }
}

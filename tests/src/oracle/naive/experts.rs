//! Mixtures of experts.

use super::attention::softmax;
use super::{Naive, gated};
use omex_core::ops::{Experts, Route, Weights};

impl Naive<'_> {
    /// The experts of the largest scores, each with its weight.
    pub(super) fn route(&mut self, op: Route, token: usize) {
        let scores = self.get(token, op.input);
        let bias = op.bias.map_or(vec![0.0; scores.len()], |bias| self.get(token, bias));
        let mut biased: Vec<f32> =
            scores.iter().zip(bias).map(|(score, bias)| score + bias).collect();
        if op.groups > 0 {
            let size = scores.len() / op.groups as usize;
            let sum = |group: &[f32]| {
                let order = order(group);
                group[order[0]] + if op.by_best { 0.0 } else { group[order[1]] }
            };
            let sums: Vec<f32> = biased.chunks(size).map(sum).collect();
            let kept = self.largest(&sums, op.kept_groups as usize, token);
            for (expert, biased) in biased.iter_mut().enumerate() {
                if !kept.contains(&(expert / size)) {
                    *biased = f32::NEG_INFINITY;
                }
            }
        }
        let chosen = self.largest(&biased, op.output.width as usize / 2, token);
        let of_chosen: Vec<f32> = chosen.iter().map(|expert| scores[*expert]).collect();
        let weights = match op.weights {
            Weights::Softmax => softmax(&of_chosen),
            Weights::SoftmaxOfAll => {
                let all = softmax(&scores);
                chosen.iter().map(|expert| all[*expert]).collect()
            }
            Weights::Scores => of_chosen,
            Weights::Shares => {
                let sum: f32 = of_chosen.iter().sum();
                of_chosen.iter().map(|score| score / (sum + 1e-20)).collect()
            }
        };
        let factor = if op.factor == 0.0 { 1.0 } else { op.factor };
        let pairs = chosen.iter().zip(weights);
        let factors = op.factors.map(|factors| self.get(token, factors));
        let of = |expert: usize| factors.as_ref().map_or(factor, |all| all[expert] * factor);
        let route: Vec<f32> =
            pairs.flat_map(|(expert, weight)| [*expert as f32, weight * of(*expert)]).collect();
        self.set(token, op.output, &route);
    }

    /// Where the largest numbers are, the largest first; notes how near the next one is.
    fn largest(&mut self, numbers: &[f32], count: usize, token: usize) -> Vec<usize> {
        let mut order = order(numbers);
        if let Some(next) = order.get(count) {
            let margin = numbers[order[count - 1]] - numbers[*next];
            self.margins[token] = self.margins[token].min(margin);
        }
        order.truncate(count);
        order
    }

    pub(super) fn experts(&mut self, op: Experts, layer: u32, token: usize) {
        let x = self.get(token, op.input);
        let (wide, inner) = (op.wide.width as usize, op.output.width as usize);
        for pair in self.get(token, op.route).chunks(2) {
            let (expert, share) = (pair[0] as usize, pair[1]);
            let rows = expert * wide..(expert + 1) * wide;
            let mut both = self.rows(op.gate_up, layer, rows.clone(), &x);
            if let Some(bias) = op.gate_up_bias {
                both.iter_mut().zip(&self.get(token, bias)[rows]).for_each(|(x, b)| *x += b);
            }
            let (gate, up) = both.split_at_mut(wide / 2);
            if op.limit > 0.0 {
                gate.iter_mut().for_each(|x| *x = x.min(op.limit));
                up.iter_mut().for_each(|x| *x = x.clamp(-op.limit, op.limit));
            }
            up.iter_mut().for_each(|x| *x += op.up_plus);
            let hidden = gated(op.activation, gate, up);
            let rows = expert * inner..(expert + 1) * inner;
            let mut y = self.rows(op.down, layer, rows.clone(), &hidden);
            if let Some(bias) = op.down_bias {
                y.iter_mut().zip(&self.get(token, bias)[rows]).for_each(|(x, b)| *x += b);
            }
            self.change(token, op.output, |i, sum| sum + share * y[i]);
        }
    }
}

/// The numbers from the largest on.
fn order(numbers: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|a, b| numbers[*b].total_cmp(&numbers[*a]));
    order
}

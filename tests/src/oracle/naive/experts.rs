//! Mixtures of experts.

use super::attention::softmax;
use super::{Naive, gated};
use omex_core::ops::{Experts, Route};

impl Naive<'_> {
    /// The experts of the largest scores, each with its share of the softmax over them.
    pub(super) fn route(&mut self, op: Route, token: usize) {
        let scores = self.get(token, op.input);
        let chosen = op.output.width as usize / 2;
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let best: Vec<f32> = order[..chosen].iter().map(|expert| scores[*expert]).collect();
        if let Some(next) = order.get(chosen) {
            let margin = best[chosen - 1] - scores[*next];
            self.margins[token] = self.margins[token].min(margin);
        }
        let pairs = order.iter().zip(softmax(&best));
        let route: Vec<f32> = pairs.flat_map(|(expert, share)| [*expert as f32, share]).collect();
        self.set(token, op.output, &route);
    }

    pub(super) fn experts(&mut self, op: Experts, layer: u32, token: usize) {
        let x = self.get(token, op.input);
        let (wide, inner) = (op.wide.width as usize, op.output.width as usize);
        for pair in self.get(token, op.route).chunks(2) {
            let (expert, share) = (pair[0] as usize, pair[1]);
            let rows = expert * wide..(expert + 1) * wide;
            let both = self.rows(op.gate_up, layer, rows, &x);
            let (gate, up) = both.split_at(wide / 2);
            let hidden = gated(op.activation, gate, up);
            let y = self.rows(op.down, layer, expert * inner..(expert + 1) * inner, &hidden);
            self.change(token, op.output, |i, sum| sum + share * y[i]);
        }
    }
}

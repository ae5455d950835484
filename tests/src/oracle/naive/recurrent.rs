//! What is made of all tokens before, one after another.

use super::Naive;
use omex_core::ops::{Decay, LinearAttention, ShortConv};
use omex_core::program::Value;

impl Naive<'_> {
    pub(super) fn short_conv(&mut self, op: ShortConv, layer: u32, token: usize) {
        let (weight, taps) = (self.vector(op.weight, layer), op.taps as usize);
        let inputs = &self.convolved[&op.state.at(layer)];
        let width = op.input.width as usize;
        let tap = |t: usize, i: usize| {
            let input = &inputs[(token + t).checked_sub(taps - 1)?];
            Some(weight[t * width + i] * input[i])
        };
        let sum = |i: usize| (0..taps).filter_map(|t| tap(t, i)).sum::<f32>();
        let bias = op.bias.map_or(vec![0.0; width], |bias| self.vector(bias, layer));
        let y: Vec<f32> = (0..width).map(|i| sum(i) + bias[i]).collect();
        self.set(token, op.output, &y);
    }

    pub(super) fn decay(&mut self, op: Decay, layer: u32, token: usize) {
        let (a_log, bias) = (self.vector(op.a_log, layer), self.vector(op.dt_bias, layer));
        let most = if op.most > 0.0 { op.most } else { f32::INFINITY };
        self.change(token, op.dt, |i, dt| (dt + bias[i]).exp().ln_1p().clamp(op.least, most));
        let decay = |(dt, a): (&f32, &f32)| (-a.exp() * dt).exp();
        let decays: Vec<f32> = self.get(token, op.dt).iter().zip(&a_log).map(decay).collect();
        self.set(token, op.decay, &decays);
    }

    pub(super) fn linear_attention(&mut self, op: LinearAttention, layer: u32, token: usize) {
        let heads = op.decay.width as usize;
        let (keys, values) = ((op.key.width / op.groups) as usize, op.value.width as usize / heads);
        let skip = op.skip.map_or(vec![0.0; heads], |skip| self.vector(skip, layer));
        let mut output = vec![];
        for (head, skip) in skip.into_iter().enumerate() {
            let group = head / (heads / op.groups as usize);
            let piece = |of: Value, at: usize, width: usize| {
                self.get(token, of)[at * width..][..width].to_vec()
            };
            let [query, key] = [op.query, op.key].map(|of| piece(of, group, keys));
            let value = piece(op.value, head, values);
            let [decay, rate] = [op.decay, op.rate].map(|of| self.get(token, of)[head]);
            let states = self.states.entry((op.state.at(layer), head)).or_default();
            if token == 0 {
                *states = vec![vec![0.0; keys]; values];
            }
            for (state, v) in states.iter_mut().zip(value) {
                state.iter_mut().for_each(|s| *s *= decay);
                let found: f32 = state.iter().zip(&key).map(|(s, k)| s * k).sum();
                let written = rate * if op.delta { v - found } else { v };
                state.iter_mut().zip(&key).for_each(|(s, k)| *s += k * written);
                let seen: f32 = state.iter().zip(&query).map(|(s, q)| s * q).sum();
                output.push(seen + skip * v);
            }
        }
        self.set(token, op.output, &output);
    }
}

//! Positions, and what a token sees of the others.

use super::{Naive, rounded};
use half::f16;
use omex_core::ops::{Angles, Attend, DISTANCES, Mask, Pairing, Rotary};
use omex_core::state::State;
use omex_core::state::kv::KvFormat;

impl Naive<'_> {
    pub(super) fn angles(&mut self, op: Angles, layer: u32, token: usize) {
        let scale = if op.scale == 0.0 { 1.0 } else { op.scale };
        let frequencies = self.vector(op.frequencies, layer);
        let (turn, back) = (token as f32, -(self.beyond(token) as f32));
        let mut angles = vec![];
        for (turn, scale) in [(turn, scale), (back, 1.0)] {
            angles.extend(frequencies.iter().map(|f| scale * (turn * f).cos()));
            angles.extend(frequencies.iter().map(|f| scale * (turn * f).sin()));
        }
        self.set(token, op.output, &angles);
    }

    pub(super) fn rotary(&mut self, op: Rotary, token: usize) {
        let angles = self.get(token, op.angles);
        let mut x = self.get(token, op.value);
        for head in x.chunks_mut(op.head_width as usize) {
            rotate(head, &angles[..angles.len() / 2], op.pairing);
        }
        self.set(token, op.value, &x);
    }

    /// By how many positions a cache is too small for what goes before a token.
    fn beyond(&self, token: usize) -> usize {
        (token + 1).saturating_sub(self.plan.kv_capacity as usize)
    }

    /// The tokens that one sees: all; those in a window; or where the cache is too small, the first few,
    /// called sinks, and as many of the last as there is room for.
    fn seen(&self, mask: Mask, window: usize, token: usize) -> Vec<usize> {
        let (capacity, sinks) = (self.plan.kv_capacity as usize, self.plan.kv_sinks as usize);
        if mask == Mask::Full {
            return (0..self.text.len()).collect();
        }
        if window > 0 && window < capacity {
            return ((token + 1).saturating_sub(window)..=token).collect();
        }
        let beyond = self.beyond(token);
        (0..=token).filter(|at| *at < sinks || *at >= sinks + beyond).collect()
    }

    /// Heads of keys or values as a cache keeps them.
    pub(super) fn cached(&self, state: u32, heads: &[f32]) -> Vec<f32> {
        let Some(State::Kv { width, .. }) = self.program.state(state) else {
            panic!("stores somewhere else")
        };
        match self.plan.kv_format {
            KvFormat::Single => heads.to_vec(),
            KvFormat::Half => heads.iter().map(|x| f16::from_f32(*x).to_f32()).collect(),
            // No head is wider than a group.
            KvFormat::Int8 => heads.chunks(width as usize).flat_map(rounded).collect(),
        }
    }

    pub(super) fn attend(&mut self, op: Attend, layer: u32, token: usize) {
        let state = op.state.at(layer);
        let Some(State::Kv { heads, width, window }) = self.program.state(state) else {
            panic!("attends to something else")
        };
        let (past, seen) = (&self.past[&state], self.seen(op.mask, window as usize, token));
        let slides = window > 0 && window < self.plan.kv_capacity;
        let width = width as usize;
        let all = self.get(token, op.query);
        // Sinks are seen from no further than the cache is long.
        let mut turned = all.clone();
        if let Some(angles) = op.angles.filter(|_| !slides) {
            let angles = self.get(token, angles);
            let back = &angles[angles.len() / 2..];
            turned.chunks_mut(width).for_each(|query| rotate(query, back, op.pairing));
        }
        let near = |at: &usize| op.reach == 0 || at.abs_diff(token) <= op.reach as usize;
        let seen: Vec<_> = seen.into_iter().filter(near).collect();
        let learned = op.head_scores.map(|value| self.get(token, value));
        let (distances, joining, slopes) = match op.mask {
            Mask::Full => (learned, None, None),
            Mask::Causal => (None, learned, None),
            Mask::Alibi => (None, None, learned),
        };
        let newer = |at: &usize| seen.iter().filter(|other| *other > at).count() as f32;
        let group = all.len() / (heads as usize * width);
        let mut out = vec![];
        for head in 0..all.len() / width {
            let (own, shared) = (head * width, head / group * width);
            let score = |at: &usize| {
                let query = if *at < self.plan.kv_sinks as usize { &turned } else { &all };
                let pairs = query[own..own + width].iter().zip(&past[*at][0][shared..]);
                let sloped = slopes.as_ref().map_or(0.0, |slopes| -slopes[head] * newer(at));
                let added =
                    distances.as_ref().map_or(sloped, |d| d[head * DISTANCES + class(token, *at)]);
                let score = op.scale * pairs.map(|(q, k)| q * k).sum::<f32>();
                let capped = op.cap * (score / op.cap).tanh();
                (if op.cap == 0.0 { score } else { capped }) + added
            };
            let mut scores: Vec<f32> = seen.iter().map(score).collect();
            scores.extend(joining.as_ref().map(|scores| scores[head]));
            let weights = softmax(&scores);
            out.extend((shared..shared + width).map(|i| {
                let values = seen.iter().map(|at| past[*at][1][i]);
                values.zip(&weights).map(|(value, weight)| value * weight).sum::<f32>()
            }));
        }
        self.set(token, op.output, &out);
    }
}

pub(super) fn softmax(scores: &[f32]) -> Vec<f32> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f32 = powers.iter().sum();
    powers.iter().map(|power| power / total).collect()
}

/// In which class of distances a key is, as T5's code says it.
fn class(query: usize, key: usize) -> usize {
    let half = DISTANCES / 2;
    let far = query.abs_diff(key) as f32 / 8.0;
    let class = match query.abs_diff(key) {
        near @ 0..8 => near,
        _ => 8 + (far.ln() / 16.0_f32.ln() * 8.0) as usize,
    };
    class.min(half - 1) + if key > query { half } else { 0 }
}

/// Turns pairs of a head; `angles` are all cosines, then all sines.
fn rotate(head: &mut [f32], angles: &[f32], pairing: Pairing) {
    let pairs = angles.len() / 2;
    for i in 0..pairs {
        let (a, b) = match pairing {
            Pairing::Halves => (i, i + pairs),
            Pairing::Neighbours => (2 * i, 2 * i + 1),
        };
        let (cosine, sine) = (angles[i], angles[pairs + i]);
        (head[a], head[b]) = (head[a] * cosine - head[b] * sine, head[b] * cosine + head[a] * sine);
    }
}

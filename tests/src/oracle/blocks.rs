//! What the blocks of a program are made of: each adds something to the residual stream.

use super::maker::Maker;
use omex::graph::{Names, StateShape, ValueRef, ValueShape};
use omex_core::ops::{
    Activate, Activation, Add, Angles, Attend, Constant, Correction, DISTANCES, Decay, Delta,
    Experts, Gated, Linear, LinearAttention, Mask, Norm, NormKind, Pairing, Rotary, Route, Scale,
    ShortConv, SoftCap, Store, Weights,
};
use omex_core::program::Per;
use omex_core::quant::{Format, PANEL};

pub(super) const ADAPTERS: [&str; 2] = ["poet", "lawyer"];
/// A part that is no adapter.
pub(super) const LASTING: &str = "lasting";
/// Large enough that a norm of few, nearly equal numbers does not blow up what rounding left of them.
const EPSILON: f32 = 0.02;
const ACTIVATIONS: [Activation; 8] = [
    Activation::Identity,
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Tanh,
    Activation::Sigmoid,
    Activation::QuickGelu,
];

/// Queries, keys and values on their way into an attention.
struct Heads {
    query: ValueRef,
    key: ValueRef,
    value: ValueRef,
    /// Width of a head, key and value heads, and query heads to each.
    head: u32,
    kv: u32,
    group: u32,
}

impl Maker<'_> {
    pub(super) fn block(&mut self, residual: &ValueRef, width: u32) {
        for _ in 0..self.random.between(1, 3) {
            match self.random.below(7) {
                0..=2 => self.attention(residual, width),
                3 => self.mixture(residual, width),
                4 => self.convolution(residual, width),
                5 => self.recurrence(residual, width),
                _ => self.feed_forward(residual, width),
            }
        }
    }

    pub(super) fn linear(
        &mut self,
        input: &ValueRef,
        [from, to]: [u32; 2],
        output: &ValueRef,
        accumulate: bool,
    ) {
        let bias = if self.random.chance(3) { Some(self.vector(to, 0.0)) } else { None };
        let format = self.random.pick(self.formats);
        let plane = u32::from(self.random.chance(5) && format == Format::Int4);
        let weight = self.tensor(format, to, from, 0.0, plane);
        let (of, sum) = (input.clone(), output.clone());
        self.push(Linear::<Names> { bias, weight, input: of, output: sum, accumulate });
        if self.random.chance(8) {
            self.correction(input, [from, to], output);
        }
        while !self.graph.parts.is_empty() && self.random.chance(3) {
            self.delta(input, [from, to], output);
        }
    }

    /// A second matrix behind a product, of a part or of none.
    fn correction(&mut self, input: &ValueRef, [from, to]: [u32; 2], output: &ValueRef) {
        let parts = if self.graph.parts.is_empty() { [None; 2] } else { [Some(LASTING), None] };
        let part = self.random.pick(&parts).map(str::to_owned);
        let format = self.random.pick(self.formats);
        let weight = self.tensor(format, to, from, 0.0, 0);
        let (input, output) = (input.clone(), output.clone());
        self.push(Correction::<Names> { weight, input, output, part });
    }

    /// A low-rank change of a product: of an adapter, of a part that is always played, or of none.
    fn delta(&mut self, input: &ValueRef, [from, to]: [u32; 2], output: &ValueRef) {
        let rank = self.random.between(1, 5);
        let part = self.random.pick(&[Some(ADAPTERS[0]), Some(ADAPTERS[1]), Some(LASTING), None]);
        let format = self.random.pick(self.formats);
        let (down, up) =
            (self.tensor(format, rank, from, 0.0, 0), self.tensor(format, to, rank, 0.0, 0));
        let per = self.graph.values[&output.name].per;
        let mut room = |width| {
            let value = self.value(width);
            self.graph.values.get_mut(&value.name).unwrap().per = per;
            value
        };
        let (gathered, low, result) = (room(from), room(rank), room(to));
        let (input, output, part) = (input.clone(), output.clone(), part.map(str::to_owned));
        let scale = 0.4 * self.random.unit();
        self.push(Delta::<Names> { down, up, scale, input, gathered, low, result, output, part });
    }

    /// A norm of pieces of this width; of the whole value if it is 0.
    pub(super) fn norm(&mut self, input: &ValueRef, output: &ValueRef, width: u32, group: u32) {
        let piece = if group == 0 { width } else { group };
        let kind = self.random.pick(&[NormKind::Rms, NormKind::Layer]);
        let mut vector = |middle| {
            let length = self.random.pick(&[piece, width]);
            self.vector(length, middle)
        };
        let weight = vector(1.0);
        let bias = vector(0.0);
        let bias = self.random.chance(2).then_some(bias);
        let (input, output) = (input.clone(), output.clone());
        self.push(Norm::<Names> { weight, bias, input, output, epsilon: EPSILON, kind, group });
    }

    /// The residual stream, normed.
    fn normed(&mut self, residual: &ValueRef, width: u32) -> ValueRef {
        let normed = self.value(width);
        self.norm(residual, &normed, width, 0);
        normed
    }

    fn attention(&mut self, residual: &ValueRef, width: u32) {
        let heads = self.heads(residual, width);
        let Heads { head, kv, group, .. } = heads;
        let pairing = self.random.pick(&[Pairing::Halves, Pairing::Neighbours]);
        let angles = if self.random.chance(4) { None } else { Some(self.angles(&heads, pairing)) };
        let mask = self.random.pick(self.masks);
        let angles = angles.filter(|_| mask != Mask::Alibi);
        let window = match self.random.below(4) {
            0 | 1 if mask != Mask::Full => self.random.between(1, 9),
            2 if mask != Mask::Full => self.random.between(10, 70),
            _ => 0,
        };
        let name = self.name("kv");
        let cache = StateShape::Kv { count: self.layers, heads: kv, width: head, window };
        self.graph.states.insert(name.clone(), cache);
        let state = self.in_layers(&name, ["[", "]"]);
        let attended = self.value(kv * group * head);
        let Heads { query, key, value, .. } = heads;
        let (reach, head_scores) = self.nearness(mask, kv * group);
        self.push(Store::<Names> { state: state.clone(), key, value });
        let (scale, output) = (1.0 / (head as f32).sqrt(), attended.clone());
        let attend = Attend::<Names> {
            state,
            query,
            angles,
            output,
            scale,
            pairing,
            mask,
            reach,
            head_scores,
            cap: self.random.pick(&[0.0, 0.0, 1.5]),
        };
        self.push(attend.clone());
        self.add_to(residual, &attended, [kv * group * head, width]);
        if self.fits && self.random.chance(5) {
            self.attend_again(residual, [width, kv * group * head], attend);
        }
    }

    /// Other queries over keys and values that an attention before has stored; in a full cache only that one
    /// can see them.
    fn attend_again(&mut self, residual: &ValueRef, [width, wide]: [u32; 2], of: Attend<Names>) {
        let (normed, query) = (self.normed(residual, width), self.value(wide));
        self.linear(&normed, [width, wide], &query, false);
        let output = self.value(wide);
        self.push(Attend::<Names> { query, angles: None, output: output.clone(), ..of });
        self.add_to(residual, &output, [wide, width]);
    }

    /// How far a full mask lets tokens see, and what was learned for the scores of so many heads.
    fn nearness(&mut self, mask: Mask, heads: u32) -> (u32, Option<ValueRef>) {
        if mask != Mask::Full {
            let learned = mask == Mask::Alibi || self.random.chance(3);
            return (0, if learned { Some(self.constant(heads)) } else { None });
        }
        let reach = if self.random.chance(2) { self.random.between(1, 12) } else { 0 };
        if self.random.chance(2) {
            return (reach, None);
        }
        (reach, Some(self.constant(heads * DISTANCES as u32)))
    }

    /// Queries, keys and values: three products, or rows of one.
    fn heads(&mut self, residual: &ValueRef, width: u32) -> Heads {
        let head = 2 * self.random.between(1, 9);
        let (kv, group) = (self.random.between(1, 3), self.random.between(1, 3));
        let normed = self.normed(residual, width);
        let (wide, narrow) = (kv * group * head, kv * head);
        let [query, key, value] = if self.random.chance(3) {
            let all = self.value(wide + 2 * narrow);
            self.linear(&normed, [width, wide + 2 * narrow], &all, false);
            let first = all.rows.map_or(0, |(first, _)| first);
            let rows = |from, to| ValueRef::rows(&all.name, first + from, first + to);
            [rows(0, wide), rows(wide, wide + narrow), rows(wide + narrow, wide + 2 * narrow)]
        } else {
            [wide, narrow, narrow].map(|to| {
                let value = self.value(to);
                self.linear(&normed, [width, to], &value, false);
                value
            })
        };
        for (value, width) in [(&query, wide), (&key, narrow)] {
            if self.random.chance(3) {
                self.norm(value, value, width, head);
            }
        }
        Heads { query, key, value, head, kv, group }
    }

    /// Turns queries and keys by the angles of their positions.
    fn angles(&mut self, heads: &Heads, pairing: Pairing) -> ValueRef {
        let rotated = 2 * self.random.between(1, heads.head / 2);
        let angles = self.value(2 * rotated);
        let frequencies = self.vector(rotated / 2, 0.5);
        let scale = self.random.pick(&[0.0, 1.2]);
        self.push(Angles::<Names> { frequencies, output: angles.clone(), scale });
        for value in [&heads.query, &heads.key] {
            let (angles, value) = (angles.clone(), value.clone());
            self.push(Rotary::<Names> { angles, value, head_width: heads.head, pairing });
        }
        angles
    }

    fn feed_forward(&mut self, residual: &ValueRef, width: u32) {
        let wide = self.random.between(3, 40);
        let (normed, up) = (self.normed(residual, width), self.value(wide));
        self.linear(&normed, [width, wide], &up, false);
        let activation = self.random.pick(&ACTIVATIONS);
        let mut hidden = up.clone();
        if self.random.chance(2) {
            let gate = self.value(wide);
            hidden = self.value(wide);
            self.linear(&normed, [width, wide], &gate, false);
            self.push(Gated::<Names> { activation, gate, up, output: hidden.clone() });
        } else {
            self.push(Activate::<Names> { activation, value: up });
        }
        self.add_to(residual, &hidden, [wide, width]);
    }

    /// A mixture of experts, beside a product that every token meets: experts are whole panels, which the
    /// residual stream seldom is.
    fn mixture(&mut self, residual: &ValueRef, width: u32) {
        let panels = |count| PANEL as u32 * count;
        let (inner, half) = (panels(self.random.between(1, 5)), self.random.between(1, 5) * 4);
        let (input, sum) = (self.value(inner), self.value(inner));
        let normed = self.normed(residual, width);
        self.linear(&normed, [width, inner], &input, false);
        self.linear(&normed, [width, inner], &sum, false);
        let experts = self.random.between(1, 8);
        let route = self.route(&normed, [width, experts]);
        let format = self.random.pick(self.formats);
        let gate_up = self.tensor(format, experts * 2 * half, inner, 0.0, 0);
        let down = self.tensor(format, experts * inner, half, 0.0, 0);
        let (gathered, wide, gated) = (self.value(inner), self.value(2 * half), self.value(half));
        let (activation, output) = (self.random.pick(&ACTIVATIONS), sum.clone());
        let biased = self.random.chance(2);
        let [gate_up_bias, down_bias] = [experts * 2 * half, experts * inner]
            .map(|width| if biased { Some(self.constant(width)) } else { None });
        let limit = self.random.pick(&[0.0, 0.5]);
        let up_plus = self.random.pick(&[0.0, 1.0]);
        self.push(Experts::<Names> {
            gate_up,
            down,
            experts,
            activation,
            input,
            route,
            gathered,
            wide,
            gated,
            output,
            gate_up_bias,
            down_bias,
            limit,
            up_plus,
        });
        self.add_to(residual, &sum, [inner, width]);
    }

    /// Which of so many experts a token is sent to.
    fn route(&mut self, normed: &ValueRef, [width, experts]: [u32; 2]) -> ValueRef {
        let grouped = experts >= 4 && experts.is_multiple_of(2) && self.random.chance(2);
        let (groups, kept_groups) = if grouped { (2, self.random.between(1, 2)) } else { (0, 0) };
        let most = if grouped { experts / 2 * kept_groups } else { experts };
        let chosen = self.random.between(1, most.min(3));
        let (input, output) = (self.value(experts), self.value(2 * chosen));
        self.linear(normed, [width, experts], &input, false);
        let weights = self.random.pick(&[
            Weights::Softmax,
            Weights::SoftmaxOfAll,
            Weights::Scores,
            Weights::Shares,
        ]);
        // Shares of numbers that may have different signs may be any numbers.
        if weights == Weights::Shares {
            let value = input.clone();
            self.push(Activate::<Names> { activation: Activation::Sigmoid, value });
        }
        let bias = if self.random.chance(2) { Some(self.constant(experts)) } else { None };
        let factor = self.random.pick(&[0.0, 1.5]);
        let route = output.clone();
        let factors = if self.random.chance(3) { Some(self.constant(experts)) } else { None };
        let by_best = grouped && self.random.chance(2);
        self.push(Route::<Names> {
            input,
            output,
            weights,
            factor,
            bias,
            groups,
            kept_groups,
            factors,
            by_best,
        });
        route
    }

    /// Random numbers that a pass has one of.
    fn constant(&mut self, width: u32) -> ValueRef {
        let shape = ValueShape { width, per: Per::Pass, ..ValueShape::default() };
        let (weight, output) = (self.vector(width, 0.0), self.shaped(shape));
        self.push(Constant::<Names> { weight, output: output.clone() });
        output
    }

    fn convolution(&mut self, residual: &ValueRef, width: u32) {
        let taps = self.random.between(2, 5);
        let (input, convolved) = (self.normed(residual, width), self.value(width));
        let name = self.name("conv");
        let bytes = 4 * (taps - 1) * width;
        self.graph.states.insert(name.clone(), StateShape::Bytes { count: self.layers, bytes });
        let state = self.in_layers(&name, ["[", "]"]);
        let weight = self.vector(taps * width, 0.1);
        let output = convolved.clone();
        let bias = if self.random.chance(2) { Some(self.vector(width, 0.0)) } else { None };
        self.push(ShortConv::<Names> { state, weight, bias, input, output, taps });
        self.add_to(residual, &convolved, [width, width]);
    }

    fn recurrence(&mut self, residual: &ValueRef, width: u32) {
        let [groups, share] = [self.random.between(1, 3), self.random.between(1, 3)];
        let [keys, values] = [self.random.between(1, 12), self.random.between(1, 40)];
        let (heads, delta) = (groups * share, self.random.chance(2));
        let normed = self.normed(residual, width);
        let mut product = |to| {
            let value = self.value(to);
            self.linear(&normed, [width, to], &value, false);
            value
        };
        let [query, key, value] = [groups * keys, groups * keys, heads * values].map(&mut product);
        let [dt, mut rate] = [heads, heads].map(product);
        // Longer keys would write more than they find, and the state would grow.
        self.norm(&key, &key, groups * keys, keys);
        self.push(Scale::<Names> {
            value: key.clone(),
            factor: 0.4 / (keys as f32).sqrt(),
            by: None,
        });
        let decay = self.decay(&dt, heads);
        if delta {
            self.push(Activate::<Names> { activation: Activation::Sigmoid, value: rate.clone() });
        } else {
            rate = dt;
        }
        let name = self.name("memory");
        let bytes = 4 * heads * keys * values.next_multiple_of(8);
        self.graph.states.insert(name.clone(), StateShape::Bytes { count: self.layers, bytes });
        let state = self.in_layers(&name, ["[", "]"]);
        let skip = if self.random.chance(2) { Some(self.vector(heads, 0.5)) } else { None };
        let found = self.value(heads * values);
        let output = found.clone();
        self.push(LinearAttention::<Names> {
            state,
            skip,
            query,
            key,
            value,
            decay,
            rate,
            output,
            groups,
            delta,
        });
        self.add_to(residual, &found, [heads * values, width]);
    }

    /// What is left of so many heads' states after these steps, which are made positive.
    fn decay(&mut self, dt: &ValueRef, heads: u32) -> ValueRef {
        let decay = self.value(heads);
        let (a_log, dt_bias) = (self.vector(heads, 0.0), self.vector(heads, 0.0));
        let (least, most) = self.random.pick(&[(0.0, 0.0), (0.2, 0.0), (0.3, 0.9)]);
        let (dt, output) = (dt.clone(), decay.clone());
        self.push(Decay::<Names> { a_log, dt_bias, dt, decay: output, least, most });
        decay
    }

    /// A product added to the residual stream, at once or by way of some operations.
    fn add_to(&mut self, residual: &ValueRef, input: &ValueRef, shape: [u32; 2]) {
        if self.random.chance(2) {
            return self.linear(input, shape, residual, true);
        }
        let more = self.value(shape[1]);
        self.linear(input, shape, &more, false);
        if self.random.chance(2) {
            let by = if self.random.chance(2) { Some(self.constant(1)) } else { None };
            self.push(Scale::<Names> { value: more.clone(), factor: 0.7, by });
        }
        if self.random.chance(2) {
            self.push(SoftCap::<Names> { value: more.clone(), cap: 3.0 });
        }
        self.push(Add::<Names> { input: more, output: residual.clone() });
    }
}

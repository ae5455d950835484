//! Layers of gated DeltaNets (arXiv:2412.06464) and of attention whose output is gated, as Qwen3.5
//! has them.

use super::blueprint::{Blueprint, Order};
use super::builder::{Builder, FREQUENCIES, NormOf, Stored, TAPS, all, stored};
use super::config::Config;
use super::decoder::{Decoder, LLAMA, MAX_WIDTH};
use super::rope::Rope;
use crate::Result;
use crate::graph::ValueRef;
use omex_core::ops::{Activation, LinearAttention, NormKind};

/// What is added to the squares of queries and keys.
const UNIT_EPSILON: f32 = 1e-6;

/// The sizes of a DeltaNet.
struct DeltaNet {
    key_heads: u32,
    value_heads: u32,
    /// Width of a head of keys.
    keys: u32,
    /// Width of a head of values.
    values: u32,
    taps: u32,
    epsilon: f32,
    /// Rates and steps are one stored matrix, by heads of keys.
    joint: bool,
    /// So are queries, keys, values and gates.
    mixed: bool,
    /// Heads of values are stored in turn, one of each head of keys.
    tiled: bool,
}

impl DeltaNet {
    fn read(config: &Config<'_>, epsilon: f32) -> Result<Self> {
        let most = MAX_WIDTH;
        let net = Self {
            key_heads: config.size("linear_num_key_heads", 16, most)?,
            value_heads: config.size("linear_num_value_heads", 32, most)?,
            keys: config.size("linear_key_head_dim", 128, most)?,
            values: config.size("linear_value_head_dim", 128, most)?,
            taps: config.size_within("linear_conv_kernel_dim", 4, TAPS)?,
            epsilon,
            joint: false,
            mixed: false,
            tiled: false,
        };
        let Self { key_heads, value_heads, keys, values, .. } = net;
        if !value_heads.is_multiple_of(key_heads) {
            let expected = format!("a multiple of the {key_heads} key heads");
            return Err(config.bad("linear_num_value_heads", &value_heads.into(), &expected));
        }
        let state = LinearAttention::state_floats([value_heads, keys, values]);
        let wide = 2 * u64::from(key_heads) * u64::from(keys)
            + 2 * u64::from(value_heads) * u64::from(values);
        if state.max(wide) > u64::from(MAX_WIDTH) {
            let expected = format!("heads whose states are at most {MAX_WIDTH} numbers");
            return Err(config.bad("linear_value_head_dim", &values.into(), &expected));
        }
        Ok(net)
    }

    /// The order in which heads of values, of this width each, are stored behind so much else.
    fn order(&self, first: u32, width: u32) -> Order {
        match self.tiled {
            true => {
                let heads = [self.key_heads, self.value_heads / self.key_heads];
                Order::Tiled { first, heads, width }
            }
            false => Order::Plain,
        }
    }

    /// Width of all keys, and of all values.
    fn widths(&self) -> [u32; 2] {
        [self.key_heads * self.keys, self.value_heads * self.values]
    }

    /// The values that its layers are made of.
    fn declare(&self, graph: &mut Builder) {
        let ([keys, values], heads) = (self.widths(), self.value_heads);
        graph.values([
            ("mixed", 2 * keys + 2 * values),
            ("convolved", 2 * keys + values),
            ("rate_step", 2 * heads),
            ("decay", heads),
            ("remembered", values),
            ("normed_memory", values),
        ]);
    }

    /// The layer, from `normed`, added to the residual stream.
    fn layer(&self, graph: &mut Builder) {
        let [keys, values] = self.widths();
        let (mixed, ends) = (2 * keys + values, [keys, 2 * keys, 2 * keys + values]);
        let [query, key] = [(0, ends[0]), (ends[0], ends[1])]
            .map(|(first, end)| ValueRef::rows("convolved", first, end));
        let value = ValueRef::rows("convolved", ends[1], ends[2]);
        let gate = ValueRef::rows("mixed", mixed, mixed + values);
        let heads = self.value_heads;
        let [rate, step] =
            [0, heads].map(|first| ValueRef::rows("rate_step", first, first + heads));
        let input = ValueRef::rows("mixed", 0, mixed);
        match self.mixed {
            true => {
                self.project_by_head(graph, "memory.mixed", "linear_attn.in_proj_qkvz", "mixed")
            }
            false => self.project(graph, [&input, &gate]),
        }
        match self.joint {
            true => {
                self.project_by_head(
                    graph,
                    "memory.rate_step",
                    "linear_attn.in_proj_ba",
                    "rate_step",
                );
            }
            false => self.project_rates(graph, [&rate, &step]),
        }
        let conv =
            Stored { columns: self.order(2 * keys, self.values), ..stored("linear_attn.conv1d") };
        graph.short_conv("memory.taps", conv, self.taps, [&input, &all("convolved")]);
        graph.activate(Activation::Silu, &all("convolved"));
        let root = (self.keys as f32).sqrt();
        let lengths =
            [("memory.query_length", &query, 1.0 / root), ("memory.key_length", &key, 1.0)];
        for (name, value, length) in lengths {
            graph.unit_norm(name, value, self.keys, [length, UNIT_EPSILON]);
        }
        graph.activate(Activation::Sigmoid, &rate);
        let vectors = ["linear_attn.A_log", "linear_attn.dt_bias"]
            .map(|name| Stored { order: self.order(0, 1), ..stored(name) });
        graph.decay(vectors, &step, [0.0, 0.0], "decay");
        let operands = [&query, &key, &value, &all("decay"), &rate];
        graph.linear_attention(self.key_heads, true, None, operands, "remembered");
        let of = NormOf { kind: NormKind::Rms, epsilon: self.epsilon, group: self.values };
        let remembered = all("remembered");
        graph.norm("memory.norm", stored("linear_attn.norm"), of, [&remembered, &remembered]);
        graph.gated(Activation::Silu, [&gate, &remembered], "normed_memory");
        let columns = self.order(0, self.values);
        let output = Stored { columns, ..stored("linear_attn.out_proj") };
        graph.linear_onto("memory.output", output, "normed_memory", "residual");
    }

    /// Queries, keys and values, and gates.
    fn project(&self, graph: &mut Builder, [mixed, gate]: [&ValueRef; 2]) {
        let keys = self.widths()[0];
        for (name, from, first, output) in [
            ("memory.query_key_value", "linear_attn.in_proj_qkv", 2 * keys, mixed),
            ("memory.gate", "linear_attn.in_proj_z", 0, gate),
        ] {
            let order = self.order(first, self.values);
            graph.linear(name, Stored { order, ..stored(from) }, "normed", output);
        }
    }

    /// Rates and steps.
    fn project_rates(&self, graph: &mut Builder, [rate, step]: [&ValueRef; 2]) {
        for (name, from, output) in [
            ("memory.rate", "linear_attn.in_proj_b", rate),
            ("memory.step", "linear_attn.in_proj_a", step),
        ] {
            let from = Stored { order: self.order(0, 1), ..stored(from) };
            graph.linear(name, from, "normed", output);
        }
    }

    /// Either by one matrix, which has a head's parts together.
    fn project_by_head(&self, graph: &mut Builder, name: &str, from: &str, output: &str) {
        let Self { key_heads: heads, value_heads, keys, values, .. } = *self;
        let of_head = value_heads / heads;
        let parts = match output {
            "mixed" => [keys, keys, of_head * values, of_head * values],
            _ => [of_head, of_head, 0, 0],
        };
        let from = Stored { order: Order::ByHead { heads, parts }, ..stored(from) };
        graph.linear(name, from, "normed", &all(output));
    }
}

/// Makes room for gates behind the queries.
fn with_gates(decoder: &mut Decoder) {
    let sizes = decoder.sizes;
    let [q, kv] = [sizes.heads, sizes.kv_heads].map(|heads| heads * sizes.head_width);
    decoder.query_key_value = [(0, q), (2 * q, 2 * q + kv), (2 * q + kv, 2 * (q + kv))]
        .map(|(first, end)| ValueRef::rows("qkv", first, end));
}

/// Attention whose output is multiplied with gates between 0 and 1, added to the residual stream.
fn attention(decoder: &Decoder, graph: &mut Builder, bias: bool) {
    let sizes = decoder.sizes;
    let (queries, width) = (sizes.heads * sizes.head_width, sizes.head_width);
    let order = Order::ByHead { heads: sizes.heads, parts: [width, width, 0, 0] };
    let [_, key, value] = &decoder.query_key_value;
    let both = ValueRef::rows("qkv", 0, 2 * queries);
    let from = |name| Stored { bias, ..stored(name) };
    for (name, from, output) in [
        ("attention.query_gate", Stored { order, ..from("self_attn.q_proj") }, &both),
        ("attention.key", from("self_attn.k_proj"), key),
        ("attention.value", from("self_attn.v_proj"), value),
    ] {
        graph.linear(name, from, "normed", output);
    }
    decoder.head_norms(graph, ["self_attn.q_norm", "self_attn.k_norm"]);
    decoder.attend(graph, "angles", 0);
    let gate = ValueRef::rows("qkv", queries, 2 * queries);
    graph.gated(Activation::Sigmoid, [&gate, &all("attended")], "gated_attention");
    let output = from("self_attn.o_proj");
    graph.linear_onto("attention.output", output, "gated_attention", "residual");
}

/// The blueprint of a decoder whose layers are DeltaNets, or attend where their kinds say so first, and
/// have this feed-forward layer behind.
pub(super) fn blueprint<K: PartialEq>(
    family: &'static str,
    config: &Config<'_>,
    mut decoder: Decoder,
    kinds: &[(bool, K)],
    joint: bool,
    feed_forward: impl Fn(&Decoder, &mut Builder, &K),
) -> Result<Blueprint> {
    config.one_of("hidden_act", &["silu"])?;
    let bias = config.boolean("attention_bias", false)?;
    // Converters to GGUF take the larger matrix apart, and put heads of values in another order.
    let mixed = joint && !config.is_converted();
    let net = DeltaNet::read(config, decoder.whole().epsilon)?;
    let tiled = !joint && config.is_converted();
    let net = DeltaNet { joint, mixed, tiled, ..net };
    config.note("linear_value_width", net.widths()[1]);
    let recurrent = kinds.iter().map(|(attends, _)| !attends);
    config.note("recurrent_layers", recurrent.collect::<Vec<_>>());
    decoder.norm_plus = 1.0;
    with_gates(&mut decoder);
    let mut graph = decoder.graph();
    graph.values([("gated_attention", decoder.sizes.heads * decoder.sizes.head_width)]);
    net.declare(&mut graph);
    let rope = Rope::read(config, LLAMA.theta)?;
    decoder.angles(&mut graph, ["angles", FREQUENCIES], &rope, config)?;
    decoder.embed(&mut graph);
    graph.layers(kinds, "model.layers", |graph, (attends, kind)| {
        let into = ["residual", "normed"];
        decoder.norm(graph, "attention_norm", "input_layernorm", into);
        match attends {
            true => attention(&decoder, graph, bias),
            false => net.layer(graph),
        }
        decoder.norm(graph, "feed_forward_norm", "post_attention_layernorm", into);
        feed_forward(&decoder, graph, kind);
    });
    Ok(decoder.finish(family, graph))
}

/// Which layers attend: as `layer_types` says, or one in so many.
pub(super) fn attends(config: &Config<'_>, layers: u32) -> Result<Vec<bool>> {
    let interval = config.size("full_attention_interval", 4, u32::MAX)?;
    let kinds = config.layer_types(layers, &["linear_attention", "full_attention"])?;
    Ok(match kinds {
        Some(kinds) => kinds.iter().map(|kind| kind == "full_attention").collect(),
        None => (1..=layers).map(|layer| layer.is_multiple_of(interval)).collect(),
    })
}

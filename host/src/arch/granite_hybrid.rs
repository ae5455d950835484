//! Granite 4: a Granite most of whose layers are state space models (Mamba-2, arXiv:2405.21060).

use super::blueprint::{Blueprint, Source};
use super::builder::{Builder, FREQUENCIES, NormOf, Routing, Stored, TAPS, all, stored};
use super::config::Config;
use super::decoder::{Decoder, LLAMA, MAX_WIDTH};
use super::granite;
use super::mixture::{Mixture, Names, Stacks};
use super::rope::Rope;
use crate::Result;
use crate::graph::ValueRef;
use omex_core::ops::{Activation, LinearAttention, NormKind};
use serde_json::Value;

const NAMES: Names = Names {
    router: "block_sparse_moe.router.layer",
    experts: Stacks::Together([
        "block_sparse_moe.input_linear.weight",
        "block_sparse_moe.output_linear.weight",
    ]),
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let activation = config.activation("hidden_act", Activation::Silu)?;
    let bias = config.boolean("attention_bias", false)?;
    let mut decoder = Decoder::read(config, &LLAMA)?;
    let branch = granite::scale(&mut decoder, config)?;
    decoder.sizes.intermediate = config.size("shared_intermediate_size", 1024, MAX_WIDTH)?;
    let mixture = mixture(config, &decoder, activation, branch)?;
    let mamba = Mamba::read(config, decoder.sizes.hidden, activation, decoder.whole().epsilon)?;
    let attends = attends(config, decoder.sizes.layers)?;
    let turned = config.one_of("position_embedding_type", &["nope", "rope"])? == Some("rope");
    // As GGUF files say it.
    config.note("rope_finetuned", turned);
    let heads = attends.iter().map(|attends| if *attends { decoder.sizes.kv_heads } else { 0 });
    config.note("num_key_value_heads", heads.collect::<Vec<_>>());
    if mixture.is_none() {
        config.note("intermediate_size", decoder.sizes.intermediate);
        config.note("shared_intermediate_size", Value::Null);
    }
    let shared = Shared::new(config.is_converted(), mixture.is_some());
    let mut graph = decoder.graph();
    mamba.declare(&mut graph);
    if turned {
        let rope = Rope::read(config, LLAMA.theta)?;
        decoder.angles(&mut graph, ["angles", FREQUENCIES], &rope, config)?;
    }
    decoder.embed(&mut graph);
    graph.layers(&attends, "model.layers", |graph, attends| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        if *attends {
            decoder.project(graph, bias);
            match turned {
                true => decoder.attend(graph, "angles", 0),
                false => decoder.attend_by(graph, None, 0),
            }
            let output = ("attention.output", "self_attn.o_proj");
            granite::add(graph, output, "attended", bias, branch);
        } else {
            mamba.layer(graph);
            let output = ("memory.output", "mamba.out_proj");
            granite::add(graph, output, "gated_memory", mamba.bias, branch);
        }
        let into = ["residual", "normed"];
        decoder.norm(graph, "feed_forward_norm", "post_attention_layernorm", into);
        if let Some(mixture) = &mixture {
            mixture.draw(graph);
        }
        match shared.gate_up {
            None => decoder.joint_gate(graph, activation, stored("shared_mlp.input_linear")),
            Some(names) => decoder.gate(graph, activation, names.map(stored)),
        }
        granite::add(graph, ("feed_forward.down", shared.down), "gated", false, branch);
    });
    Ok(decoder.finish("granite_hybrid", graph))
}

/// What the feed-forward layer that all tokens meet is stored as.
struct Shared {
    /// The gate and the up matrix, where they are not stored as one.
    gate_up: Option<[&'static str; 2]>,
    down: &'static str,
}

impl Shared {
    fn new(apart: bool, experts: bool) -> Self {
        match (apart, experts) {
            (false, _) => Self { gate_up: None, down: "shared_mlp.output_linear" },
            (true, false) => {
                let gate_up = Some(["mlp.gate_proj", "mlp.up_proj"]);
                Self { gate_up, down: "mlp.down_proj" }
            }
            (true, true) => {
                let gate_up = ["mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"];
                Self { gate_up: Some(gate_up), down: "mlp.shared_experts.down_proj" }
            }
        }
    }
}

/// Its experts, if it has some, scaled as other branches are.
fn mixture(
    config: &Config<'_>,
    decoder: &Decoder,
    activation: Activation,
    branch: f32,
) -> Result<Option<Mixture>> {
    let experts = config.integer("num_local_experts")?.unwrap_or(8);
    let wide = ("intermediate_size", 1024);
    if experts == 0 {
        return Ok(None);
    }
    let counts = ["num_local_experts"];
    let mixture = Mixture::read(config, &counts, [8, 2], wide, decoder.sizes.hidden)?;
    let routing = Routing { factor: branch, ..mixture.routing };
    Ok(Some(Mixture { activation, routing, names: NAMES, ..mixture }))
}

/// Which layers attend.
fn attends(config: &Config<'_>, layers: u32) -> Result<Vec<bool>> {
    let name =
        if config.get("layer_types").is_some() { "layer_types" } else { "layers_block_type" };
    let kinds = ["mamba", "linear_attention", "attention", "full_attention"];
    let kinds = config.kinds(name, layers, &kinds)?;
    let attends = |kind: &String| kind.ends_with("attention") && kind != "linear_attention";
    Ok(kinds.map_or(vec![false; layers as usize], |kinds| kinds.iter().map(attends).collect()))
}

/// A state space model.
struct Mamba {
    heads: u32,
    /// Width of a key: the state's size.
    keys: u32,
    /// Groups of heads that share keys and queries, and are normed together.
    groups: u32,
    /// Width of all values.
    inner: u32,
    taps: u32,
    conv_bias: bool,
    bias: bool,
    /// The shortest and the longest time step; 0 for no bound.
    steps: [f32; 2],
    activation: Activation,
    epsilon: f32,
    /// The norm's weights are stored group by group.
    converted: bool,
}

impl Mamba {
    fn read(
        config: &Config<'_>,
        hidden: u32,
        activation: Activation,
        epsilon: f32,
    ) -> Result<Self> {
        let expand = config.size("mamba_expand", 2, 64)?;
        let inner = expand.saturating_mul(hidden);
        config.note("mamba_d_inner", inner);
        let mamba = Self {
            heads: config.size("mamba_n_heads", 128, MAX_WIDTH)?,
            keys: config.size("mamba_d_state", 256, MAX_WIDTH)?,
            groups: config.size("mamba_n_groups", 1, MAX_WIDTH)?,
            inner,
            taps: config.size_within("mamba_d_conv", 4, TAPS)?,
            conv_bias: config.boolean("mamba_conv_bias", true)?,
            bias: config.boolean("mamba_proj_bias", false)?,
            steps: steps(config)?,
            activation,
            epsilon,
            converted: config.is_converted(),
        };
        let Self { heads, keys, groups, .. } = mamba;
        if !inner.is_multiple_of(heads) {
            let expected = format!("a divisor of {inner}");
            return Err(config.bad("mamba_n_heads", &heads.into(), &expected));
        }
        if !heads.is_multiple_of(groups) {
            let expected = format!("a divisor of the {heads} heads");
            return Err(config.bad("mamba_n_groups", &groups.into(), &expected));
        }
        let width = inner / heads;
        let given = config.get("mamba_d_head").filter(|value| *value != "auto");
        if let Some(given) = given.filter(|value| value.as_u64() != Some(width.into())) {
            return Err(config.bad("mamba_d_head", given, &format!("{width}, or \"auto\"")));
        }
        let state = LinearAttention::state_floats([heads, keys, width]);
        let shared = u64::from(groups) * u64::from(keys);
        let wide = 2 * u64::from(inner) + 2 * shared + u64::from(heads);
        if state.max(wide) > u64::from(MAX_WIDTH) {
            let expected = format!("a state of at most {MAX_WIDTH} numbers");
            return Err(config.bad("mamba_d_state", &keys.into(), &expected));
        }
        Ok(mamba)
    }

    /// Width of what is convolved: values, keys and queries.
    fn convolved(&self) -> u32 {
        self.inner + 2 * self.groups * self.keys
    }

    fn declare(&self, graph: &mut Builder) {
        let (inner, convolved) = (self.inner, self.convolved());
        graph.values([
            ("mixed", inner + convolved + self.heads),
            ("convolved", convolved),
            ("decay", self.heads),
            ("remembered", inner),
            ("gated_memory", inner),
        ]);
    }

    /// The layer up to its last product, from `normed` to `gated_memory`.
    fn layer(&self, graph: &mut Builder) {
        let (inner, convolved) = (self.inner, self.convolved());
        let from = |name, bias| Stored { bias, ..stored(name) };
        graph.linear("memory.mixed", from("mamba.in_proj", self.bias), "normed", &all("mixed"));
        let gate = ValueRef::rows("mixed", 0, inner);
        let input = ValueRef::rows("mixed", inner, inner + convolved);
        let step = ValueRef::rows("mixed", inner + convolved, inner + convolved + self.heads);
        let conv = from("mamba.conv1d", self.conv_bias);
        graph.short_conv("memory.taps", conv, self.taps, [&input, &all("convolved")]);
        graph.activate(self.activation, &all("convolved"));
        let keys = self.groups * self.keys;
        let value = ValueRef::rows("convolved", 0, inner);
        let [key, query] =
            [inner, inner + keys].map(|first| ValueRef::rows("convolved", first, first + keys));
        graph.decay(["mamba.A_log", "mamba.dt_bias"].map(stored), &step, self.steps, "decay");
        let operands = [&query, &key, &value, &all("decay"), &step];
        graph.linear_attention(self.groups, false, Some("mamba.D"), operands, "remembered");
        graph.gated(Activation::Silu, [&gate, &all("remembered")], "gated_memory");
        let group = if self.groups == 1 { 0 } else { inner / self.groups };
        let of = NormOf { kind: NormKind::Rms, epsilon: self.epsilon, group };
        let rows = if self.converted { self.groups } else { 1 };
        let weights = Source::whole("mamba.norm.weight", [rows, inner / rows]);
        let gated = all("gated_memory");
        graph.piecewise_norm("memory.norm", weights, of, [&gated, &gated]);
    }
}

/// The shortest and the longest time step; 0 for no bound.
fn steps(config: &Config<'_>) -> Result<[f32; 2]> {
    let name = "time_step_limit";
    let Some(value) = config.get(name) else { return Ok([0.0; 2]) };
    // As transformers writes what JSON has no number for.
    let infinite = |value: &Value| value.get("__float__").is_some_and(|name| name == "Infinity");
    let bound = |value: &Value| match infinite(value) {
        true => Some(0.0),
        false => value.as_f64().filter(|bound| (0.0..=f64::from(f32::MAX)).contains(bound)),
    };
    match value.as_array().map(Vec::as_slice) {
        Some([least, most]) => {
            let bounds = bound(least).zip(bound(most));
            let bounds = bounds.filter(|(least, most)| *most == 0.0 || least <= most);
            bounds.map(|(least, most)| [least as f32, most as f32])
        }
        _ => None,
    }
    .ok_or_else(|| config.bad(name, value, "the shortest and the longest time step"))
}

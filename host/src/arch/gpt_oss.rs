//! gpt-oss: experts with biases whose gates are limited, and a learned score in each softmax
//! (arXiv:2508.10925).

use super::blueprint::{Blueprint, Order, Source};
use super::builder::{Builder, ExpertsOf, biased};
use super::config::{Config, Stacking};
use super::decoder::{Decoder, Defaults, LLAMA};
use super::mixture::Mixture;
use crate::Result;
use omex_core::ops::Activation;
use serde_json::Value;

/// Those of transformers' `GptOssConfig`.
const DEFAULTS: Defaults = Defaults {
    hidden_size: 2880,
    intermediate_size: 2880,
    layers: 36,
    heads: 64,
    kv_heads: Some(8),
    head_width: Some(64),
    vocab_size: 201_088,
    context_length: 131_072,
    epsilon: ("rms_norm_eps", 1e-5),
    theta: 150_000.0,
    bos: None,
    eos: None,
    ..LLAMA
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    config.one_of("hidden_act", &["silu"])?;
    let bias = config.boolean("attention_bias", true)?;
    let mut decoder = Decoder::read(config, &DEFAULTS)?;
    decoder.head_scores = Some("sinks");
    let wide = ("intermediate_size", DEFAULTS.intermediate_size);
    let counts = ["num_local_experts", "num_experts"];
    let mixture = Mixture::read(config, &counts, [128, 4], wide, decoder.sizes.hidden)?;
    let experts = experts(&mixture, config)?;
    let windows = decoder.windows(config, Some(128), |layer| layer.is_multiple_of(2))?;
    decoder.blueprint("gpt_oss", config, &windows, |decoder, graph, window| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        decoder.project(graph, bias);
        let scores = Source::whole("self_attn.sinks", [1, decoder.sizes.heads]);
        graph.constants("attention.sinks", &[scores], "sinks");
        decoder.attention(graph, window, bias);
        let into = ["residual", "normed"];
        decoder.norm(graph, "feed_forward_norm", "post_attention_layernorm", into);
        feed_forward(&mixture, &experts, graph);
    })
}

fn feed_forward(mixture: &Mixture, experts: &ExpertsOf, graph: &mut Builder) {
    mixture.scores(graph, biased("mlp.router"), "normed");
    graph.route("scores", mixture.routing, "route");
    graph.experts("experts", experts, ["normed", "route", "residual"]);
}

/// The experts as they are stored: all in one tensor, transposed unless they are quantized. Rows of gates
/// and of what they multiply alternate.
fn experts(mixture: &Mixture, config: &Config<'_>) -> Result<ExpertsOf> {
    let Mixture { experts, wide, hidden, .. } = *mixture;
    let alpha = config.number("swiglu_alpha")?.unwrap_or(1.702);
    if alpha != 1.702 {
        return Err(config.unsupported("swiglu_alpha", &Value::from(alpha), "1.702"));
    }
    let limit = config.positive("swiglu_limit")?.unwrap_or(7.0) as f32;
    let of = ExpertsOf {
        experts,
        wide,
        activation: Activation::QuickGelu,
        limit,
        up_plus: 1.0,
        ..ExpertsOf::default()
    };
    if config.stacking == Stacking::Parts {
        return Ok(in_stacks(mixture, of));
    }
    let end = match config.get("quantization_config") {
        Some(_) => "_blocks",
        None => "",
    };
    let transposed = end.is_empty();
    let order = Order::ByHead { heads: wide, parts: [1, 1, 0, 0] };
    let each = |part: &str, shape: [u32; 2], order: Order, transposed: bool| {
        let of = move |number| {
            let source = Source::whole(format!("mlp.experts.{part}"), shape);
            Source { order, transposed, ..source }.one_of(number, experts)
        };
        (0..experts).map(of).collect::<Vec<_>>()
    };
    let gate_up = format!("gate_up_proj{end}");
    let down = format!("down_proj{end}");
    Ok(ExpertsOf {
        gate_up: each(&gate_up, [2 * wide, hidden], order, transposed),
        down: each(&down, [hidden, wide], Order::Plain, transposed),
        gate_up_bias: each("gate_up_proj_bias", [1, 2 * wide], order, false),
        down_bias: vec![Source::whole("mlp.experts.down_proj_bias", [experts, hidden])],
        ..of
    })
}

/// The same with gates, what they multiply, and down matrices in a tensor each.
fn in_stacks(mixture: &Mixture, of: ExpertsOf) -> ExpertsOf {
    let Mixture { experts, wide, hidden, .. } = *mixture;
    let parts = ["gate_proj", "up_proj", "down_proj"].map(|part| format!("mlp.experts.{part}"));
    let bias = |part: &String, number| {
        Source::whole(format!("{part}.bias"), [1, wide]).one_of(number, experts)
    };
    let [gate, up, down] = &parts;
    let biases = (0..experts).flat_map(|number| [bias(gate, number), bias(up, number)]);
    let gate_up_bias = biases.collect();
    let down_bias = vec![Source::whole(format!("{down}.bias"), [experts, hidden])];
    let (gate_up, down) = mixture.in_stacks(parts.map(|part| format!("{part}.weight")));
    ExpertsOf { gate_up, down, gate_up_bias, down_bias, ..of }
}

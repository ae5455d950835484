//! Phi 1 and 2: LayerNorm, biases, attention and feed-forward layer side by side (arXiv:2309.05463).

use super::blueprint::Blueprint;
use super::builder::biased;
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use crate::Result;
use omex_core::ops::{Activation, NormKind};

/// Those of transformers' `PhiConfig`.
const DEFAULTS: Defaults = Defaults {
    hidden_size: 2048,
    intermediate_size: 8192,
    layers: 24,
    vocab_size: 51200,
    epsilon: ("layer_norm_eps", 1e-5),
    rotated: Some(0.5),
    ..LLAMA
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let activation = config.activation("hidden_act", Activation::GeluTanh)?;
    let head_norms = config.boolean("qk_layernorm", false)?;
    let mut decoder = Decoder::read(config, &DEFAULTS)?;
    (decoder.norm_kind, decoder.norm_bias, decoder.gated) = (NormKind::Layer, true, false);
    (decoder.names.norm, decoder.names.output_bias) = ("model.final_layernorm", true);
    let windows = decoder.all_see_all();
    decoder.blueprint("phi", config, &windows, |decoder, graph, window| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        decoder.project(graph, true);
        if head_norms {
            decoder.head_norms(graph, ["self_attn.q_layernorm", "self_attn.k_layernorm"]);
        }
        decoder.attend(graph, "angles", window);
        graph.linear_onto("attention.output", biased("self_attn.dense"), "attended", "residual");
        decoder.plain_feed_forward(graph, activation, ["mlp.fc1", "mlp.fc2"].map(biased));
    })
}

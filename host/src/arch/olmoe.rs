//! OLMoE: experts, and norms of all queries and all keys (arXiv:2409.02060).

use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::mixture::Mixture;
use crate::Result;
use omex_core::ops::Activation;

/// Those of transformers' `OlmoeConfig`.
const DEFAULTS: Defaults = Defaults {
    hidden_size: 2048,
    intermediate_size: 2048,
    layers: 16,
    heads: 16,
    vocab_size: 50304,
    context_length: 4096,
    epsilon: ("rms_norm_eps", 1e-5),
    bos: None,
    eos: Some(50279),
    ..LLAMA
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let activation = config.activation("hidden_act", Activation::Silu)?;
    let bias = config.boolean("attention_bias", false)?;
    let decoder = Decoder::read(config, &DEFAULTS)?;
    let counts = ["num_experts", "num_local_experts"];
    let wide = ("intermediate_size", decoder.sizes.intermediate);
    let mixture = Mixture::read(config, &counts, [64, 8], wide, decoder.sizes.hidden)?;
    let mixture = Mixture { activation, ..mixture.with_norm(config, false)? };
    let windows = decoder.all_see_all();
    decoder.blueprint("olmoe", config, &windows, |decoder, graph, window| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        decoder.project(graph, bias);
        decoder.query_key_norms(graph, 0, ["self_attn.q_norm", "self_attn.k_norm"]);
        decoder.attention(graph, window, bias);
        decoder.norm(
            graph,
            "feed_forward_norm",
            "post_attention_layernorm",
            ["residual", "normed"],
        );
        mixture.draw(graph);
    })
}

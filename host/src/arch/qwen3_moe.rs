//! Qwen3's mixtures of experts (arXiv:2505.09388).

use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::{Decoder, Defaults};
use super::mixture::{Mixture, sparse_layers};
use super::qwen2;
use crate::Result;
use omex_core::ops::Activation;

/// Those of transformers' `Qwen3MoeConfig`.
const DEFAULTS: Defaults = Defaults {
    hidden_size: 2048,
    intermediate_size: 6144,
    layers: 24,
    kv_heads: Some(4),
    ..qwen2::DEFAULTS
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let activation = config.activation("hidden_act", Activation::Silu)?;
    let bias = config.boolean("attention_bias", false)?;
    let decoder = Decoder::read(config, &DEFAULTS)?;
    let counts = ["num_experts", "num_local_experts"];
    let wide = ("moe_intermediate_size", 768);
    let mixture = Mixture::read(config, &counts, [128, 8], wide, decoder.sizes.hidden)?;
    let mixture = Mixture { activation, ..mixture.with_norm(config, false)? };
    let sparse = sparse_layers(config, decoder.sizes.layers)?;
    let windows = match config.boolean("use_sliding_window", false)? {
        true => decoder.windows(config, Some(4096), |_| true)?,
        false => decoder.all_see_all(),
    };
    let kinds: Vec<_> = windows.into_iter().zip(sparse).collect();
    decoder.blueprint("qwen3_moe", config, &kinds, |decoder, graph, (window, sparse)| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        decoder.project(graph, bias);
        decoder.head_norms(graph, ["self_attn.q_norm", "self_attn.k_norm"]);
        decoder.attention(graph, window, bias);
        decoder.norm(
            graph,
            "feed_forward_norm",
            "post_attention_layernorm",
            ["residual", "normed"],
        );
        match sparse {
            true => mixture.draw(graph),
            false => decoder.feed_forward(graph, activation, false),
        }
    })
}

//! Mixtral: a Mistral with experts, of which each token meets some (arXiv:2401.04088).

use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::mixture::{Mixture, Names, Stacks};
use crate::Result;

/// Those of transformers' `MixtralConfig`.
const DEFAULTS: Defaults = Defaults {
    intermediate_size: 14336,
    kv_heads: Some(8),
    context_length: 131_072,
    epsilon: ("rms_norm_eps", 1e-5),
    theta: 1e6,
    ..LLAMA
};

const NAMES: Names = Names {
    router: "block_sparse_moe.gate",
    experts: Stacks::Apart("block_sparse_moe.experts", ["w1", "w3", "w2"]),
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    config.one_of("hidden_act", &["silu"])?;
    // Other mixtures' routers, which a fine-tuned one may have taken over.
    config.only("norm_topk_prob", true)?;
    config.one_of("scoring_func", &["softmax"])?;
    let decoder = Decoder::read(config, &DEFAULTS)?;
    let counts = ["num_local_experts", "num_experts"];
    let wide = ("intermediate_size", decoder.sizes.intermediate);
    let mixture = Mixture::read(config, &counts, [8, 2], wide, decoder.sizes.hidden)?;
    let mixture = Mixture { names: NAMES, ..mixture };
    let windows = decoder.windows(config, None, |_| true)?;
    decoder.blueprint("mixtral", config, &windows, |decoder, graph, window| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        decoder.project(graph, false);
        decoder.attention(graph, window, false);
        decoder.norm(
            graph,
            "feed_forward_norm",
            "post_attention_layernorm",
            ["residual", "normed"],
        );
        mixture.draw(graph);
    })
}

//! Qwen3: a Llama with a norm for each head of queries and keys (arXiv:2505.09388).

use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::{Decoder, Defaults};
use super::qwen2;
use crate::Result;
use omex_core::ops::Activation;

/// Those of transformers' `Qwen3Config`.
const DEFAULTS: Defaults =
    Defaults { kv_heads: Some(32), head_width: Some(128), ..qwen2::DEFAULTS };

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    config.one_of("hidden_act", &["silu"])?;
    let bias = config.boolean("attention_bias", false)?;
    let decoder = Decoder::read(config, &DEFAULTS)?;
    let windows = qwen2::windows(&decoder, config)?;
    decoder.blueprint("qwen3", config, &windows, |decoder, graph, window| {
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
        decoder.feed_forward(graph, Activation::Silu, false);
    })
}

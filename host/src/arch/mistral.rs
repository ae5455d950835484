//! Mistral: a Llama whose layers may see a window only (arXiv:2310.06825).

use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use crate::Result;
use omex_core::ops::Activation;

/// Those of transformers' `MistralConfig`.
const DEFAULTS: Defaults =
    Defaults { intermediate_size: 14336, kv_heads: Some(8), context_length: 131_072, ..LLAMA };

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    config.one_of("hidden_act", &["silu"])?;
    let decoder = Decoder::read(config, &DEFAULTS)?;
    let windows = decoder.windows(config, Some(4096), |_| true)?;
    decoder.blueprint("mistral", config, &windows, |decoder, graph, window| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        decoder.project(graph, false);
        decoder.attention(graph, window, false);
        decoder.norm(
            graph,
            "feed_forward_norm",
            "post_attention_layernorm",
            ["residual", "normed"],
        );
        decoder.feed_forward(graph, Activation::Silu, false);
    })
}

//! Qwen2 and 2.5: a Llama with biases on queries, keys and values (arXiv:2407.10671).

use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use crate::Result;
use omex_core::ops::Activation;

/// Those of transformers' `Qwen2Config`.
pub(super) const DEFAULTS: Defaults = Defaults {
    intermediate_size: 22016,
    vocab_size: 151_936,
    context_length: 32768,
    bos: None,
    eos: None,
    ..LLAMA
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    config.one_of("hidden_act", &["silu"])?;
    let decoder = Decoder::read(config, &DEFAULTS)?;
    let windows = windows(&decoder, config)?;
    decoder.blueprint("qwen2", config, &windows, |decoder, graph, window| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        decoder.project(graph, true);
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

/// The layers from `max_window_layers` on slide, if any do.
pub(super) fn windows(decoder: &Decoder, config: &Config<'_>) -> Result<Vec<u32>> {
    let first = config.integer("max_window_layers")?.unwrap_or(28);
    let windows = decoder.windows(config, Some(4096), |layer| layer >= first)?;
    match config.boolean("use_sliding_window", false)? {
        true => Ok(windows),
        false => Ok(decoder.all_see_all()),
    }
}

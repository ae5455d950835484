//! Llama, and what computes the same under its name.

use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::{Decoder, LLAMA};
use crate::Result;
use omex_core::ops::Activation;

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    config.one_of("hidden_act", &["silu"])?;
    let attention_bias = config.boolean("attention_bias", false)?;
    let mlp_bias = config.boolean("mlp_bias", false)?;
    let decoder = Decoder::read(config, &LLAMA)?;
    let windows = decoder.all_see_all();
    decoder.blueprint("llama", config, &windows, |decoder, graph, window| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        decoder.project(graph, attention_bias);
        decoder.attention(graph, window, attention_bias);
        decoder.norm(
            graph,
            "feed_forward_norm",
            "post_attention_layernorm",
            ["residual", "normed"],
        );
        decoder.feed_forward(graph, Activation::Silu, mlp_bias);
    })
}

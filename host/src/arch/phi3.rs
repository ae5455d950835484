//! Phi 3 and 4: a Llama whose matrices are stored together (arXiv:2404.14219).

use super::blueprint::Blueprint;
use super::builder::{all, stored};
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use crate::Result;
use omex_core::ops::Activation;

/// Those of transformers' `Phi3Config`.
const DEFAULTS: Defaults = Defaults {
    hidden_size: 3072,
    intermediate_size: 8192,
    vocab_size: 32064,
    context_length: 4096,
    epsilon: ("rms_norm_eps", 1e-5),
    rotated: Some(1.0),
    eos: Some(32000),
    ..LLAMA
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let activation = config.activation("hidden_act", Activation::Silu)?;
    let decoder = Decoder::read(config, &DEFAULTS)?;
    let windows = decoder.windows(config, None, |_| true)?;
    decoder.blueprint("phi3", config, &windows, |decoder, graph, window| {
        let into = ["residual", "normed"];
        decoder.norm(graph, "attention_norm", "input_layernorm", into);
        graph.linear("attention.qkv", stored("self_attn.qkv_proj"), "normed", &all("qkv"));
        decoder.attention(graph, window, false);
        decoder.norm(graph, "feed_forward_norm", "post_attention_layernorm", into);
        decoder.joint_feed_forward(graph, activation, stored("mlp.gate_up_proj"));
    })
}

//! StarCoder 2: LayerNorm, biases, no gate (arXiv:2402.19173).

use super::blueprint::Blueprint;
use super::builder::{Stored, stored};
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use crate::Result;
use omex_core::ops::{Activation, NormKind};

/// Those of transformers' `Starcoder2Config`.
const DEFAULTS: Defaults = Defaults {
    hidden_size: 3072,
    intermediate_size: 12288,
    layers: 30,
    heads: 24,
    kv_heads: Some(2),
    vocab_size: 49152,
    context_length: 4096,
    epsilon: ("norm_epsilon", 1e-5),
    tied_embeddings: true,
    bos: Some(50256),
    eos: Some(50256),
    ..LLAMA
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let activation = config.activation("hidden_act", Activation::GeluTanh)?;
    config.one_of("norm_type", &["layer_norm"])?;
    config.one_of("mlp_type", &["default"])?;
    let bias = config.boolean("use_bias", true)?;
    let mut decoder = Decoder::read(config, &DEFAULTS)?;
    (decoder.norm_kind, decoder.norm_bias, decoder.gated) = (NormKind::Layer, true, false);
    let windows = decoder.windows(config, None, |_| true)?;
    decoder.blueprint("starcoder2", config, &windows, |decoder, graph, window| {
        let into = ["residual", "normed"];
        decoder.norm(graph, "attention_norm", "input_layernorm", into);
        decoder.project(graph, bias);
        decoder.attention(graph, window, bias);
        decoder.norm(graph, "feed_forward_norm", "post_attention_layernorm", into);
        let matrices = ["mlp.c_fc", "mlp.c_proj"].map(|name| Stored { bias, ..stored(name) });
        decoder.plain_feed_forward(graph, activation, matrices);
    })
}

//! Llama, and what computes the same under its name.

use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::{Decoder, Defaults};
use crate::Result;
use omex_core::ops::Activation;

/// Those of transformers' `LlamaConfig`.
const DEFAULTS: Defaults = Defaults {
    hidden_size: 4096,
    intermediate_size: 11008,
    layers: 32,
    heads: 32,
    vocab_size: 32000,
    context_length: 2048,
    epsilon: 1e-6,
    tied_embeddings: false,
    bos: Some(1),
    eos: Some(2),
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    config.one_of("hidden_act", &["silu"])?;
    let decoder = Decoder::read(config, &DEFAULTS)?;
    Ok(decoder.blueprint("llama", |decoder, graph| {
        decoder.norm(graph, "attention_norm", "input_layernorm.weight");
        decoder.project(graph);
        decoder.attend(graph);
        decoder.norm(graph, "feed_forward_norm", "post_attention_layernorm.weight");
        decoder.feed_forward(graph, Activation::Silu);
    }))
}

//! Qwen3.5's part that writes texts: gated DeltaNets, and attention in some layers.

use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::gated_delta::{self, attends};
use crate::Result;
use omex_core::ops::Activation;

/// Those of transformers' `Qwen3_5TextConfig`.
pub(super) const DEFAULTS: Defaults = Defaults {
    hidden_size: 4096,
    intermediate_size: 12288,
    heads: 16,
    kv_heads: Some(4),
    head_width: Some(256),
    vocab_size: 248_320,
    context_length: 32768,
    rotated: Some(0.25),
    bos: None,
    eos: None,
    ..LLAMA
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let decoder = Decoder::read(config, &DEFAULTS)?;
    let attends = attends(config, decoder.sizes.layers)?;
    let kinds: Vec<_> = attends.into_iter().map(|attends| (attends, ())).collect();
    gated_delta::blueprint("qwen3_5", config, decoder, &kinds, false, |decoder, graph, ()| {
        decoder.feed_forward(graph, Activation::Silu, false);
    })
}

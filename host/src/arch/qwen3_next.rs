//! Qwen3-Next: gated DeltaNets, attention in some layers, and experts beside one that all tokens meet.

use super::blueprint::Blueprint;
use super::builder::Builder;
use super::config::Config;
use super::decoder::{Decoder, Defaults, MAX_WIDTH};
use super::gated_delta::{self, attends};
use super::mixture::{Mixture, SharedExpert, sparse_layers};
use super::qwen3_5;
use crate::Result;
use omex_core::ops::Activation;

/// Those of transformers' `Qwen3NextConfig`.
const DEFAULTS: Defaults = Defaults {
    hidden_size: 2048,
    intermediate_size: 5632,
    layers: 48,
    kv_heads: Some(2),
    vocab_size: 151_936,
    ..qwen3_5::DEFAULTS
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let decoder = Decoder::read(config, &DEFAULTS)?;
    let wide = ("moe_intermediate_size", 512);
    let counts = ["num_experts", "num_local_experts"];
    let mixture = Mixture::read(config, &counts, [512, 10], wide, decoder.sizes.hidden)?
        .with_norm(config, true)?;
    let shared = shared_expert(config)?;
    let attends = attends(config, decoder.sizes.layers)?;
    let sparse = sparse_layers(config, decoder.sizes.layers)?;
    let kinds: Vec<_> = attends.into_iter().zip(sparse).collect();
    let feed_forward = |decoder: &Decoder, graph: &mut Builder, sparse: &bool| {
        if *sparse {
            mixture.draw(graph);
            shared.draw(graph);
        } else {
            decoder.feed_forward(graph, Activation::Silu, false);
        }
    };
    let of = gated_delta::blueprint("qwen3_next", config, decoder, &kinds, true, feed_forward)?;
    // What guesses several tokens at once is not needed for one after another.
    Ok(Blueprint { aside: vec!["mtp.".to_owned()], ..of })
}

/// The expert that all tokens meet.
pub(super) fn shared_expert(config: &Config<'_>) -> Result<SharedExpert<'static>> {
    Ok(SharedExpert {
        activation: Activation::Silu,
        wide: config.size("shared_expert_intermediate_size", 512, MAX_WIDTH)?,
        names: [
            "mlp.shared_expert.gate_proj",
            "mlp.shared_expert.up_proj",
            "mlp.shared_expert.down_proj",
        ],
        score: Some("mlp.shared_expert_gate"),
    })
}

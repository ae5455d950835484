//! Qwen3-Next: gated DeltaNets, attention in some layers, and experts beside one that all tokens meet.

use super::blueprint::Blueprint;
use super::builder::FREQUENCIES;
use super::config::Config;
use super::decoder::{Decoder, Defaults, MAX_WIDTH};
use super::gated_delta::{DeltaNet, attends, attention, with_gates};
use super::mixture::{Mixture, SharedExpert, sparse_layers};
use super::qwen3_5;
use super::rope::Rope;
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
    config.one_of("hidden_act", &["silu"])?;
    let bias = config.boolean("attention_bias", false)?;
    let mut decoder = Decoder::read(config, &DEFAULTS)?;
    decoder.norm_plus = 1.0;
    with_gates(&mut decoder);
    let mut net = DeltaNet::read(config, decoder.whole().epsilon)?;
    net.joint = true;
    let wide = ("moe_intermediate_size", 512);
    let mixture = Mixture::read(config, &["num_experts"], [512, 10], wide, decoder.sizes.hidden)?
        .with_norm(config, true)?;
    let shared = SharedExpert {
        activation: Activation::Silu,
        wide: config.size("shared_expert_intermediate_size", 512, MAX_WIDTH)?,
        names: [
            "mlp.shared_expert.gate_proj",
            "mlp.shared_expert.up_proj",
            "mlp.shared_expert.down_proj",
        ],
        score: Some("mlp.shared_expert_gate"),
    };
    let attends = attends(config, decoder.sizes.layers)?;
    let sparse = sparse_layers(config, decoder.sizes.layers)?;
    let kinds: Vec<_> = attends.into_iter().zip(sparse).collect();
    let mut graph = decoder.graph();
    graph.values([("gated_attention", decoder.sizes.heads * decoder.sizes.head_width)]);
    net.declare(&mut graph);
    let rope = Rope::read(config, DEFAULTS.theta)?;
    decoder.angles(&mut graph, ["angles", FREQUENCIES], &rope, config)?;
    decoder.embed(&mut graph);
    graph.layers(&kinds, "model.layers", |graph, (attends, sparse)| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        match attends {
            true => attention(&decoder, graph, bias),
            false => net.layer(graph),
        }
        let into = ["residual", "normed"];
        decoder.norm(graph, "feed_forward_norm", "post_attention_layernorm", into);
        match sparse {
            true => {
                mixture.draw(graph);
                shared.draw(graph);
            }
            false => decoder.feed_forward(graph, Activation::Silu, false),
        }
    });
    // What guesses several tokens at once is not needed for one after another.
    let aside = vec!["mtp.".to_owned()];
    Ok(Blueprint { aside, ..decoder.finish("qwen3_next", graph) })
}

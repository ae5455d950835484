//! Qwen3.5's part that writes texts: gated DeltaNets, and attention in some layers.

use super::blueprint::Blueprint;
use super::builder::FREQUENCIES;
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::gated_delta::{DeltaNet, attends, attention, with_gates};
use super::rope::Rope;
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
    config.one_of("hidden_act", &["silu"])?;
    let bias = config.boolean("attention_bias", false)?;
    let mut decoder = Decoder::read(config, &DEFAULTS)?;
    decoder.norm_plus = 1.0;
    with_gates(&mut decoder);
    let net = DeltaNet::read(config, decoder.whole().epsilon)?;
    let attends = attends(config, decoder.sizes.layers)?;
    let mut graph = decoder.graph();
    graph.values([("gated_attention", decoder.sizes.heads * decoder.sizes.head_width)]);
    net.declare(&mut graph);
    let rope = Rope::read(config, DEFAULTS.theta)?;
    decoder.angles(&mut graph, ["angles", FREQUENCIES], &rope, config)?;
    decoder.embed(&mut graph);
    graph.layers(&attends, "model.layers", |graph, attends| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        match attends {
            true => attention(&decoder, graph, bias),
            false => net.layer(graph),
        }
        let into = ["residual", "normed"];
        decoder.norm(graph, "feed_forward_norm", "post_attention_layernorm", into);
        decoder.feed_forward(graph, Activation::Silu, false);
    });
    Ok(decoder.finish("qwen3_5", graph))
}

//! SmolLM3: a Llama, some of whose layers do not turn queries and keys (arXiv:2501.18795).

use super::blueprint::Blueprint;
use super::builder::{FREQUENCIES, Stored, stored};
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::rope::Rope;
use crate::Result;
use omex_core::ops::Activation;
use serde_json::Value;

/// Those of transformers' `SmolLM3Config`.
const DEFAULTS: Defaults = Defaults {
    hidden_size: 2048,
    layers: 36,
    heads: 16,
    kv_heads: Some(4),
    vocab_size: 128_256,
    context_length: 32768,
    tied_embeddings: true,
    theta: 2e6,
    bos: Some(128_000),
    eos: Some(128_001),
    ..LLAMA
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let activation = config.activation("hidden_act", Activation::Silu)?;
    let attention_bias = config.boolean("attention_bias", false)?;
    let mlp_bias = config.boolean("mlp_bias", false)?;
    let decoder = Decoder::read(config, &DEFAULTS)?;
    let turned = turned(config, decoder.sizes.layers)?;
    let windows = windows(&decoder, config, &turned)?;
    let kinds: Vec<_> = windows.into_iter().zip(turned).collect();
    let mut graph = decoder.graph();
    let rope = Rope::read(config, DEFAULTS.theta)?;
    decoder.angles(&mut graph, ["angles", FREQUENCIES], &rope, config)?;
    decoder.embed(&mut graph);
    graph.layers(&kinds, "model.layers", |graph, (window, turned)| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        decoder.project(graph, attention_bias);
        match turned {
            true => decoder.attend(graph, "angles", *window),
            false => decoder.attend_by(graph, None, *window),
        }
        let output = Stored { bias: attention_bias, ..stored("self_attn.o_proj") };
        graph.linear_onto("attention.output", output, "attended", "residual");
        let into = ["residual", "normed"];
        decoder.norm(graph, "feed_forward_norm", "post_attention_layernorm", into);
        decoder.feed_forward(graph, activation, mlp_bias);
    });
    Ok(decoder.finish("smollm3", graph))
}

/// Which layers turn queries and keys: those that have a 1 in the list of those that don't, by its name.
fn turned(config: &Config<'_>, layers: u32) -> Result<Vec<bool>> {
    let name = "no_rope_layers";
    let interval = config.size("no_rope_layer_interval", 4, u32::MAX)?;
    let Some(value) = config.get(name) else {
        return Ok((1..=layers).map(|layer| !layer.is_multiple_of(interval)).collect());
    };
    let turned = |value: &Value| value.as_u64().filter(|n| *n < 2).map(|n| n == 1);
    let list = value.as_array().filter(|list| list.len() == layers as usize);
    let turned = list.and_then(|list| list.iter().map(turned).collect());
    turned.ok_or_else(|| config.bad(name, value, &format!("a list of {layers} numbers, 0 or 1")))
}

/// Layers that turn nothing slide, if any do.
fn windows(decoder: &Decoder, config: &Config<'_>, turned: &[bool]) -> Result<Vec<u32>> {
    let slides = |layer: u32| !turned[layer as usize];
    let windows = decoder.windows(config, None, slides)?;
    match config.boolean("use_sliding_window", false)? {
        true => Ok(windows),
        false => Ok(decoder.all_see_all()),
    }
}

//! GPT-NeoX and Pythia: LayerNorm, queries, keys and values in one matrix (arXiv:2204.06745).

use super::blueprint::{Blueprint, Order, Sizes};
use super::builder::{Stored, all, biased, stored};
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA, Names};
use crate::Result;
use omex_core::ops::{Activation, NormKind};

/// Those of transformers' `GPTNeoXConfig`.
const DEFAULTS: Defaults = Defaults {
    hidden_size: 6144,
    intermediate_size: 24576,
    layers: 44,
    heads: 64,
    vocab_size: 50432,
    epsilon: ("layer_norm_eps", 1e-5),
    bos: Some(0),
    eos: Some(2),
    ..LLAMA
};

const NAMES: Names = Names {
    embedding: "gpt_neox.embed_in",
    layers: "gpt_neox.layers",
    norm: "gpt_neox.final_layer_norm",
    output: "embed_out",
    output_bias: false,
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let activation = config.activation("hidden_act", Activation::Gelu)?;
    let bias = config.boolean("attention_bias", true)?;
    let parallel = config.boolean("use_parallel_residual", true)?;
    let theta = config.number("rotary_emb_base")?.unwrap_or(DEFAULTS.theta);
    let rotated = Some(config.number("rotary_pct")?.unwrap_or(0.25));
    let mut decoder = Decoder::read(config, &Defaults { theta, rotated, ..DEFAULTS })?;
    let Sizes { heads, kv_heads, .. } = decoder.sizes;
    if kv_heads != heads {
        let expected = format!("{heads}, as num_attention_heads says");
        return Err(config.unsupported("num_key_value_heads", &kv_heads.into(), &expected));
    }
    (decoder.norm_kind, decoder.norm_bias, decoder.gated) = (NormKind::Layer, true, false);
    decoder.names = NAMES;
    let windows = decoder.all_see_all();
    decoder.blueprint("gpt_neox", config, &windows, |decoder, graph, window| {
        let norm = |graph: &mut _, name, from| {
            decoder.norm(graph, name, from, ["residual", "normed"]);
        };
        let feed_forward_norm = ("feed_forward_norm", "post_attention_layernorm");
        norm(graph, "attention_norm", "input_layernorm");
        let width = decoder.sizes.head_width;
        let parts = [width, width, width, 0];
        let order = match config.is_converted() {
            // As converters to GGUF leave them.
            true => Order::Plain,
            false => Order::ByHead { heads: decoder.sizes.heads, parts },
        };
        let qkv = Stored { bias, order, ..stored("attention.query_key_value") };
        graph.linear("attention.qkv", qkv, "normed", &all("qkv"));
        if parallel {
            norm(graph, feed_forward_norm.0, feed_forward_norm.1);
        }
        decoder.attend(graph, "angles", window);
        let output = Stored { bias, ..stored("attention.dense") };
        graph.linear_onto("attention.output", output, "attended", "residual");
        if !parallel {
            norm(graph, feed_forward_norm.0, feed_forward_norm.1);
        }
        let matrices = ["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"];
        let matrices = matrices.map(biased);
        decoder.plain_feed_forward(graph, activation, matrices);
    })
}

//! StableLM 2 and 3B: LayerNorm, RoPE on a part of each head, layers that may lie side by side.

use super::blueprint::{Blueprint, Slice};
use super::builder::{Builder, Stored};
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use crate::Result;
use crate::graph::ValueRef;
use omex_core::ops::{Activation, NormKind};

/// Those of transformers' `StableLmConfig`.
const DEFAULTS: Defaults = Defaults {
    hidden_size: 2560,
    intermediate_size: 6912,
    kv_heads: Some(32),
    vocab_size: 50304,
    context_length: 4096,
    epsilon: ("layer_norm_eps", 1e-5),
    rotated: Some(0.25),
    bos: Some(0),
    eos: Some(0),
    ..LLAMA
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let activation = config.activation("hidden_act", Activation::Silu)?;
    let bias = config.boolean("use_qkv_bias", false)?;
    let head_norms = config.boolean("qk_layernorm", false)?;
    let parallel = config.boolean("use_parallel_residual", false)?;
    let mut decoder = Decoder::read(config, &DEFAULTS)?;
    (decoder.norm_kind, decoder.norm_bias) = (NormKind::Layer, true);
    let windows = decoder.all_see_all();
    decoder.blueprint("stablelm", config, &windows, |decoder, graph, window| {
        let into = ["residual", "normed"];
        decoder.norm(graph, "attention_norm", "input_layernorm", into);
        decoder.project(graph, bias);
        if head_norms {
            norm_heads(decoder, graph, config.is_converted());
        }
        decoder.attention(graph, window, false);
        if !parallel {
            decoder.norm(graph, "feed_forward_norm", "post_attention_layernorm", into);
        }
        decoder.feed_forward(graph, activation, false);
    })
}

/// Norms of queries and keys, each head with a weight of its own, which is one of a tensor's rows if they
/// are stacked.
fn norm_heads(decoder: &Decoder, graph: &mut Builder, stacked: bool) {
    let width = decoder.sizes.head_width;
    let of = ["q", "k"].into_iter().zip(["query", "key"]).zip(&decoder.query_key_value);
    for ((short, name), value) in of {
        let (first, end) = value.rows.unwrap_or_default();
        for (number, row) in (first..end).step_by(width as usize).enumerate() {
            let head = ValueRef::rows(&value.name, row, row + width);
            let name = format!("attention.{name}_norm.{number}");
            let all = format!("self_attn.{short}_layernorm");
            let own = format!("{all}.norms.{number}");
            let of = (end - first) / width;
            let (from, slice) = match stacked {
                true => (&all, Some(Slice { first: number as u32, of })),
                false => (&own, None),
            };
            let from = Stored { bias: false, slice, ..decoder.norm_from(from) };
            graph.norm(&name, from, decoder.whole(), [&head, &head]);
        }
    }
}

//! LFM2: short convolutions, and attention in some layers (arXiv:2511.23404).

use super::blueprint::Blueprint;
use super::builder::{Builder, FREQUENCIES, Stored, TAPS, all, stored};
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA, MAX_WIDTH};
use super::rope::Rope;
use crate::Result;
use crate::graph::ValueRef;
use omex_core::ops::Activation;
use serde_json::Value;

/// Those of transformers' `Lfm2Config`.
const DEFAULTS: Defaults = Defaults {
    hidden_size: 2560,
    intermediate_size: 12288,
    kv_heads: Some(8),
    vocab_size: 65536,
    context_length: 128_000,
    epsilon: ("norm_eps", 1e-5),
    tied_embeddings: true,
    theta: 1e6,
    ..LLAMA
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    config.one_of("hidden_act", &["silu"])?;
    let mut decoder = Decoder::read(config, &DEFAULTS)?;
    // As published models name it.
    decoder.tied_embeddings = config.boolean("tie_embedding", decoder.tied_embeddings)?;
    decoder.names.norm = "model.embedding_norm";
    decoder.sizes.intermediate = intermediate(config, decoder.sizes.intermediate)?;
    let (hidden, bias) = (decoder.sizes.hidden, config.boolean("conv_bias", false)?);
    let taps = config.size_within("conv_L_cache", 3, TAPS)?;
    let attends = attends(config, decoder.sizes.layers)?;
    // As GGUF files say both.
    config.note("intermediate_size", decoder.sizes.intermediate);
    let heads = attends.iter().map(|attends| if *attends { decoder.sizes.kv_heads } else { 0 });
    config.note("num_key_value_heads", heads.collect::<Vec<_>>());
    let mut graph = decoder.graph();
    graph.values([("bcx", 3 * hidden), ("bx", hidden), ("convolved", hidden)]);
    decoder.angles(
        &mut graph,
        ["angles", FREQUENCIES],
        &Rope::read(config, DEFAULTS.theta)?,
        config,
    )?;
    graph.embed("residual");
    graph.layers(&attends, "model.layers", |graph, attends| {
        decoder.norm(graph, "operator_norm", "operator_norm", ["residual", "normed"]);
        if *attends {
            decoder.project(graph, false);
            decoder.head_norms(graph, ["self_attn.q_layernorm", "self_attn.k_layernorm"]);
            decoder.attend(graph, "angles", 0);
            let output = stored("self_attn.out_proj");
            graph.linear_onto("attention.output", output, "attended", "residual");
        } else {
            convolution(graph, hidden, taps, bias);
        }
        decoder.norm(graph, "feed_forward_norm", "ffn_norm", ["residual", "normed"]);
        let gate = ["feed_forward.w1", "feed_forward.w3"].map(stored);
        decoder.gate(graph, Activation::Silu, gate);
        graph.linear_onto("feed_forward.down", stored("feed_forward.w2"), "gated", "residual");
    });
    Ok(decoder.finish("lfm2", graph))
}

/// `residual` += out(c · conv(b · x)), where b, c and x are thirds of a product with `normed`.
fn convolution(graph: &mut Builder, hidden: u32, taps: u32, bias: bool) {
    let of = |name| Stored { bias, ..stored(name) };
    let [b, c, x] = [0, 1, 2].map(|part| ValueRef::rows("bcx", part * hidden, (part + 1) * hidden));
    graph.linear("conv.input", of("conv.in_proj"), "normed", &ValueRef::all("bcx"));
    graph.gated(Activation::Identity, [&b, &x], "bx");
    graph.short_conv("conv.taps", of("conv.conv"), taps, [&all("bx"), &all("convolved")]);
    graph.gated(Activation::Identity, [&c, &ValueRef::all("convolved")], "bx");
    graph.linear_onto("conv.output", of("conv.out_proj"), "bx", "residual");
}

/// Which layers attend.
fn attends(config: &Config<'_>, layers: u32) -> Result<Vec<bool>> {
    if let Some(kinds) = config.layer_types(layers, &["conv", "full_attention"])? {
        return Ok(kinds.iter().map(|kind| kind == "full_attention").collect());
    }
    let name = "full_attn_idxs";
    let Some(value) = config.get(name) else { return Ok(vec![true; layers as usize]) };
    let mut attends = vec![false; layers as usize];
    let numbers = value.as_array().map_or(&[] as &[Value], Vec::as_slice);
    for number in numbers {
        let layer = number.as_u64().and_then(|layer| attends.get_mut(layer as usize));
        let expected = format!("numbers below {layers}");
        *layer.ok_or_else(|| config.bad(name, value, &expected))? = true;
    }
    Ok(attends)
}

/// The width of the feed-forward layers, which published models give before it is adjusted.
fn intermediate(config: &Config<'_>, given: u32) -> Result<u32> {
    let given = config.size("block_ff_dim", given, MAX_WIDTH)?;
    if !config.boolean("block_auto_adjust_ff_dim", true)? {
        return Ok(given);
    }
    let multiplier = config.number("block_ffn_dim_multiplier")?.unwrap_or(1.0);
    let multiple = config.size("block_multiple_of", 256, MAX_WIDTH)?;
    let adjusted = (multiplier * f64::from(2 * given / 3)) as u32;
    let width = adjusted.checked_next_multiple_of(multiple).unwrap_or(u32::MAX);
    if (1..=MAX_WIDTH).contains(&width) {
        return Ok(width);
    }
    let expected = format!("a multiplier that makes a width from 1 to {MAX_WIDTH}");
    Err(config.bad("block_ffn_dim_multiplier", &multiplier.into(), &expected))
}

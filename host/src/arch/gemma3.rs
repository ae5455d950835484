//! Gemma 3, text only: local and global layers, norms behind layers, too (arXiv:2503.19786).

use super::blueprint::Blueprint;
use super::builder::{Builder, FREQUENCIES, Stored, all, stored};
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::rope::Rope;
use crate::Result;
use omex_core::ops::Activation;

/// Those of transformers' `Gemma3TextConfig`.
pub(super) const DEFAULTS: Defaults = Defaults {
    hidden_size: 2304,
    intermediate_size: 9216,
    layers: 26,
    heads: 8,
    kv_heads: Some(4),
    head_width: Some(256),
    vocab_size: 262_208,
    context_length: 131_072,
    tied_embeddings: true,
    theta: 1e6,
    bos: Some(2),
    eos: Some(1),
    ..LLAMA
};

/// What the graph calls the frequencies of layers that see what is near.
pub(super) const LOCAL_FREQUENCIES: &str = "rotary.local_frequencies";

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let pattern = config.size("sliding_window_pattern", 6, u32::MAX)?;
    let (mut decoder, bias) = decoder(config, &DEFAULTS)?;
    decoder.logit_cap = config.positive("final_logit_softcapping")?;
    let windows =
        decoder.windows(config, Some(4096), |layer| !(layer + 1).is_multiple_of(pattern))?;
    let [global, local] = ropes(config)?;
    let slides = windows.iter().map(|window| *window > 0);
    config.note("sliding_window_pattern", slides.collect::<Vec<_>>());
    let mut graph = decoder.graph();
    graph.values([("branch", decoder.sizes.hidden)]);
    decoder.angles(&mut graph, ["angles", FREQUENCIES], &global, config)?;
    decoder.angles(&mut graph, ["local_angles", LOCAL_FREQUENCIES], &local, config)?;
    decoder.embed(&mut graph);
    graph.layers(&windows, "model.layers", |graph, window| {
        let angles = if *window == 0 { "angles" } else { "local_angles" };
        let norms = Some(["self_attn.q_norm", "self_attn.k_norm"]);
        layer(&decoder, graph, (angles, *window), norms, bias);
    });
    Ok(decoder.finish("gemma3", graph))
}

/// What Gemmas have in common, and whether their attention has biases.
pub(super) fn decoder(config: &Config<'_>, defaults: &Defaults) -> Result<(Decoder, bool)> {
    config.one_of("hidden_activation", &["gelu_pytorch_tanh"])?;
    let bias = config.boolean("attention_bias", false)?;
    let mut decoder = Decoder::read(config, defaults)?;
    let scalar = config.positive("query_pre_attn_scalar")?.unwrap_or(256.0);
    decoder.score_scale = 1.0 / (scalar as f32).sqrt();
    decoder.embedding_scale = Some((decoder.sizes.hidden as f32).sqrt());
    // The norms' weights are stored less 1.
    decoder.norm_plus = 1.0;
    Ok((decoder, bias))
}

/// One block: what a branch adds to the residual stream is normalized before it is added.
pub(super) fn layer(
    decoder: &Decoder,
    graph: &mut Builder,
    (angles, window): (&str, u32),
    head_norms: Option<[&str; 2]>,
    bias: bool,
) {
    let into_branch = ["residual", "normed"];
    decoder.norm(graph, "attention_norm", "input_layernorm", into_branch);
    decoder.project(graph, bias);
    if let Some(names) = head_norms {
        decoder.head_norms(graph, names);
    }
    decoder.attend(graph, angles, window);
    let output = Stored { bias, ..stored("self_attn.o_proj") };
    graph.linear("attention.output", output, "attended", &all("branch"));
    decoder.norm(graph, "after_attention_norm", "post_attention_layernorm", ["branch"; 2]);
    graph.add("branch", "residual");
    decoder.norm(graph, "feed_forward_norm", "pre_feedforward_layernorm", into_branch);
    let gate = ["mlp.gate_proj", "mlp.up_proj"].map(stored);
    decoder.gate(graph, Activation::GeluTanh, gate);
    graph.linear("feed_forward.down", stored("mlp.down_proj"), "gated", &all("branch"));
    decoder.norm(graph, "after_feed_forward_norm", "post_feedforward_layernorm", ["branch"; 2]);
    graph.add("branch", "residual");
}

/// The RoPE of global layers and that of local ones.
fn ropes(config: &Config<'_>) -> Result<[Rope; 2]> {
    let local = config.number("rope_local_base_freq")?.unwrap_or(1e4);
    match ropes_of_kinds(config, [DEFAULTS.theta, local])? {
        Some(ropes) => Ok(ropes),
        None => Ok([Rope::read(config, DEFAULTS.theta)?, Rope::plain(local)]),
    }
}

/// Both as transformers 5 writes them, with these bases where they have none.
pub(super) fn ropes_of_kinds(
    config: &Config<'_>,
    [global, local]: [f64; 2],
) -> Result<Option<[Rope; 2]>> {
    let Some(both) = config.object("rope_parameters", "rope_parameters.")? else {
        return Ok(None);
    };
    let of = |name, prefix, theta| match both.object(name, prefix)? {
        Some(rope) => Rope::of(&rope, config, theta),
        None => Err(both.missing(name, "an object")),
    };
    let global = of("full_attention", "rope_parameters.full_attention.", global)?;
    Ok(Some([global, of("sliding_attention", "rope_parameters.sliding_attention.", local)?]))
}

//! Granite 3: a Llama whose embedding, scores, branches and logits are multiplied with numbers of its own.

use super::blueprint::Blueprint;
use super::builder::{Builder, Stored, all, stored};
use super::config::Config;
use super::decoder::{Decoder, LLAMA};
use crate::Result;
use omex_core::ops::Activation;

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let activation = config.activation("hidden_act", Activation::Silu)?;
    let biases = [config.boolean("attention_bias", false)?, config.boolean("mlp_bias", false)?];
    let mut decoder = Decoder::read(config, &LLAMA)?;
    let branch = scale(&mut decoder, config)?;
    let windows = decoder.all_see_all();
    decoder.blueprint("granite", config, &windows, |decoder, graph, window| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        decoder.project(graph, biases[0]);
        decoder.attend(graph, "angles", window);
        add(graph, ("attention.output", "self_attn.o_proj"), "attended", biases[0], branch);
        let into = ["residual", "normed"];
        decoder.norm(graph, "feed_forward_norm", "post_attention_layernorm", into);
        let from = |name| Stored { bias: biases[1], ..stored(name) };
        decoder.gate(graph, activation, ["mlp.gate_proj", "mlp.up_proj"].map(from));
        add(graph, ("feed_forward.down", "mlp.down_proj"), "gated", biases[1], branch);
    })
}

/// Reads what embedding, scores and logits are multiplied with, and gives what branches are.
pub(super) fn scale(decoder: &mut Decoder, config: &Config<'_>) -> Result<f32> {
    let number = |name| Ok::<_, crate::Error>(config.positive(name)?.unwrap_or(1.0) as f32);
    decoder.embedding_scale = Some(number("embedding_multiplier")?);
    decoder.score_scale = number("attention_multiplier")?;
    decoder.logit_scale = Some(1.0 / number("logits_scaling")?);
    number("residual_multiplier")
}

/// Adds what a branch ends with to the residual stream, multiplied.
pub(super) fn add(
    graph: &mut Builder,
    (name, from): (&str, &str),
    input: &str,
    bias: bool,
    factor: f32,
) {
    // Nothing reads what the branch began with any more.
    graph.linear(name, Stored { bias, ..stored(from) }, input, &all("normed"));
    graph.scale("normed", factor);
    graph.add("normed", "residual");
}

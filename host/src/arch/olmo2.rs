//! OLMo 2: norms behind attention and feed-forward layers instead of before them, and of all queries and
//! all keys (arXiv:2501.00656).

use super::blueprint::Blueprint;
use super::builder::{Stored, all, stored};
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use crate::Result;
use omex_core::ops::Activation;

/// Those of transformers' `Olmo2Config`.
const DEFAULTS: Defaults = Defaults {
    vocab_size: 50304,
    epsilon: ("rms_norm_eps", 1e-5),
    bos: None,
    eos: Some(50279),
    ..LLAMA
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let activation = config.activation("hidden_act", Activation::Silu)?;
    let bias = config.boolean("attention_bias", false)?;
    let mut decoder = Decoder::read(config, &DEFAULTS)?;
    decoder.input = "residual";
    let windows = decoder.all_see_all();
    decoder.blueprint("olmo2", config, &windows, |decoder, graph, window| {
        decoder.project(graph, bias);
        decoder.query_key_norms(graph, 0, ["self_attn.q_norm", "self_attn.k_norm"]);
        decoder.attend(graph, "angles", window);
        let output = Stored { bias, ..stored("self_attn.o_proj") };
        graph.linear("attention.output", output, "attended", &all("normed"));
        decoder.norm(graph, "attention_norm", "post_attention_layernorm", ["normed"; 2]);
        graph.add("normed", "residual");
        decoder.gate(graph, activation, ["mlp.gate_proj", "mlp.up_proj"].map(stored));
        graph.linear("feed_forward.down", stored("mlp.down_proj"), "gated", &all("normed"));
        decoder.norm(graph, "feed_forward_norm", "post_feedforward_layernorm", ["normed"; 2]);
        graph.add("normed", "residual");
    })
}

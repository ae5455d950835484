//! Mixtral: a Mistral with experts, of which each token meets some (arXiv:2401.04088).

use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use crate::Result;
use omex_core::ops::Activation;
use omex_core::program::MAX_WIDTH;
use omex_core::quant::PANEL;

/// Those of transformers' `MixtralConfig`.
const DEFAULTS: Defaults = Defaults {
    intermediate_size: 14336,
    kv_heads: Some(8),
    context_length: 131_072,
    epsilon: ("rms_norm_eps", 1e-5),
    theta: 1e6,
    ..LLAMA
};

/// The most experts, and the most that a token is sent to.
const MOST: [u32; 2] = [256, 64];

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    config.one_of("hidden_act", &["silu"])?;
    // Other mixtures' routers, which a fine-tuned one may have taken over.
    config.only("norm_topk_prob", true)?;
    config.one_of("scoring_func", &["softmax"])?;
    let experts = config.size("num_local_experts", 8, MOST[0])?;
    let chosen = config.size("num_experts_per_tok", 2, MOST[1].min(experts))?;
    let decoder = Decoder::read(config, &DEFAULTS)?;
    check_rows(config, "hidden_size", decoder.sizes.hidden, experts)?;
    check_rows(config, "intermediate_size", 2 * decoder.sizes.intermediate, experts)?;
    let windows = decoder.windows(config, None, |_| true)?;
    decoder.blueprint("mixtral", config, &windows, |decoder, graph, window| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        decoder.project(graph, false);
        decoder.attention(graph, window, false);
        decoder.norm(
            graph,
            "feed_forward_norm",
            "post_attention_layernorm",
            ["residual", "normed"],
        );
        decoder.experts(graph, Activation::Silu, [experts, chosen]);
    })
}

/// Refuses matrices that do not lie one below the other in whole panels, or in one tensor.
fn check_rows(config: &Config<'_>, name: &str, rows: u32, experts: u32) -> Result<()> {
    let width = config.integer(name)?.unwrap_or(rows);
    if !width.is_multiple_of(PANEL as u32) {
        return Err(config.unsupported(name, &width.into(), "a multiple of 8"));
    }
    if rows > MAX_WIDTH / experts {
        let most = MAX_WIDTH / experts / (rows / width).max(1);
        let expected = format!("at most {most}, with {experts} experts");
        return Err(config.unsupported(name, &width.into(), &expected));
    }
    Ok(())
}

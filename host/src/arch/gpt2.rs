//! GPT-2: LayerNorm, learned positions, matrices stored transposed.

use super::blueprint::{Blueprint, Sizes};
use super::builder::{Builder, NormOf, Stored, all, biased, stored};
use super::config::Config;
use super::decoder::{MAX_CONTEXT, MAX_VOCABULARY, read_tokens};
use super::encoder::{SizeFields, read_sizes};
use crate::Result;
use crate::graph::ValueRef;
use omex_core::ops::{Activation, Index, NormKind};

/// Those of transformers' `GPT2Config`.
const FIELDS: SizeFields = SizeFields {
    hidden: ("n_embd", 768),
    layers: ("n_layer", 12),
    heads: ("n_head", 12),
    intermediate: ("n_inner", None),
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    config.one_of("activation_function", &["gelu_new", "gelu_pytorch_tanh"])?;
    config.only("scale_attn_weights", true)?;
    config.only("scale_attn_by_inverse_layer_idx", false)?;
    let sizes = read_sizes(config, &FIELDS)?;
    let hidden = sizes.hidden;
    let vocabulary = config.size("vocab_size", 50257, MAX_VOCABULARY)?;
    let positions = config.size("n_positions", 1024, MAX_CONTEXT)?;
    let tied = config.boolean("tie_word_embeddings", true)?;
    let tokens = read_tokens(config, [Some(50256); 2], vocabulary)?;
    let of = NormOf {
        kind: NormKind::Layer,
        epsilon: config.epsilon("layer_norm_epsilon", 1e-5)?,
        group: 0,
    };
    let mut graph = Builder::new(vocabulary, positions);
    graph.values([
        ("residual", hidden),
        ("normed", hidden),
        ("qkv", 3 * hidden),
        ("attended", hidden),
        ("wide", sizes.intermediate),
    ]);
    graph.embed("residual");
    let from = stored("transformer.wpe");
    graph.embed_onto("positions", from, positions, (Index::Position, 0), "residual");
    let layers = vec![(); sizes.layers as usize];
    graph.layers(&layers, "transformer.h", |graph, ()| layer(graph, &sizes, of));
    graph.selected_values([("selected", hidden), ("final", hidden), ("logits", vocabulary)]);
    graph.select("residual", "selected");
    graph.norm("norm", biased("transformer.ln_f"), of, [&all("selected"), &all("final")]);
    graph.logits("transformer.wte", (!tied).then_some("lm_head"), None, "final");
    // Masks that early versions of transformers stored; a tied output matrix is a copy.
    let mut derived = vec![".attn.bias", ".attn.masked_bias"];
    derived.extend(tied.then_some("lm_head.weight"));
    Ok(graph.finish("gpt2", sizes, tokens, derived))
}

/// One block.
fn layer(graph: &mut Builder, sizes: &Sizes, of: NormOf) {
    let [residual, normed] = ["residual", "normed"].map(all);
    graph.norm("attention_norm", biased("ln_1"), of, [&residual, &normed]);
    graph.linear("attention.qkv", matrix("attn.c_attn"), "normed", &all("qkv"));
    let state = graph.cache("kv", sizes.heads, sizes.head_width, 0);
    let [query, key, value] =
        [0, 1, 2].map(|part| ValueRef::rows("qkv", part * sizes.hidden, (part + 1) * sizes.hidden));
    let scale = 1.0 / (sizes.head_width as f32).sqrt();
    graph.attention(&state, [&query, &key, &value], None, scale, "attended");
    graph.linear_onto("attention.output", matrix("attn.c_proj"), "attended", "residual");
    graph.norm("feed_forward_norm", biased("ln_2"), of, [&residual, &normed]);
    graph.linear("feed_forward.up", matrix("mlp.c_fc"), "normed", &all("wide"));
    graph.activate(Activation::GeluTanh, &all("wide"));
    graph.linear_onto("feed_forward.down", matrix("mlp.c_proj"), "wide", "residual");
}

fn matrix(name: &str) -> Stored<'_> {
    Stored { transposed: true, ..biased(name) }
}

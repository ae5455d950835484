//! BLOOM: LayerNorm, and distances that are taken from scores (ALiBi).

use super::blueprint::{Blueprint, Order, Sizes};
use super::builder::{Attending, Builder, NormOf, Stored, all, biased};
use super::config::Config;
use super::decoder::{MAX_CONTEXT, MAX_LAYERS, MAX_VOCABULARY, MAX_WIDTH, read_tokens};
use crate::Result;
use crate::graph::ValueRef;
use omex_core::ops::{Activation, Mask, NormKind};

/// The value of slopes.
const SLOPES: &str = "slopes";

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    config.only("apply_residual_connection_post_layernorm", false)?;
    let sizes = sizes(config)?;
    let hidden = sizes.hidden;
    let vocabulary = config.size("vocab_size", 250_880, MAX_VOCABULARY)?;
    let context = config.size("seq_length", 2048, MAX_CONTEXT)?;
    let tied = config.boolean("tie_word_embeddings", true)?;
    let tokens = read_tokens(config, [Some(1), Some(2)], vocabulary)?;
    let epsilon = config.epsilon("layer_norm_epsilon", 1e-5)?;
    let of = NormOf { kind: NormKind::Layer, epsilon, group: 0 };
    let mut graph = Builder::new(vocabulary, context);
    graph.values([
        ("embedded", hidden),
        ("residual", hidden),
        ("normed", hidden),
        ("qkv", 3 * hidden),
        ("attended", hidden),
        ("wide", sizes.intermediate),
    ]);
    graph.computed(SLOPES, slopes(sizes.heads), SLOPES);
    graph.embed("embedded");
    let from = biased("transformer.word_embeddings_layernorm");
    graph.norm("embedding_norm", from, of, [&all("embedded"), &all("residual")]);
    let layers = vec![(); sizes.layers as usize];
    let width = sizes.head_width;
    // Converters to GGUF put queries, keys and values of all heads together.
    let order = match config.is_converted() {
        true => Order::Plain,
        false => Order::ByHead { heads: sizes.heads, parts: [width, width, width, 0] },
    };
    graph.layers(&layers, "transformer.h", |graph, ()| layer(graph, &sizes, of, order));
    graph.selected_values([("selected", hidden), ("final", hidden), ("logits", vocabulary)]);
    graph.select("residual", "selected");
    graph.norm("norm", biased("transformer.ln_f"), of, [&all("selected"), &all("final")]);
    graph.logits("transformer.word_embeddings", (!tied).then_some("lm_head"), None, "final");
    let derived = tied.then_some("lm_head.weight").into_iter().collect();
    Ok(graph.finish("bloom", sizes, tokens, derived))
}

fn sizes(config: &Config<'_>) -> Result<Sizes> {
    let hidden = config.count(&["n_embed", "hidden_size"], 64, MAX_WIDTH)?;
    let heads = config.count(&["num_attention_heads", "n_head"], 8, hidden)?;
    if !hidden.is_multiple_of(heads) {
        let expected = format!("a divisor of hidden_size = {hidden}");
        return Err(config.bad("n_head", &heads.into(), &expected));
    }
    let intermediate = hidden.saturating_mul(4);
    // As GGUF files say it.
    config.note("intermediate_size", intermediate);
    Ok(Sizes {
        hidden,
        intermediate,
        layers: config.count(&["num_hidden_layers", "n_layer"], 2, MAX_LAYERS)?,
        heads,
        kv_heads: heads,
        head_width: hidden / heads,
    })
}

/// The slope of each head: the 8/n-th powers of 1/2 for n heads, and where n is no power of 2, those in
/// between behind those of the power below (ALiBi, arXiv:2108.12409).
fn slopes(heads: u32) -> Vec<f32> {
    let whole = 1 << heads.ilog2();
    let of =
        |number: u32, heads: u32| libm::pow(0.5, 8.0 * f64::from(number) / f64::from(heads)) as f32;
    let between = (1..=heads - whole).map(|number| of(2 * number - 1, 2 * whole));
    (1..=whole).map(|number| of(number, whole)).chain(between).collect()
}

/// One block.
fn layer(graph: &mut Builder, sizes: &Sizes, of: NormOf, order: Order) {
    let Sizes { hidden, heads, head_width: width, .. } = *sizes;
    let [residual, normed] = ["residual", "normed"].map(all);
    graph.norm("attention_norm", biased("input_layernorm"), of, [&residual, &normed]);
    let qkv = Stored { order, ..biased("self_attention.query_key_value") };
    graph.linear("attention.qkv", qkv, "normed", &all("qkv"));
    let state = graph.cache("kv", heads, width, 0);
    let [query, key, value] =
        [0, 1, 2].map(|part| ValueRef::rows("qkv", part * hidden, (part + 1) * hidden));
    let scale = 1.0 / (width as f32).sqrt();
    let attending =
        Attending { scale, mask: Mask::Alibi, head_scores: Some(SLOPES), ..Attending::default() };
    graph.attention_of(&state, [&query, &key, &value], attending, "attended");
    graph.linear_onto("attention.output", biased("self_attention.dense"), "attended", "residual");
    graph.norm("feed_forward_norm", biased("post_attention_layernorm"), of, [&residual, &normed]);
    graph.linear("feed_forward.up", biased("mlp.dense_h_to_4h"), "normed", &all("wide"));
    graph.activate(Activation::GeluTanh, &all("wide"));
    graph.linear_onto("feed_forward.down", biased("mlp.dense_4h_to_h"), "wide", "residual");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_paper_and_of_what_lies_between() {
        assert_eq!(slopes(8), [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]);
        assert_eq!(slopes(3), [0.0625, 0.00390625, 0.25]);
        assert_eq!(slopes(1), [0.00390625]);
    }
}

//! BERT: an encoder, with or without the head that guesses masked tokens (arXiv:1810.04805).

use super::blueprint::{Blueprint, Sizes};
use super::builder::{Builder, NormOf, Stored, all, stored};
use super::config::Config;
use super::decoder::{MAX_CONTEXT, MAX_LAYERS, MAX_VOCABULARY, MAX_WIDTH};
use crate::Result;
use crate::graph::ValueRef;
use omex_core::ops::{Activation, Index, Mask, NormKind};

const EMBEDDING: &str = "bert.embeddings.word_embeddings";
/// The class with the head.
const MASKED: &str = "BertForMaskedLM";

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    config.one_of("hidden_act", &["gelu"])?;
    config.one_of("position_embedding_type", &["absolute"])?;
    config.only("is_decoder", false)?;
    let sizes = read_sizes(config)?;
    let vocabulary = config.size("vocab_size", 30522, MAX_VOCABULARY)?;
    let positions = config.size("max_position_embeddings", 512, MAX_CONTEXT)?;
    let types = config.size("type_vocab_size", 2, MAX_VOCABULARY)?;
    let (hidden, epsilon) = (sizes.hidden, config.epsilon("layer_norm_eps", 1e-12)?);
    let of = NormOf { kind: NormKind::Layer, epsilon, group: 0 };
    let mut graph = Builder::new(vocabulary, positions);
    graph.values([
        ("hidden", hidden),
        ("qkv", 3 * hidden),
        ("attended", hidden),
        ("wide", sizes.intermediate),
    ]);
    graph.embed("hidden");
    let from = stored("bert.embeddings.position_embeddings");
    graph.embed_onto("positions", from, positions, Index::Position, "hidden");
    let from = stored("bert.embeddings.token_type_embeddings");
    graph.embed_onto("types", from, types, Index::First, "hidden");
    let norm = biased("bert.embeddings.LayerNorm");
    graph.norm("embedding_norm", norm, of, [&all("hidden"), &all("hidden")]);
    graph.layers(&vec![(); sizes.layers as usize], "bert.encoder.layer", |graph, ()| {
        layer(graph, &sizes, of);
    });
    graph.output("hidden", "hidden");
    if config.has_class(MASKED) {
        masked_head(&mut graph, hidden, vocabulary, of);
    } else {
        graph.embedding(EMBEDDING);
    }
    let derived = vec![
        "embeddings.position_ids",
        "cls.predictions.decoder.weight",
        "cls.predictions.decoder.bias",
        "cls.seq_relationship.weight",
        "cls.seq_relationship.bias",
        "pooler.dense.weight",
        "pooler.dense.bias",
    ];
    Ok(graph.finish("bert", sizes, (None, vec![]), derived))
}

/// One block: norms come behind what they normalize.
fn layer(graph: &mut Builder, sizes: &Sizes, of: NormOf) {
    let hidden = [&all("hidden"), &all("hidden")];
    let parts =
        [0, 1, 2].map(|part| ValueRef::rows("qkv", part * sizes.hidden, (part + 1) * sizes.hidden));
    for (part, output) in ["query", "key", "value"].into_iter().zip(&parts) {
        let (name, from) = (format!("attention.{part}"), format!("attention.self.{part}"));
        graph.linear(&name, biased(&from), "hidden", output);
    }
    let state = graph.cache("kv", sizes.heads, sizes.head_width, 0);
    let [query, key, value] = &parts;
    let scale = 1.0 / (sizes.head_width as f32).sqrt();
    graph.masked_attention(&state, [query, key, value], None, (scale, Mask::Full), "attended");
    graph.linear_onto("attention.output", biased("attention.output.dense"), "attended", "hidden");
    graph.norm("attention_norm", biased("attention.output.LayerNorm"), of, hidden);
    graph.linear("feed_forward.up", biased("intermediate.dense"), "hidden", &all("wide"));
    graph.activate(Activation::Gelu, "wide");
    graph.linear_onto("feed_forward.down", biased("output.dense"), "wide", "hidden");
    graph.norm("feed_forward_norm", biased("output.LayerNorm"), of, hidden);
}

/// Scores of all tokens at each place.
fn masked_head(graph: &mut Builder, hidden: u32, vocabulary: u32, of: NormOf) {
    graph.selected_values([("selected", hidden), ("head", hidden), ("logits", vocabulary)]);
    graph.select("hidden", "selected");
    let from = biased("cls.predictions.transform.dense");
    graph.linear("head.transform", from, "selected", &all("head"));
    graph.activate(Activation::Gelu, "head");
    let from = biased("cls.predictions.transform.LayerNorm");
    graph.norm("head.norm", from, of, [&all("head"), &all("head")]);
    graph.logits(EMBEDDING, None, Some("cls.predictions"), "head");
}

fn biased(name: &str) -> Stored<'_> {
    Stored { bias: true, ..stored(name) }
}

fn read_sizes(config: &Config<'_>) -> Result<Sizes> {
    let hidden = config.size("hidden_size", 768, MAX_WIDTH)?;
    let heads = config.size("num_attention_heads", 12, hidden)?;
    if !hidden.is_multiple_of(heads) {
        let expected = format!("a divisor of hidden_size = {hidden}");
        return Err(config.bad("num_attention_heads", &heads.into(), &expected));
    }
    Ok(Sizes {
        hidden,
        intermediate: config.size("intermediate_size", 3072, MAX_WIDTH)?,
        layers: config.size("num_hidden_layers", 12, MAX_LAYERS)?,
        heads,
        kv_heads: heads,
        head_width: hidden / heads,
    })
}

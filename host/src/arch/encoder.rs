//! What encoders after BERT have in common: embeddings of tokens and positions, and blocks with norms
//! behind what they normalize.

use super::blueprint::{Blueprint, Sizes};
use super::builder::{Attending, Builder, NormOf, Stored, all, biased, stored};
use super::config::Config;
use super::decoder::{MAX_CONTEXT, MAX_LAYERS, MAX_VOCABULARY, MAX_WIDTH};
use crate::Result;
use crate::graph::ValueRef;
use omex_core::ops::{Activation, DISTANCES, Index, Mask, NormKind};

/// What a family calls its stored tensors.
pub(super) struct Names {
    pub(super) family: &'static str,
    /// The model without its head.
    pub(super) base: &'static str,
    pub(super) layers: &'static str,
    /// Queries, keys, values, and what comes of attention.
    pub(super) attention: [&'static str; 4],
    pub(super) attention_norm: &'static str,
    /// Of the head that guesses masked tokens: its matrix, its norm, and its bias.
    pub(super) head: [&'static str; 3],
    /// Of the head that sorts texts into classes: its matrices.
    pub(super) classifier: [&'static str; 2],
}

/// What is made of hidden states.
#[derive(Clone, Copy)]
pub(super) enum Head {
    None,
    /// Scores of all tokens at each place.
    Tokens,
    /// Scores of so many classes.
    Classes(u32),
}

impl Head {
    /// That of the class that the file names.
    pub(super) fn of(config: &Config<'_>) -> Result<Self> {
        if config.has_class_like("ForMaskedLM") {
            return Ok(Self::Tokens);
        }
        if !config.has_class_like("ForSequenceClassification") {
            return Ok(Self::None);
        }
        let classes = match config.object("id2label", "id2label.")? {
            Some(labels) => labels.length(),
            None => config.size("num_labels", 2, MAX_VOCABULARY)?,
        };
        if (1..=MAX_VOCABULARY).contains(&classes) {
            return Ok(Self::Classes(classes));
        }
        let expected = format!("1 to {MAX_VOCABULARY} classes");
        Err(config.bad("id2label", &format!("{classes} classes").into(), &expected))
    }
}

/// Stored tensors that nothing reads, or that copy others, of encoders with RoBERTa's head.
pub(super) const DERIVED: [&str; 5] = [
    "embeddings.position_ids",
    "lm_head.decoder.weight",
    "lm_head.decoder.bias",
    "pooler.dense.weight",
    "pooler.dense.bias",
];

/// What stands in for fields that are absent.
pub(super) struct Defaults {
    pub(super) vocab_size: u32,
    pub(super) positions: u32,
    pub(super) epsilon: f64,
}

/// The hyperparameters of an encoder.
pub(super) struct Encoder {
    names: &'static Names,
    sizes: Sizes,
    norm: NormOf,
    vocabulary: u32,
    /// Rows of the embedding of positions.
    positions: u32,
    /// The row of the first position.
    first_position: u32,
    /// Rows before it that GGUF files do not have.
    skipped_positions: u32,
    /// Rows of the embedding of segments; 0 for none.
    pub(super) types: u32,
    /// Which of them a token gets: its segment's, or always the first.
    pub(super) segments: Index,
    /// Scores depend on how far away keys are.
    pub(super) distances: bool,
}

impl Encoder {
    /// Reads the fields that have the same names in all.
    pub(super) fn read(
        config: &Config<'_>,
        names: &'static Names,
        defaults: &Defaults,
    ) -> Result<Self> {
        config.one_of("hidden_act", &["gelu"])?;
        config.one_of("position_embedding_type", &["absolute"])?;
        config.only("is_decoder", false)?;
        let epsilon = config.epsilon("layer_norm_eps", defaults.epsilon)?;
        Ok(Self {
            names,
            sizes: read_sizes(config, &SIZES)?,
            norm: NormOf { kind: NormKind::Layer, epsilon, group: 0 },
            vocabulary: config.size("vocab_size", defaults.vocab_size, MAX_VOCABULARY)?,
            positions: config.size("max_position_embeddings", defaults.positions, MAX_CONTEXT)?,
            first_position: 0,
            skipped_positions: 0,
            types: 0,
            segments: Index::First,
            distances: false,
        })
    }

    /// Has rows of the embedding of positions begin behind that of this token, which is padding's.
    pub(super) fn count_from(&mut self, config: &Config<'_>, padding: u32) -> Result<()> {
        let (first, all) = (padding.saturating_add(1), self.positions);
        if first >= all {
            let expected = format!("more than {}, that of padding and those before it", padding);
            return Err(config.bad("max_position_embeddings", &all.into(), &expected));
        }
        if config.is_converted() {
            (self.positions, self.skipped_positions) = (all - first, first);
            config.note("max_position_embeddings", self.positions);
        } else {
            self.first_position = first;
        }
        Ok(())
    }

    /// The blueprint: hidden states of all tokens, and what a head makes of them.
    pub(super) fn blueprint(&self, head: Head, derived: &[&'static str]) -> Blueprint {
        let (hidden, base) = (self.sizes.hidden, self.names.base);
        let mut graph = Builder::new(self.vocabulary, self.positions - self.first_position);
        graph.values([
            ("hidden", hidden),
            ("qkv", 3 * hidden),
            ("attended", hidden),
            ("wide", self.sizes.intermediate),
        ]);
        self.embed(&mut graph);
        if self.distances {
            let name = format!("{base}.encoder.relative_attention_bias");
            let from = Stored { transposed: true, ..stored(&name) };
            let shape = [self.sizes.heads, DISTANCES as u32];
            graph.constant("attention.distances", from, shape, "distances");
        }
        let layers = vec![(); self.sizes.layers as usize];
        graph.layers(&layers, self.names.layers, |graph, ()| self.layer(graph));
        graph.output("hidden", "hidden");
        let embedding = format!("{base}.embeddings.word_embeddings");
        match head {
            Head::None => {}
            Head::Tokens => self.head(&mut graph, &embedding),
            Head::Classes(count) => self.classifier(&mut graph, count),
        }
        if !matches!(head, Head::Tokens) {
            graph.embedding(&embedding);
        }
        graph.finish(self.names.family, self.sizes, (None, vec![]), derived.to_vec())
    }

    fn embed(&self, graph: &mut Builder) {
        let name = |part: &str| format!("{}.embeddings.{part}", self.names.base);
        graph.embed("hidden");
        let (from, first) = (name("position_embeddings"), self.first_position);
        let of_position = (Index::Position, first);
        let from = Stored { skipped: self.skipped_positions, ..stored(&from) };
        graph.embed_onto("positions", from, self.positions, of_position, "hidden");
        if self.types > 0 {
            let from = name("token_type_embeddings");
            graph.embed_onto("types", stored(&from), self.types, (self.segments, 0), "hidden");
        }
        let from = name("LayerNorm");
        graph.norm("embedding_norm", biased(&from), self.norm, [&all("hidden"), &all("hidden")]);
    }

    fn layer(&self, graph: &mut Builder) {
        let (sizes, norm) = (&self.sizes, self.norm);
        let Names { attention, attention_norm, .. } = self.names;
        let hidden = [&all("hidden"), &all("hidden")];
        let parts = [0, 1, 2]
            .map(|part| ValueRef::rows("qkv", part * sizes.hidden, (part + 1) * sizes.hidden));
        let of_parts = ["attention.query", "attention.key", "attention.value"];
        for ((name, from), output) in of_parts.into_iter().zip(attention).zip(&parts) {
            graph.linear(name, biased(from), "hidden", output);
        }
        let state = graph.cache("kv", sizes.heads, sizes.head_width, 0);
        let [query, key, value] = &parts;
        let attending = Attending {
            scale: 1.0 / (sizes.head_width as f32).sqrt(),
            mask: Mask::Full,
            head_scores: self.distances.then_some("distances"),
            ..Attending::default()
        };
        graph.attention_of(&state, [query, key, value], attending, "attended");
        graph.linear_onto("attention.output", biased(attention[3]), "attended", "hidden");
        graph.norm("attention_norm", biased(attention_norm), norm, hidden);
        graph.linear("feed_forward.up", biased("intermediate.dense"), "hidden", &all("wide"));
        graph.activate(Activation::Gelu, &all("wide"));
        graph.linear_onto("feed_forward.down", biased("output.dense"), "wide", "hidden");
        graph.norm("feed_forward_norm", biased("output.LayerNorm"), norm, hidden);
    }

    fn head(&self, graph: &mut Builder, embedding: &str) {
        let (hidden, [dense, norm, bias]) = (self.sizes.hidden, self.names.head);
        let logits = ("logits", self.vocabulary);
        graph.selected_values([("selected", hidden), ("head", hidden), logits]);
        graph.select("hidden", "selected");
        graph.linear("head.transform", biased(dense), "selected", &all("head"));
        graph.activate(Activation::Gelu, &all("head"));
        graph.norm("head.norm", biased(norm), self.norm, [&all("head"), &all("head")]);
        graph.logits(embedding, None, Some(bias), "head");
    }

    /// Scores of classes, from a text's first token.
    fn classifier(&self, graph: &mut Builder, count: u32) {
        let (hidden, [dense, scores]) = (self.sizes.hidden, self.names.classifier);
        graph.selected_values([("selected", hidden), ("head", hidden)]);
        graph.select("hidden", "selected");
        graph.linear("head.transform", biased(dense), "selected", &all("head"));
        graph.activate(Activation::Tanh, &all("head"));
        graph.classes(biased(scores), count, "head");
    }
}

/// What fields of sizes are called, with what stands in for those that are absent.
pub(super) struct SizeFields {
    pub(super) hidden: (&'static str, u32),
    pub(super) layers: (&'static str, u32),
    pub(super) heads: (&'static str, u32),
    pub(super) intermediate: (&'static str, Option<u32>),
}

/// Those of BERT and what comes after it.
pub(super) const SIZES: SizeFields = SizeFields {
    hidden: ("hidden_size", 768),
    layers: ("num_hidden_layers", 12),
    heads: ("num_attention_heads", 12),
    intermediate: ("intermediate_size", Some(3072)),
};

/// The sizes of a model with as many heads of keys and values as of queries; a feed-forward layer of
/// which nothing is said is four times as wide as the model.
pub(super) fn read_sizes(config: &Config<'_>, fields: &SizeFields) -> Result<Sizes> {
    let hidden = config.size(fields.hidden.0, fields.hidden.1, MAX_WIDTH)?;
    let heads = config.size(fields.heads.0, fields.heads.1, hidden)?;
    if !hidden.is_multiple_of(heads) {
        let expected = format!("a divisor of {} = {hidden}", fields.hidden.0);
        return Err(config.bad(fields.heads.0, &heads.into(), &expected));
    }
    let wide = fields.intermediate.1.unwrap_or(hidden.saturating_mul(4));
    Ok(Sizes {
        hidden,
        intermediate: config.size(fields.intermediate.0, wide, MAX_WIDTH)?,
        layers: config.size(fields.layers.0, fields.layers.1, MAX_LAYERS)?,
        heads,
        kv_heads: heads,
        head_width: hidden / heads,
    })
}

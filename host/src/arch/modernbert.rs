//! ModernBERT: an encoder with RoPE, norms before branches, and layers that see only what is near
//! (arXiv:2412.13663).

use super::blueprint::{Blueprint, Sizes};
use super::builder::{Attending, Builder, FREQUENCIES, NormOf, Stored, all, biased, stored};
use super::config::Config;
use super::decoder::{MAX_CONTEXT, MAX_VOCABULARY};
use super::encoder::{Head, SIZES, SizeFields, read_sizes};
use super::rope::Rope;
use crate::Result;
use crate::graph::ValueRef;
use omex_core::ops::{Activation, Mask, NormKind};

const EMBEDDING: &str = "model.embeddings.tok_embeddings";
/// Bases of RoPE's frequencies, in layers that see all and in the others.
const THETAS: [f64; 2] = [160_000.0, 10_000.0];

/// Those of transformers' `ModernBertConfig`.
const FIELDS: SizeFields = SizeFields {
    layers: ("num_hidden_layers", 22),
    intermediate: ("intermediate_size", Some(1152)),
    ..SIZES
};

/// What a layer does.
#[derive(Clone, Copy, PartialEq)]
struct Layer {
    /// Its attention has a norm, as all but the first have.
    norm: bool,
    /// Positions that it sees on either side; 0 for all.
    reach: u32,
}

struct ModernBert {
    sizes: Sizes,
    norm: NormOf,
    norm_bias: bool,
    attention_bias: bool,
    mlp_bias: bool,
}

pub(super) const CLASSES: [&str; 3] =
    ["ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification"];

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    config.one_of("hidden_activation", &["gelu"])?;
    config.one_of("position_embedding_type", &["absolute", "rope"])?;
    let model = ModernBert {
        sizes: read_sizes(config, &FIELDS)?,
        norm: NormOf {
            kind: NormKind::Layer,
            epsilon: config.epsilon("norm_eps", 1e-5)?,
            group: 0,
        },
        norm_bias: config.boolean("norm_bias", false)?,
        attention_bias: config.boolean("attention_bias", false)?,
        mlp_bias: config.boolean("mlp_bias", false)?,
    };
    let vocabulary = config.size("vocab_size", 50368, MAX_VOCABULARY)?;
    let context = config.size("max_position_embeddings", 8192, MAX_CONTEXT)?;
    let (hidden, wide) = (model.sizes.hidden, model.sizes.intermediate);
    let mut graph = Builder::new(vocabulary, context);
    graph.values([
        ("residual", hidden),
        ("normed", hidden),
        ("qkv", 3 * hidden),
        ("attended", hidden),
        ("gate_up", 2 * wide),
        ("gated", wide),
    ]);
    let layers = model.layers(config)?;
    for (rope, [name, frequencies]) in ropes(config)?.into_iter().zip(ANGLES) {
        let frequencies_of = rope.frequencies(model.sizes.head_width, config)?;
        config.note(frequencies, rope.described(model.sizes.head_width));
        graph.angles(frequencies, frequencies_of, 0.0, name);
    }
    graph.embed("residual");
    model.norm(&mut graph, "embedding_norm", "model.embeddings.norm", ["residual"; 2]);
    graph.layers(&layers, "model.layers", |graph, layer| model.layer(graph, *layer));
    graph.values([("hidden", hidden)]);
    model.norm(&mut graph, "norm", "model.final_norm", ["residual", "hidden"]);
    graph.output("hidden", "hidden");
    match Head::of(config)? {
        Head::None => {
            graph.embedding(EMBEDDING);
        }
        Head::Tokens => {
            model.transform(&mut graph, config, "hidden")?;
            let scored = config.boolean("decoder_bias", true)?;
            graph.selected_values([("logits", vocabulary)]);
            graph.logits(EMBEDDING, None, scored.then_some("decoder"), "head");
        }
        Head::Classes(count) => {
            let pooled = model.pool(&mut graph, config)?;
            model.transform(&mut graph, config, pooled)?;
            graph.classes(biased("classifier"), count, "head");
            graph.embedding(EMBEDDING);
        }
    }
    let derived = vec!["decoder.weight"];
    Ok(graph.finish("modernbert", model.sizes, (None, vec![]), derived))
}

/// Angles, and their frequencies, of layers that see all and of the others.
const ANGLES: [[&str; 2]; 2] =
    [["angles", FREQUENCIES], ["local_angles", "rotary.local_frequencies"]];

impl ModernBert {
    fn layers(&self, config: &Config<'_>) -> Result<Vec<Layer>> {
        let count = self.sizes.layers;
        let window = config.size("local_attention", 128, MAX_CONTEXT)?;
        let every = config.size("global_attn_every_n_layers", 3, u32::MAX)?;
        let kinds = config.layer_types(count, &["full_attention", "sliding_attention"])?;
        let layer = |layer: u32| {
            let all = match &kinds {
                Some(kinds) => kinds[layer as usize] == "full_attention",
                None => layer.is_multiple_of(every),
            };
            Layer { norm: layer > 0, reach: if all { 0 } else { window / 2 } }
        };
        if window < 2 {
            return Err(config.unsupported("local_attention", &window.into(), "2 or more"));
        }
        Ok((0..count).map(layer).collect())
    }

    fn norm(&self, graph: &mut Builder, name: &str, from: &str, [input, output]: [&str; 2]) {
        let from = Stored { bias: self.norm_bias, ..stored(from) };
        graph.norm(name, from, self.norm, [&all(input), &all(output)]);
    }

    fn layer(&self, graph: &mut Builder, layer: Layer) {
        let Sizes { hidden, intermediate: wide, heads, head_width, .. } = self.sizes;
        let of_attention = |name| Stored { bias: self.attention_bias, ..stored(name) };
        let of_mlp = |name| Stored { bias: self.mlp_bias, ..stored(name) };
        let input = if layer.norm { "normed" } else { "residual" };
        if layer.norm {
            self.norm(graph, "attention_norm", "attn_norm", ["residual", "normed"]);
        }
        graph.linear("attention.qkv", of_attention("attn.Wqkv"), input, &all("qkv"));
        let [query, key, value] =
            [0, 1, 2].map(|part| ValueRef::rows("qkv", part * hidden, (part + 1) * hidden));
        let [angles, _] = ANGLES[usize::from(layer.reach > 0)];
        graph.rotary(angles, &query, head_width);
        graph.rotary(angles, &key, head_width);
        let state =
            graph.cache(if layer.reach > 0 { "kv_local" } else { "kv" }, heads, head_width, 0);
        let scale = 1.0 / (head_width as f32).sqrt();
        let of = Attending { scale, mask: Mask::Full, reach: layer.reach, ..Attending::default() };
        graph.attention_of(&state, [&query, &key, &value], of, "attended");
        graph.linear_onto("attention.output", of_attention("attn.Wo"), "attended", "residual");
        self.norm(graph, "feed_forward_norm", "mlp_norm", ["residual", "normed"]);
        graph.linear("feed_forward.gate_up", of_mlp("mlp.Wi"), "normed", &all("gate_up"));
        let [gate, up] = [0, wide].map(|first| ValueRef::rows("gate_up", first, first + wide));
        graph.gated(Activation::Gelu, [&gate, &up], "gated");
        graph.linear_onto("feed_forward.down", of_mlp("mlp.Wo"), "gated", "residual");
    }

    /// What classes are told from: a text's first token, or the mean of all at each place.
    fn pool(&self, graph: &mut Builder, config: &Config<'_>) -> Result<&'static str> {
        if config.one_of("classifier_pooling", &["cls", "mean"])? != Some("mean") {
            return Ok("hidden");
        }
        let Sizes { hidden, heads, head_width, .. } = self.sizes;
        graph.values([("pooled", hidden)]);
        let (state, all) = (graph.cache("pooling", heads, head_width, 0), all("hidden"));
        // Where all scores are 0, attention is the mean.
        let mean = Attending { scale: 0.0, mask: Mask::Full, ..Attending::default() };
        graph.attention_of(&state, [&all; 3], mean, "pooled");
        Ok("pooled")
    }

    /// What goes before the scores of a head.
    fn transform(&self, graph: &mut Builder, config: &Config<'_>, input: &str) -> Result<()> {
        config.one_of("classifier_activation", &["gelu"])?;
        let (hidden, bias) = (self.sizes.hidden, config.boolean("classifier_bias", false)?);
        graph.selected_values([("selected", hidden), ("head", hidden)]);
        graph.select(input, "selected");
        let from = Stored { bias, ..stored("head.dense") };
        graph.linear("head.transform", from, "selected", &all("head"));
        graph.activate(Activation::Gelu, &all("head"));
        self.norm(graph, "head.norm", "head.norm", ["head"; 2]);
        Ok(())
    }
}

/// The RoPE of layers that see all, and that of the others.
fn ropes(config: &Config<'_>) -> Result<[Rope; 2]> {
    let fields = ["global_rope_theta", "local_rope_theta"];
    let kinds = [
        ("full_attention", "rope_parameters.full_attention."),
        ("sliding_attention", "rope_parameters.sliding_attention."),
    ];
    let both = config.object("rope_parameters", "rope_parameters.")?;
    let rope = |at: usize| {
        let theta = config.positive(fields[at])?.unwrap_or(THETAS[at]);
        let Some(both) = &both else { return Ok(Rope::plain(theta)) };
        let (name, prefix) = kinds[at];
        match both.object(name, prefix)? {
            Some(rope) => Rope::of(&rope, config, theta),
            None => Err(both.missing(name, "an object")),
        }
    };
    Ok([rope(0)?, rope(1)?])
}

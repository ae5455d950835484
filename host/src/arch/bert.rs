//! BERT: an encoder, by itself or with a head that guesses masked tokens or sorts texts into classes
//! (arXiv:1810.04805).

use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::MAX_VOCABULARY;
use super::encoder::{Defaults, Encoder, Head, Names};
use crate::Result;
use omex_core::ops::Index;

pub(super) const NAMES: Names = Names {
    family: "bert",
    base: "bert",
    layers: "bert.encoder.layer",
    attention: [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ],
    attention_norm: "attention.output.LayerNorm",
    head: [
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions",
    ],
    classifier: ["bert.pooler.dense", "classifier"],
};

/// Those of transformers' `BertConfig`.
const DEFAULTS: Defaults = Defaults { vocab_size: 30522, positions: 512, epsilon: 1e-12 };

pub(super) const CLASSES: [&str; 3] =
    ["BertModel", "BertForMaskedLM", "BertForSequenceClassification"];

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let mut encoder = Encoder::read(config, &NAMES, &DEFAULTS)?;
    encoder.types = config.size("type_vocab_size", 2, MAX_VOCABULARY)?;
    if encoder.types > 1 {
        encoder.segments = Index::Segment;
    }
    let derived = [
        "embeddings.position_ids",
        "cls.predictions.decoder.weight",
        "cls.predictions.decoder.bias",
        "cls.seq_relationship.weight",
        "cls.seq_relationship.bias",
        "pooler.dense.weight",
        "pooler.dense.bias",
    ];
    Ok(encoder.blueprint(Head::of(config)?, &derived))
}

//! RoBERTa and its multilingual form: a BERT that counts positions from behind padding's
//! (arXiv:1907.11692, arXiv:1911.02116).

use super::bert;
use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::MAX_VOCABULARY;
use super::encoder::{DERIVED, Defaults, Encoder, Head, Names};
use crate::Result;

const NAMES: Names = Names {
    family: "roberta",
    base: "roberta",
    layers: "roberta.encoder.layer",
    head: ["lm_head.dense", "lm_head.layer_norm", "lm_head"],
    classifier: ["classifier.dense", "classifier.out_proj"],
    ..bert::NAMES
};

/// Those of transformers' `RobertaConfig`, and of `XLMRobertaConfig`.
const DEFAULTS: Defaults = Defaults { vocab_size: 50265, positions: 512, epsilon: 1e-12 };

pub(super) const CLASSES: [&str; 9] = [
    "RobertaModel",
    "RobertaForMaskedLM",
    "RobertaForSequenceClassification",
    "XLMRobertaModel",
    "XLMRobertaForMaskedLM",
    "XLMRobertaForSequenceClassification",
    "CamembertModel",
    "CamembertForMaskedLM",
    "CamembertForSequenceClassification",
];

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let mut encoder = Encoder::read(config, &NAMES, &DEFAULTS)?;
    encoder.types = config.size("type_vocab_size", 2, MAX_VOCABULARY)?;
    encoder.count_from(config, config.integer("pad_token_id")?.unwrap_or(1))?;
    Ok(encoder.blueprint(Head::of(config)?, &DERIVED))
}

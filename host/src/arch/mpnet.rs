//! MPNet: a BERT whose scores depend on how far apart tokens are (arXiv:2004.09297).

use super::blueprint::Blueprint;
use super::config::Config;
use super::encoder::{DERIVED, Defaults, Encoder, Head, Names};
use crate::Result;
use omex_core::ops::DISTANCES;

const NAMES: Names = Names {
    family: "mpnet",
    base: "mpnet",
    layers: "mpnet.encoder.layer",
    attention: ["attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"],
    attention_norm: "attention.LayerNorm",
    head: ["lm_head.dense", "lm_head.layer_norm", "lm_head"],
    classifier: ["classifier.dense", "classifier.out_proj"],
};

/// Those of transformers' `MPNetConfig`.
const DEFAULTS: Defaults = Defaults { vocab_size: 30527, positions: 512, epsilon: 1e-12 };

pub(super) const CLASSES: [&str; 3] =
    ["MPNetModel", "MPNetForMaskedLM", "MPNetForSequenceClassification"];

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let mut encoder = Encoder::read(config, &NAMES, &DEFAULTS)?;
    let classes = DISTANCES as u32;
    let found = config.integer("relative_attention_num_buckets")?.unwrap_or(classes);
    if found != classes {
        let name = "relative_attention_num_buckets";
        return Err(config.unsupported(name, &found.into(), &classes.to_string()));
    }
    encoder.distances = true;
    // Whatever the config says: the original code does not ask.
    encoder.count_from(config, 1)?;
    Ok(encoder.blueprint(Head::of(config)?, &DERIVED))
}

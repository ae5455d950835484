//! llama2.c's files: always a Llama, with run.c's names.

use super::blueprint::Blueprint;
use super::config::{Config, Names};
use super::{LLAMA, draw};
use crate::import::{Container, Fields};
use crate::{Error, Result};
use serde_json::{Value, json};

/// Hugging Face's fields, and what run.c calls them.
const FIELDS: [(&str, &str); 7] = [
    ("hidden_size", "dim"),
    ("intermediate_size", "hidden_dim"),
    ("num_hidden_layers", "n_layers"),
    ("num_attention_heads", "n_heads"),
    ("num_key_value_heads", "n_kv_heads"),
    ("vocab_size", "vocab_size"),
    ("max_position_embeddings", "seq_len"),
];

/// Hugging Face's tensors, and what run.c calls them.
const TENSORS: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", "token_embedding_table"),
    ("model.norm.weight", "rms_final_weight"),
    ("lm_head.weight", "wcls"),
];

/// Those of a layer.
const LAYER_TENSORS: [(&str, &str); 9] = [
    ("input_layernorm.weight", "rms_att_weight"),
    ("self_attn.q_proj.weight", "wq"),
    ("self_attn.k_proj.weight", "wk"),
    ("self_attn.v_proj.weight", "wv"),
    ("self_attn.o_proj.weight", "wo"),
    ("post_attention_layernorm.weight", "rms_ffn_weight"),
    ("mlp.gate_proj.weight", "w1"),
    ("mlp.down_proj.weight", "w2"),
    ("mlp.up_proj.weight", "w3"),
];

/// The blueprint of a llama2.c file.
pub(super) fn blueprint(container: &dyn Container) -> Result<Blueprint> {
    let header = container.config();
    let mut fields = Fields::new();
    for (name, theirs) in FIELDS {
        fields.extend(header.get(theirs).map(|value| (name.to_owned(), value.clone())));
    }
    // The sign of the vocabulary's size says whether there is an output matrix.
    let vocabulary = header.get("vocab_size").and_then(Value::as_i64).unwrap_or(0);
    // run.c stops at BOS, which separated the texts in training; EOS ends a chat's turn.
    for (name, value) in [
        ("vocab_size", json!(vocabulary.unsigned_abs())),
        ("tie_word_embeddings", json!(vocabulary > 0)),
        ("rms_norm_eps", json!(1e-5)),
        ("bos_token_id", json!(1)),
        ("eos_token_id", json!([1, 2])),
    ] {
        fields.insert(name.to_owned(), value);
    }
    let names: Names = FIELDS.map(|(name, theirs)| (name, theirs.to_owned())).into();
    let mut config = Config::renamed(container.path(), fields, names);
    config.interleaved = true;
    let mut blueprint = draw(&LLAMA, &config)?;
    blueprint.rename(|name| {
        stored_name(name).ok_or_else(|| {
            let (found, expected) = ("no place for it in a llama2.c file", "a Llama's tensor");
            let remedy = "convert the original model";
            Error::malformed(container.path(), name, found, expected, remedy)
        })
    })?;
    Ok(blueprint)
}

/// What run.c calls a tensor.
fn stored_name(name: &str) -> Option<String> {
    let find = |table: &[(&str, &'static str)], name: &str| {
        table.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours)
    };
    match name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => find(&LAYER_TENSORS, part).map(|part| format!("{part}.{layer}")),
        None => find(&TENSORS, name).map(str::to_owned),
    }
}

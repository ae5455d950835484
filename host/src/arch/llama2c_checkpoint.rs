//! Checkpoints of programs that train Llamas as llama2.c does: always a Llama, with Meta's names.

use super::blueprint::Blueprint;
use super::config::{Config, Names};
use super::{LLAMA, draw};
use crate::import::{Container, Fields};
use crate::{Error, Result};
use serde_json::{Value, json};

/// Hugging Face's fields, and what `model_args` calls them.
const FIELDS: [(&str, &str); 8] = [
    ("hidden_size", "dim"),
    ("intermediate_size", "hidden_dim"),
    ("num_hidden_layers", "n_layers"),
    ("num_attention_heads", "n_heads"),
    ("num_key_value_heads", "n_kv_heads"),
    ("vocab_size", "vocab_size"),
    ("max_position_embeddings", "max_seq_len"),
    ("rms_norm_eps", "norm_eps"),
];

/// Fields that say how the model was trained, or what its tensors' shapes say, too.
const ASIDE: [&str; 2] = ["multiple_of", "dropout"];

/// Hugging Face's tensors, and what the checkpoint calls them.
const TENSORS: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", "tok_embeddings.weight"),
    ("model.norm.weight", "norm.weight"),
    (OUTPUT, "output.weight"),
];
const OUTPUT: &str = "lm_head.weight";

/// Those of a layer.
const LAYER_TENSORS: [(&str, &str); 9] = [
    ("input_layernorm.weight", "attention_norm.weight"),
    ("self_attn.q_proj.weight", "attention.wq.weight"),
    ("self_attn.k_proj.weight", "attention.wk.weight"),
    ("self_attn.v_proj.weight", "attention.wv.weight"),
    ("self_attn.o_proj.weight", "attention.wo.weight"),
    ("post_attention_layernorm.weight", "ffn_norm.weight"),
    ("mlp.gate_proj.weight", "feed_forward.w1.weight"),
    ("mlp.down_proj.weight", "feed_forward.w2.weight"),
    ("mlp.up_proj.weight", "feed_forward.w3.weight"),
];

/// The blueprint of a checkpoint with `model_args`.
pub(super) fn blueprint(container: &dyn Container) -> Result<Blueprint> {
    let arguments = container.config();
    check_fields(container, arguments)?;
    let mut fields = Fields::new();
    for (name, theirs) in FIELDS {
        fields.extend(arguments.get(theirs).map(|value| (name.to_owned(), value.clone())));
    }
    // The width of feed-forward layers follows from others by a rule that has changed.
    if fields.get("intermediate_size").is_none_or(Value::is_null)
        && let Some(gate) = container.tensor("layers.0.feed_forward.w1.weight")
    {
        fields.insert("intermediate_size".to_owned(), gate.rows.into());
    }
    let output = stored_name(OUTPUT).unwrap_or_default();
    let tied =
        container.tensor(&output).is_none() || container.is_same(&output, "tok_embeddings.weight");
    fields.entry("rms_norm_eps").or_insert(json!(1e-5));
    fields.insert("tie_word_embeddings".to_owned(), tied.into());
    // As in llama2.c's own files: BOS separated the texts in training.
    fields.insert("bos_token_id".to_owned(), json!(1));
    fields.insert("eos_token_id".to_owned(), json!([1, 2]));
    let names: Names = FIELDS.map(|(name, theirs)| (name, format!("model_args.{theirs}"))).into();
    let mut config = Config::renamed(container.path(), fields, names);
    config.interleaved = true;
    let mut blueprint = draw(&LLAMA, &config)?;
    blueprint.rename(|name| {
        stored_name(name).ok_or_else(|| {
            let (found, expected) = ("no name for it in a checkpoint", "a Llama's tensor");
            Error::malformed(container.path(), name, found, expected, "convert another export")
        })
    })?;
    blueprint.derived.extend(tied.then_some("output.weight"));
    blueprint.derived.extend(["freqs_cos", "freqs_sin", "rope.freqs"]);
    Ok(blueprint)
}

/// Refuses fields of other programs' models, and what changes what a Llama computes.
fn check_fields(container: &dyn Container, arguments: &Fields) -> Result<()> {
    let known =
        |name: &str| FIELDS.iter().any(|(_, theirs)| name == *theirs) || ASIDE.contains(&name);
    let unknown = arguments.keys().find(|name| !known(name));
    let missing = ["dim", "n_layers", "n_heads", "vocab_size", "max_seq_len"];
    let missing = missing.into_iter().find(|name| !arguments.contains_key(*name));
    let (field, found) = match (unknown, missing) {
        (None, None) => return Ok(()),
        (Some(name), _) => (name.as_str(), arguments[name].to_string()),
        (None, Some(name)) => (name, "nothing".to_owned()),
    };
    let field = format!("model_args.{field}");
    let expected = "the arguments of llama2.c's train.py: dim, n_layers, n_heads, n_kv_heads, \
                    vocab_size, hidden_dim, multiple_of, norm_eps, max_seq_len, dropout";
    let remedy = "export the model for transformers, and convert that";
    Err(Error::malformed(container.path(), field, found, expected, remedy))
}

/// What a checkpoint calls a tensor.
fn stored_name(name: &str) -> Option<String> {
    let find = |table: &[(&str, &'static str)], name: &str| {
        table.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours)
    };
    match name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => {
            find(&LAYER_TENSORS, part).map(|part| format!("layers.{layer}.{part}"))
        }
        None => find(&TENSORS, name).map(str::to_owned),
    }
}

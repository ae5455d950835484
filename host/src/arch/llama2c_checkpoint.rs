//! Checkpoints of programs that train Llamas as llama2.c does: always a Llama, with Meta's names.

use super::blueprint::Blueprint;
use super::llama2c::Dialect;
use crate::import::{Container, Fields};
use crate::{Error, Result};
use serde_json::{Value, json};

/// What `model_args` and the checkpoint's weights call things.
const CHECKPOINT: Dialect = Dialect {
    prefix: "model_args.",
    fields: &[("max_position_embeddings", "max_seq_len"), ("rms_norm_eps", "norm_eps")],
    tensors: &TENSORS,
    layer_tensors: &LAYER_TENSORS,
    of_layer: |part, layer| format!("layers.{layer}.{part}"),
    unnamed: ["no name for it in a checkpoint", "convert another export"],
};

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
    let mut fields = CHECKPOINT.fields(arguments);
    // The width of feed-forward layers follows from others by a rule that has changed.
    if fields.get("intermediate_size").is_none_or(Value::is_null)
        && let Some(gate) = container.tensor("layers.0.feed_forward.w1.weight")
    {
        fields.insert("intermediate_size".to_owned(), gate.rows.into());
    }
    let output = CHECKPOINT.stored_name(OUTPUT).unwrap_or_default();
    let tied =
        container.tensor(&output).is_none() || container.is_same(&output, "tok_embeddings.weight");
    fields.entry("rms_norm_eps").or_insert(json!(1e-5));
    let mut blueprint = CHECKPOINT.draw(container, fields, tied)?;
    blueprint.derived.extend(tied.then_some("output.weight"));
    blueprint.derived.extend(["freqs_cos", "freqs_sin", "rope.freqs"]);
    Ok(blueprint)
}

/// Refuses fields of other programs' models, and what changes what a Llama computes.
fn check_fields(container: &dyn Container, arguments: &Fields) -> Result<()> {
    let known = |name: &str| CHECKPOINT.names().any(|(_, of)| name == of) || ASIDE.contains(&name);
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

//! The part that writes texts of models that see pictures, too.

use super::config::Config;
use crate::Result;

/// What such models are called, their classes, and what computes their texts unless `text_config` says
/// so.
const MODELS: [(&str, &str, &str); 5] = [
    ("gemma3", "Gemma3ForConditionalGeneration", "gemma3_text"),
    ("gemma4", "Gemma4ForConditionalGeneration", "gemma4_text"),
    ("mistral3", "Mistral3ForConditionalGeneration", "mistral"),
    ("qwen3_5", "Qwen3_5ForConditionalGeneration", "qwen3_5_text"),
    ("qwen3_5_moe", "Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe_text"),
];

/// How names of tensors begin that only pictures need.
pub(super) const ASIDE: [&str; 9] = [
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
    "model.visual.",
    "model.audio_tower.",
    "model.embed_vision.",
    "model.embed_audio.",
    "mtp.",
];

/// The hyperparameters of the part, if this is such a model.
pub(super) fn part<'c>(config: &'c Config<'_>) -> Result<Option<Config<'c>>> {
    let model = config.get("model_type").and_then(|kind| kind.as_str());
    let Some((_, class, default)) = MODELS.iter().find(|(name, ..)| model == Some(*name)) else {
        return Ok(None);
    };
    if let Some(found) = config.get("architectures").filter(|_| !config.has_class(class)) {
        return Err(config.unsupported("architectures", found, class));
    }
    let name = "text_config";
    let part = config.object(name, "text_config.")?;
    let part =
        part.ok_or_else(|| config.missing(name, "the hyperparameters of the text's part"))?;
    Ok(Some(part.with(|fields| {
        // That of the whole model counts.
        fields.remove("architectures");
        fields.entry("model_type").or_insert_with(|| (*default).into());
        for name in ["bos_token_id", "eos_token_id"] {
            if let Some(token) = config.get(name) {
                fields.insert(name.to_owned(), token.clone());
            }
        }
        if let Some(tied) = config.get("tie_word_embeddings") {
            fields.entry("tie_word_embeddings").or_insert_with(|| tied.clone());
        }
    })))
}

/// What a tensor of the part may be called, besides its name, and its name without the part's own.
pub(super) fn names(name: &str, bare: &str) -> [String; 2] {
    [format!("language_model.{name}"), format!("model.language_model.{bare}")]
}

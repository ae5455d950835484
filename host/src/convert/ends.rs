//! Which tokens end a text: models name them in several places, and each of them counts.

use super::settings::beside;
use crate::import::Container;
use crate::tokenizer::Spec;
use crate::{Error, Result};
use omex_core::program::MAX_STOP_TOKENS;
use serde_json::Value;
use std::path::Path;

/// What control tokens that end a text, a turn or a message are called.
const ENDS: [&str; 18] = [
    "</s>",
    "<eos>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<turn|>",
    "<end_of_utterance>",
    "<|endofturn|>",
    "<EOT>",
    "_<EOT>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "[EOT]",
];

/// The tokens that end a text: those of the hyperparameters and of `generation_config.json`, the one
/// that `tokenizer_config.json` names, and control tokens whose text says so.
pub(super) fn end_tokens(
    source: &dyn Container,
    configured: &[u32],
    spec: Option<&Spec>,
    vocabulary: u32,
) -> Result<Vec<u32>> {
    let generation = generation_config(source)?;
    // What an architecture takes for granted gives way to what the model says.
    let assumed = !generation.is_empty() && !names_ends(source.config());
    let mut ends = if assumed { vec![] } else { configured.to_vec() };
    ends.extend(generation);
    if let Some(spec) = spec {
        ends.extend(named_by_tokenizer(source, spec)?);
        ends.extend(by_text(spec));
    }
    let mut seen = Vec::new();
    // An id without a row can't be chosen, so it ends nothing.
    for id in ends.into_iter().filter(|id| *id < vocabulary) {
        if !seen.contains(&id) {
            seen.push(id);
        }
    }
    if seen.len() <= MAX_STOP_TOKENS {
        return Ok(seen);
    }
    let (found, most) = (format!("{} of them", seen.len()), format!("at most {MAX_STOP_TOKENS}"));
    let remedy =
        "leave those out of eos_token_id, here and in generation_config.json, that end no text";
    Err(Error::malformed(source.path(), "tokens that end a text", found, most, remedy))
}

fn names_ends(config: &crate::import::Fields) -> bool {
    let text = config.get("text_config").and_then(|text| text.get("eos_token_id"));
    text.or_else(|| config.get("eos_token_id")).is_some()
}

fn malformed(path: &Path, field: &str, found: String, expected: &str) -> Error {
    Error::malformed(path, field, found, expected, "correct the file, or get it again")
}

/// The ids in `generation_config.json`.
fn generation_config(source: &dyn Container) -> Result<Vec<u32>> {
    let name = "generation_config.json";
    let Some(settings) = beside::<Value>(source, name)? else { return Ok(vec![]) };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match settings.get("eos_token_id") {
        None | Some(Value::Null) => Some(vec![]),
        Some(Value::Array(ids)) => ids.iter().map(id).collect(),
        Some(value) => id(value).map(|id| vec![id]),
    };
    ids.ok_or_else(|| {
        let path = source.path().with_file_name(name);
        let found = settings["eos_token_id"].to_string();
        malformed(&path, "eos_token_id", found, "a token id, a list of them, or null")
    })
}

/// The token that `tokenizer_config.json` names: a text, or an object with one.
fn named_by_tokenizer(source: &dyn Container, spec: &Spec) -> Result<Option<u32>> {
    let Some(settings) = beside::<Value>(source, "tokenizer_config.json")? else {
        return Ok(None);
    };
    let token = settings.get("eos_token").map(|token| token.get("content").unwrap_or(token));
    Ok(token.and_then(Value::as_str).and_then(|text| spec.id_of(text)))
}

/// Control tokens that end a text by their name.
fn by_text(spec: &Spec) -> Vec<u32> {
    let special = spec.added.iter().filter(|token| token.special);
    let mut found: Vec<_> =
        special.filter(|token| ENDS.contains(&token.content.as_str())).collect();
    // Where a message ends with another token, this one only closes a part of it.
    if found.iter().any(|token| ["<|return|>", "<|call|>"].contains(&token.content.as_str())) {
        found.retain(|token| token.content != "<|end|>");
    }
    found.into_iter().map(|token| token.id).collect()
}

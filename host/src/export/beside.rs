//! The files that transformers and sentence-transformers keep beside weights.

use super::Dtype;
use crate::convert::{POOLINGS, write_json};
use crate::import::Fields;
use crate::package::{DEFAULT_TEMPLATE, EmbeddingSettings, Package, Pooling};
use crate::tokenizer::Spec;
use crate::{Error, Result, input};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Writes them for weights of this type.
pub(super) fn write(
    package: &Package,
    mut config: Fields,
    dtype: Dtype,
    folder: &Path,
) -> Result<()> {
    config.remove("dtype");
    config.insert("torch_dtype".into(), dtype.torch().into());
    write_json(&folder.join("config.json"), &config)?;
    let tokens = &package.metadata.tokens;
    if !tokens.eos.is_empty() {
        let generation = json!({ "bos_token_id": tokens.bos, "eos_token_id": tokens.eos });
        write_json(&folder.join("generation_config.json"), &generation)?;
    }
    if package.tokenizer_tables().is_some() {
        write_tokenizer(package, folder)?;
    }
    package.embedding.as_ref().map_or(Ok(()), |settings| write_embedding(package, settings, folder))
}

/// The tokenizer, and its settings with the chat templates.
fn write_tokenizer(package: &Package, folder: &Path) -> Result<()> {
    let name = "tokenizer/tokenizer.json";
    let json = input::read_part(&package.path, name, input::MAX_TOKENIZER_BYTES)?;
    let path = folder.join("tokenizer.json");
    std::fs::write(&path, json).map_err(|e| Error::io(&path, "write", e))?;
    let mut settings = Map::new();
    settings.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    settings.insert("clean_up_tokenization_spaces".into(), false.into());
    settings.insert("model_max_length".into(), package.graph.context_length.into());
    let chat = package.chat()?;
    let mut tokens = special_tokens(package)?;
    tokens.extend(chat.iter().flat_map(|chat| chat.special_tokens.clone()));
    settings.extend(tokens.into_iter().map(|(name, text)| (name, text.into())));
    if let Some(chat) = chat {
        settings.insert("chat_template".into(), templates(chat.templates));
    }
    write_json(&folder.join("tokenizer_config.json"), &settings)
}

/// The texts of the tokens that begin and end texts.
fn special_tokens(package: &Package) -> Result<BTreeMap<String, String>> {
    let spec = Spec::from_package(&package.path)?;
    let text = |id: u32| {
        let added =
            spec.added.iter().find(|token| token.id == id).map(|token| token.content.clone());
        added.or_else(|| String::from_utf8(spec.pieces.get(id as usize)?.clone()).ok())
    };
    let tokens = &package.metadata.tokens;
    let named = [("bos_token", tokens.bos), ("eos_token", tokens.eos.first().copied())];
    let named = named.into_iter().filter_map(|(name, id)| Some((name.to_owned(), text(id?)?)));
    Ok(named.collect())
}

/// Chat templates as the tokenizer's settings have them.
fn templates(templates: BTreeMap<String, String>) -> Value {
    match (templates.len(), templates.get(DEFAULT_TEMPLATE)) {
        (1, Some(only)) => only.clone().into(),
        _ => templates
            .into_iter()
            .map(|(name, template)| json!({ "name": name, "template": template }))
            .collect(),
    }
}

/// How sentence-transformers makes vectors.
fn write_embedding(package: &Package, settings: &EmbeddingSettings, folder: &Path) -> Result<()> {
    let module = |number: usize, path: &str, class: &str| {
        let kind = format!("sentence_transformers.models.{class}");
        json!({ "idx": number, "name": number.to_string(), "path": path, "type": kind })
    };
    let mut modules = vec![module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling")];
    if settings.normalize {
        modules.push(module(2, "2_Normalize", "Normalize"));
    }
    write_json(&folder.join("modules.json"), &modules)?;
    let pooling = folder.join("1_Pooling");
    std::fs::create_dir(&pooling).map_err(|e| Error::io(&pooling, "create", e))?;
    let hidden = package.metadata.model_architecture.hidden_size;
    write_json(&pooling.join("config.json"), &pooling_json(settings.pooling, hidden))?;
    if let Some(most) = settings.max_tokens {
        let texts = json!({ "max_seq_length": most, "do_lower_case": false });
        write_json(&folder.join("sentence_bert_config.json"), &texts)?;
    }
    let prompts =
        json!({ "prompts": settings.prompts, "default_prompt_name": settings.default_prompt });
    write_json(&folder.join("config_sentence_transformers.json"), &prompts)
}

fn pooling_json(pooling: Pooling, hidden: u32) -> Value {
    let mut fields = Map::new();
    fields.insert("word_embedding_dimension".into(), hidden.into());
    fields.extend(POOLINGS.map(|(switch, _, kind)| (switch.to_owned(), (kind == pooling).into())));
    fields.into()
}

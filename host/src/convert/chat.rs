//! The chat templates that come with a model: other programs keep them in several places.

use super::settings::beside;
use crate::chat::MAX_TEMPLATE_BYTES;
use crate::import::{Container, SourceFormat};
use crate::package::{Chat, DEFAULT_TEMPLATE};
use crate::tokenizer::Spec;
use crate::{Error, Result, input};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Tokens that templates name.
const TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// The key of a GGUF file's template; others follow behind a dot.
const GGUF_KEY: &str = "tokenizer.chat_template";

type Texts = BTreeMap<String, String>;

/// The templates and the tokens that they name; none where the model has no template.
pub(super) fn chat(source: &dyn Container, spec: Option<&Spec>) -> Result<Option<Chat>> {
    Ok(match source.format() {
        format if format.has_config() => Chat::new(of_folder(source)?, tokens_of_folder(source)?),
        SourceFormat::Gguf => Chat::new(
            of_gguf(source),
            spec.map(|spec| tokens_of_gguf(source, spec)).unwrap_or_default(),
        ),
        _ => None,
    })
}

/// Later places win, as in transformers: the tokenizer's settings, a JSON file, a file of its own.
fn of_folder(source: &dyn Container) -> Result<Texts> {
    let mut templates = Texts::new();
    for name in ["tokenizer_config.json", "chat_template.json"] {
        if let Some(template) = beside::<Value>(source, name)?
            .and_then(|mut settings| settings.get_mut("chat_template").map(Value::take))
        {
            add(&source.path().with_file_name(name), template, &mut templates)?;
        }
    }
    let path = source.path().with_file_name("chat_template.jinja");
    if path.exists() {
        templates.insert(DEFAULT_TEMPLATE.to_owned(), input::read_text(&path, MAX_TEMPLATE_BYTES)?);
    }
    Ok(templates)
}

/// A template, or a list of named ones.
fn add(path: &Path, template: Value, templates: &mut Texts) -> Result<()> {
    let malformed = |found: &Value| {
        let expected = "a text, or a list of objects with name and template";
        let remedy = "correct the file, or get it again";
        Error::malformed(path, "chat_template", found.to_string(), expected, remedy)
    };
    match template {
        Value::Null => {}
        Value::String(text) => drop(templates.insert(DEFAULT_TEMPLATE.to_owned(), text)),
        Value::Array(named) => {
            for one in &named {
                let text = |field: &str| one.get(field).and_then(Value::as_str).map(str::to_owned);
                let (name, text) =
                    text("name").zip(text("template")).ok_or_else(|| malformed(one))?;
                templates.insert(name, text);
            }
        }
        other => return Err(malformed(&other)),
    }
    Ok(())
}

/// Each is a text, or an object with one.
fn tokens_of_folder(source: &dyn Container) -> Result<Texts> {
    let mut tokens = Texts::new();
    for name in ["special_tokens_map.json", "tokenizer_config.json"] {
        let Some(settings) = beside::<Value>(source, name)? else { continue };
        for token in TOKENS {
            let value = settings.get(token).map(|value| value.get("content").unwrap_or(value));
            if let Some(text) = value.and_then(Value::as_str) {
                tokens.insert(token.to_owned(), text.to_owned());
            }
        }
    }
    Ok(tokens)
}

fn of_gguf(source: &dyn Container) -> Texts {
    let named = source.config().iter().filter_map(|(key, value)| {
        let name = match key.strip_prefix(GGUF_KEY)? {
            "" => DEFAULT_TEMPLATE,
            name => name.strip_prefix('.')?,
        };
        Some((name.to_owned(), value.as_str()?.to_owned()))
    });
    named.collect()
}

fn tokens_of_gguf(source: &dyn Container, spec: &Spec) -> Texts {
    let keys = ["bos", "eos", "unknown", "seperator", "padding", "cls", "mask"];
    let tokens = keys.into_iter().zip(TOKENS).filter_map(|(key, token)| {
        let id = source.config().get(&format!("tokenizer.ggml.{key}_token_id"))?.as_u64()?;
        let piece = spec.pieces.get(usize::try_from(id).ok()?)?;
        Some((token.to_owned(), std::str::from_utf8(piece).ok()?.to_owned()))
    });
    tokens.collect()
}

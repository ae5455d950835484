//! How sentence-transformers says what an encoder's hidden states become.

use super::settings::beside;
use crate::import::{Container, Fields, SourceFormat};
use crate::package::{EmbeddingSettings, Pooling, PreprocessorSettings, Step};
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// The fields of sentence-transformers' poolings.
pub(crate) const POOLINGS: [(&str, &str, Pooling); 5] = [
    ("pooling_mode_mean_tokens", "mean", Pooling::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Pooling::MeanSqrtLength),
    ("pooling_mode_max_tokens", "max", Pooling::Max),
    ("pooling_mode_cls_token", "cls", Pooling::FirstToken),
    ("pooling_mode_lasttoken", "lasttoken", Pooling::LastToken),
];

/// The file beside a model that says how texts are prepared.
const TEXTS: &str = "sentence_bert_config.json";

/// Switches whose poolings are not computed here.
const OTHERS: [&str; 1] = ["pooling_mode_weightedmean_tokens"];

/// The settings beside a model that sentence-transformers saved; none beside others.
///
/// # Errors
/// Files that are malformed, or that ask for what nothing here computes.
pub(super) fn embedding_settings(source: &dyn Container) -> Result<Option<EmbeddingSettings>> {
    if source.format() == SourceFormat::Gguf {
        return of_gguf(source);
    }
    let name = "modules.json";
    let Some(modules) = beside::<Vec<Fields>>(source, name)? else { return Ok(None) };
    let file = source.path().with_file_name(name);
    let mut settings = EmbeddingSettings::default();
    for module in &modules {
        let text = |name: &str| module.get(name).and_then(Value::as_str).unwrap_or_default();
        // The kind is a class of Python's, in some package.
        match text("type").rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Pooling" => settings.pooling = read_pooling(source, &file, text("path"))?,
            "Normalize" => settings.normalize = true,
            _ => {
                let expected = "Transformer, Pooling or Normalize";
                return Err(unsupported(&file, "type", text("type"), expected));
            }
        }
    }
    read_texts(source, &mut settings)?;
    Ok(Some(settings))
}

/// The settings of an encoder in a GGUF file, which names a pooling by its number in llama.cpp; vectors that it gives
/// are of length 1.
fn of_gguf(source: &dyn Container) -> Result<Option<EmbeddingSettings>> {
    let architecture = source.config().get("general.architecture").and_then(Value::as_str);
    let key = format!("{}.pooling_type", architecture.unwrap_or("bert"));
    let pooling = match source.config().get(&key).map(Value::as_u64) {
        None | Some(Some(0)) => return Ok(None),
        // Scores of classes are no vectors.
        Some(Some(4)) if source.tensor("cls.output.weight").is_some() => return Ok(None),
        Some(Some(1)) => Pooling::Mean,
        Some(Some(2)) => Pooling::FirstToken,
        Some(Some(3)) => Pooling::LastToken,
        _ => {
            let expected = "0 (none), 1 (mean), 2 (first token), 3 (last token), or 4 (scores) beside cls.output.weight";
            return Err(unsupported(source.path(), &key, &source.config()[&key], expected));
        }
    };
    Ok(Some(EmbeddingSettings { pooling, normalize: true, ..Default::default() }))
}

/// What sentence-transformers has texts go through, if there is more than the tokenizer does.
///
/// # Errors
/// A file that is malformed.
pub(super) fn preprocessor(source: &dyn Container) -> Result<Option<PreprocessorSettings>> {
    let fields = beside::<Fields>(source, TEXTS)?.unwrap_or_default();
    let lowers = fields.get("do_lower_case") == Some(&Value::Bool(true));
    Ok(lowers.then(|| PreprocessorSettings::new(vec![Step::Trim {}, Step::Lowercase {}])))
}

/// Reads how texts are prepared.
fn read_texts(source: &dyn Container, settings: &mut EmbeddingSettings) -> Result<()> {
    if let Some(fields) = beside::<Fields>(source, TEXTS)? {
        let file = source.path().with_file_name(TEXTS);
        settings.max_tokens = optional(&file, &fields, "max_seq_length", "a number")?;
    }
    let name = "config_sentence_transformers.json";
    if let Some(fields) = beside::<Fields>(source, name)? {
        let file = source.path().with_file_name(name);
        let prompts = optional(&file, &fields, "prompts", "an object of strings")?;
        settings.prompts = prompts.unwrap_or_default();
        settings.default_prompt = optional(&file, &fields, "default_prompt_name", "a string")?;
    }
    Ok(())
}

/// Reads the pooling of a module, which `modules` names.
fn read_pooling(source: &dyn Container, modules: &Path, module: &str) -> Result<Pooling> {
    let expected = "the name of a folder beside it that has config.json";
    // A path of the file's must not lead out of the folder.
    if Path::new(module).components().count() != 1 || module.starts_with('.') {
        return Err(unsupported(modules, "path", module, expected));
    }
    let name = format!("{module}/config.json");
    let file = source.path().with_file_name(&name);
    let Some(fields) = beside::<Fields>(source, &name)? else {
        return Err(unsupported(modules, "path", module, expected));
    };
    if fields.get("include_prompt") == Some(&Value::Bool(false)) {
        return Err(unsupported(&file, "include_prompt", "false", "true"));
    }
    let is_on = |name: &&str| fields.get(*name) == Some(&Value::Bool(true));
    if let Some(other) = OTHERS.iter().find(|name| is_on(name)) {
        return Err(unsupported(&file, other, "true", "false"));
    }
    if let Some(mode) = fields.get("pooling_mode") {
        let known = POOLINGS.iter().find(|(_, name, _)| mode == name);
        let expected = POOLINGS.map(|(_, name, _)| name).join(", ");
        let found = known.map(|(.., pooling)| *pooling);
        return found.ok_or_else(|| unsupported(&file, "pooling_mode", mode, &expected));
    }
    let on: Vec<_> = POOLINGS.iter().filter(|(switch, ..)| is_on(switch)).collect();
    match on[..] {
        [(.., pooling)] => Ok(*pooling),
        _ => Err(unsupported(&file, "pooling_mode_*", format!("{} of them", on.len()), "one")),
    }
}

const AGAIN: &str = "correct the file, or get it again";

fn optional<T: serde::de::DeserializeOwned>(
    file: &Path,
    fields: &Fields,
    name: &str,
    expected: &str,
) -> Result<Option<T>> {
    let value = fields.get(name).cloned().unwrap_or_default();
    let found = value.to_string();
    let wrong = |_| Error::malformed(file, name, found, expected, AGAIN);
    serde_json::from_value(value).map_err(wrong)
}

fn unsupported(file: &Path, name: &str, found: impl ToString, expected: &str) -> Error {
    let remedy = "models with anything else are not supported";
    Error::malformed(file, name, found.to_string(), expected, remedy)
}

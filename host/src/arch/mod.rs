//! What models compute: a door for each architecture.
//!
//! An architecture reads the hyperparameters and makes a [`Blueprint`]: the graph, and for each of
//! its tensors where the numbers come from. It knows Hugging Face's names only; `gguf` and `llama2c`
//! translate what other containers call things.

mod blueprint;
mod builder;
mod config;
mod decoder;
mod gguf;
mod llama;
mod llama2c;
mod rope;
#[cfg(test)]
mod tests;

pub use blueprint::{Blueprint, Data, Order, Role, Sizes, Source, TensorPlan};
pub(crate) use builder::FREQUENCIES;

use crate::import::{Container, Fields, SourceFormat};
use crate::{Error, Result};
use config::Config;
use serde_json::Value;
use std::{borrow::Cow, path::Path};

/// An architecture by its names.
struct Architecture {
    /// `model_type` in `config.json`.
    model_type: &'static str,
    /// The class in `architectures`.
    class: &'static str,
    /// `general.architecture` in GGUF files.
    gguf: Option<&'static str>,
    blueprint: fn(&Config<'_>) -> Result<Blueprint>,
}

const LLAMA: Architecture = Architecture {
    model_type: "llama",
    class: "LlamaForCausalLM",
    gguf: Some("llama"),
    blueprint: llama::blueprint,
};

const ARCHITECTURES: [Architecture; 1] = [LLAMA];

/// What a stored model computes, and with which of its tensors.
///
/// # Errors
/// An architecture that is not known, hyperparameters that are wrong or ask for what nothing here
/// computes, or tensors that are not those that they call for.
pub fn blueprint(container: &dyn Container) -> Result<Blueprint> {
    let blueprint = match container.format() {
        SourceFormat::HuggingFace => of_config(container.path(), container.config())?,
        SourceFormat::Gguf => gguf::blueprint(container)?,
        SourceFormat::Llama2c => llama2c::blueprint(container)?,
    };
    blueprint.check(container)?;
    Ok(blueprint)
}

/// What a model with the hyperparameters of a `config.json` computes.
///
/// # Errors
/// As [`blueprint`], but for the tensors.
pub fn of_config(file: &Path, fields: &Fields) -> Result<Blueprint> {
    let config = Config::new(file, Cow::Borrowed(fields));
    let architecture = architecture(&config)?;
    draw(architecture, &config)
}

/// Draws the blueprint of an architecture, and refuses what it did not ask for.
fn draw(architecture: &Architecture, config: &Config<'_>) -> Result<Blueprint> {
    let blueprint = (architecture.blueprint)(config)?;
    config.refuse_unread()?;
    Ok(blueprint)
}

/// The architecture that a `config.json` names.
fn architecture(config: &Config<'_>) -> Result<&'static Architecture> {
    let classes = config.get("architectures");
    let has = |class: &str| {
        let classes = classes.and_then(Value::as_array);
        classes.is_some_and(|names| names.iter().any(|name| name == class))
    };
    let architecture = match config.get("model_type") {
        Some(kind) => ARCHITECTURES.iter().find(|a| kind == a.model_type),
        None => ARCHITECTURES.iter().find(|a| has(a.class)),
    };
    let Some(architecture) = architecture else {
        let found = config.get("model_type").unwrap_or(&Value::Null);
        return Err(unknown(config, "model_type", found, |a| Some(a.model_type)));
    };
    match classes.filter(|_| !has(architecture.class)) {
        Some(found) => Err(config.unsupported("architectures", found, architecture.class)),
        None => Ok(architecture),
    }
}

/// An architecture that has no door, with those that have.
fn unknown(
    config: &Config<'_>,
    field: &str,
    found: &Value,
    name: impl Fn(&Architecture) -> Option<&'static str>,
) -> Error {
    let known: Vec<_> = ARCHITECTURES.iter().filter_map(name).collect();
    let expected = format!("one of {}", known.join(", "));
    let remedy = "other architectures are not supported";
    Error::malformed(config.file(), field, found.to_string(), expected, remedy)
}

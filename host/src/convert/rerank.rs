//! How the scores of a model that compares two texts are made, as sentence-transformers says it.

use super::settings::beside;
use crate::arch::Blueprint;
use crate::graph::CLASSES;
use crate::import::{Container, Fields};
use crate::package::{RerankSettings, ScoreActivation};
use crate::tokenizer::Spec;
use crate::{Error, Result};
use serde_json::Value;

/// The activations by the ends of their names in PyTorch.
const ACTIVATIONS: [(&str, ScoreActivation); 2] =
    [("Identity", ScoreActivation::Identity), ("Sigmoid", ScoreActivation::Sigmoid)];

/// Where a `config.json` names one: today's field, and that of versions before 4.
const FIELDS: [&str; 2] =
    ["/sentence_transformers/activation_fn", "/sbert_ce_default_activation_function"];

/// The settings of a model that sorts texts into classes and has a tokenizer with a template of pairs.
///
/// # Errors
/// A template that is damaged, or an activation that nothing here computes.
pub(super) fn rerank_settings(
    source: &dyn Container,
    blueprint: &Blueprint,
    spec: Option<&Spec>,
) -> Result<Option<RerankSettings>> {
    let graph = &blueprint.graph;
    let Some(port) = graph.outputs.iter().find(|output| output.name == CLASSES) else {
        return Ok(None);
    };
    let Some(template) = spec.map(Spec::pair_template).transpose()?.flatten() else {
        return Ok(None);
    };
    let classes = graph.values.get(&port.value.name).map_or(0, |shape| shape.width);
    let activation = match activation(source)? {
        Some(activation) => activation,
        None if classes == 1 => ScoreActivation::Sigmoid,
        None => ScoreActivation::Identity,
    };
    let max_tokens = longest(source)?.filter(|most| *most < graph.context_length);
    Ok(Some(RerankSettings { template, activation, max_tokens }))
}

/// The activation that the model's `config.json` names, if it names one.
fn activation(source: &dyn Container) -> Result<Option<ScoreActivation>> {
    let config = Value::Object(source.config().clone());
    let named = FIELDS.iter().find_map(|field| Some((field, config.pointer(field)?)));
    let Some((field, found)) = named.filter(|(_, found)| !found.is_null()) else {
        return Ok(None);
    };
    let name = found.as_str().filter(|name| name.starts_with("torch.nn."));
    let last = name.and_then(|name| name.rsplit('.').next());
    let known = ACTIVATIONS.iter().find(|(name, _)| last == Some(name));
    known.map(|(_, activation)| Some(*activation)).ok_or_else(|| {
        let field = field.trim_start_matches('/').replace('/', ".");
        let expected = "torch.nn.Identity or torch.nn.Sigmoid, in some module";
        let remedy = "models with any other value are not supported";
        Error::malformed(source.path(), field, found.to_string(), expected, remedy)
    })
}

/// Tokens of a text that the tokenizer's settings allow, if they say so.
fn longest(source: &dyn Container) -> Result<Option<u32>> {
    let fields = beside::<Fields>(source, "tokenizer_config.json")?;
    let most = fields.and_then(|fields| fields.get("model_max_length")?.as_u64());
    Ok(most.and_then(|most| u32::try_from(most).ok()).filter(|most| *most > 0))
}

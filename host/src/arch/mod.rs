//! What models compute: a door for each architecture.
//!
//! An architecture reads the hyperparameters and makes a [`Blueprint`]: the graph, and for each of
//! its tensors where the numbers come from. It knows Hugging Face's names only; `gguf` and `llama2c`
//! translate what other containers call things.
//!
//! A new architecture is a file here and a line in `ARCHITECTURES`. Decoders find what they have in
//! common in `decoder`, and every operation in `builder`.

mod bert;
mod bloom;
mod blueprint;
mod builder;
mod config;
mod decoder;
mod deepseek_v2;
mod deepseek_v3;
mod encoder;
mod gated_delta;
mod gemma2;
mod gemma3;
mod gemma4;
mod gguf;
mod gpt2;
mod gpt_neox;
mod gpt_oss;
mod granite;
mod granite_hybrid;
mod lfm2;
mod llama;
mod llama2c;
mod llama2c_checkpoint;
mod mistral;
mod mixtral;
mod mixture;
mod modernbert;
mod mpnet;
mod olmo2;
mod olmoe;
mod onnx;
mod onnx_graph;
mod phi;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_5;
mod qwen3_5_moe;
mod qwen3_moe;
mod qwen3_next;
mod roberta;
mod rope;
mod smollm3;
mod stablelm;
mod starcoder2;
mod tensors;
#[cfg(test)]
mod tests;
mod text;
mod tflite;

pub use blueprint::{Blueprint, Data, Longer, Order, Role, Sizes, Slice, Source, TensorPlan};
pub(crate) use builder::EMBEDDING;
#[cfg(test)]
use builder::FREQUENCIES;
pub(crate) use gguf::{InGguf, in_gguf};
pub(crate) use tensors::bytes::{Step, Steps, apart, in_bytes};

use crate::import::{Container, Fields, SourceFormat};
use crate::{Error, Result};
use config::{Config, Stacking};
use serde_json::{Value, json};
use std::{borrow::Cow, path::Path};

/// An architecture by its names.
struct Architecture {
    /// `model_type` in `config.json`.
    model_type: &'static str,
    /// The classes in `architectures` that it computes.
    classes: &'static [&'static str],
    /// What names of stored tensors begin with, unless the model was stored without its head.
    base: &'static str,
    /// `general.architecture` in GGUF files.
    gguf: Option<&'static str>,
    /// Matrices of its checkpoints have a row for each input.
    by_inputs: bool,
    blueprint: fn(&Config<'_>) -> Result<Blueprint>,
}

const LLAMA: Architecture = Architecture {
    model_type: "llama",
    classes: &["LlamaForCausalLM"],
    base: "model.",
    gguf: Some("llama"),
    by_inputs: false,
    blueprint: llama::blueprint,
};

const ARCHITECTURES: &[Architecture] = &[
    LLAMA,
    // llama.cpp has one name for these three.
    Architecture::new("mistral", &["MistralForCausalLM"], "model.", mistral::blueprint)
        .in_gguf("llama"),
    Architecture::new("mixtral", &["MixtralForCausalLM"], "model.", mixtral::blueprint)
        .in_gguf("llama"),
    Architecture::new("qwen2", &["Qwen2ForCausalLM"], "model.", qwen2::blueprint).in_gguf("qwen2"),
    Architecture::new("qwen3", &["Qwen3ForCausalLM"], "model.", qwen3::blueprint).in_gguf("qwen3"),
    Architecture::new("qwen3_moe", &["Qwen3MoeForCausalLM"], "model.", qwen3_moe::blueprint)
        .in_gguf("qwen3moe"),
    Architecture::new("qwen3_next", &["Qwen3NextForCausalLM"], "model.", qwen3_next::blueprint)
        .in_gguf("qwen3next"),
    Architecture::new("gpt_oss", &["GptOssForCausalLM"], "model.", gpt_oss::blueprint)
        .in_gguf("gpt-oss"),
    // llama.cpp has one name for both.
    Architecture::new("deepseek_v2", &["DeepseekV2ForCausalLM"], "model.", deepseek_v2::blueprint)
        .in_gguf("deepseek2"),
    Architecture::new("deepseek_v3", &["DeepseekV3ForCausalLM"], "model.", deepseek_v3::blueprint)
        .in_gguf("deepseek2"),
    Architecture::new("gemma2", &["Gemma2ForCausalLM"], "model.", gemma2::blueprint)
        .in_gguf("gemma2"),
    Architecture::new("gemma3_text", &["Gemma3ForCausalLM"], "model.", gemma3::blueprint)
        .in_gguf("gemma3"),
    Architecture::new("gemma4_text", &["Gemma4ForCausalLM"], "model.", gemma4::blueprint)
        .in_gguf("gemma4"),
    Architecture::new("gpt2", &["GPT2LMHeadModel"], "transformer.", gpt2::blueprint)
        .stored_by_inputs()
        .in_gguf("gpt2"),
    Architecture::new("bloom", &["BloomForCausalLM"], "transformer.", bloom::blueprint)
        .in_gguf("bloom"),
    Architecture::new("granite", &["GraniteForCausalLM"], "model.", granite::blueprint)
        .in_gguf("granite"),
    Architecture::new("smollm3", &["SmolLM3ForCausalLM"], "model.", smollm3::blueprint)
        .in_gguf("smollm3"),
    Architecture::new("olmo2", &["Olmo2ForCausalLM"], "model.", olmo2::blueprint).in_gguf("olmo2"),
    Architecture::new("olmoe", &["OlmoeForCausalLM"], "model.", olmoe::blueprint).in_gguf("olmoe"),
    Architecture::new("starcoder2", &["Starcoder2ForCausalLM"], "model.", starcoder2::blueprint)
        .in_gguf("starcoder2"),
    Architecture::new("phi", &["PhiForCausalLM"], "model.", phi::blueprint).in_gguf("phi2"),
    Architecture::new("phi3", &["Phi3ForCausalLM"], "model.", phi3::blueprint).in_gguf("phi3"),
    Architecture::new("stablelm", &["StableLmForCausalLM"], "model.", stablelm::blueprint)
        .in_gguf("stablelm"),
    Architecture::new("gpt_neox", &["GPTNeoXForCausalLM"], "gpt_neox.", gpt_neox::blueprint)
        .in_gguf("gptneox"),
    Architecture::new(
        "granitemoehybrid",
        &["GraniteMoeHybridForCausalLM"],
        "model.",
        granite_hybrid::blueprint,
    )
    .in_gguf("granitehybrid"),
    Architecture::new("qwen3_5_text", &["Qwen3_5ForCausalLM"], "model.", qwen3_5::blueprint)
        .in_gguf("qwen35"),
    Architecture::new(
        "qwen3_5_moe_text",
        &["Qwen3_5MoeForCausalLM"],
        "model.",
        qwen3_5_moe::blueprint,
    )
    .in_gguf("qwen35moe"),
    Architecture::new("lfm2", &["Lfm2ForCausalLM"], "model.", lfm2::blueprint).in_gguf("lfm2"),
    Architecture::new("bert", &bert::CLASSES, "bert.", bert::blueprint).in_gguf("bert"),
    // llama.cpp has one name for these and BERT, which computes the same of what its files have of them.
    Architecture::new("roberta", &roberta::CLASSES, "roberta.", roberta::blueprint).in_gguf("bert"),
    Architecture::new("xlm-roberta", &roberta::CLASSES, "roberta.", roberta::blueprint)
        .in_gguf("bert"),
    Architecture::new("camembert", &roberta::CLASSES, "roberta.", roberta::blueprint)
        .in_gguf("bert"),
    Architecture::new("mpnet", &mpnet::CLASSES, "mpnet.", mpnet::blueprint),
    Architecture::new("modernbert", &modernbert::CLASSES, "model.", modernbert::blueprint)
        .in_gguf("modern-bert"),
];

impl Architecture {
    /// An architecture of Hugging Face folders only.
    const fn new(
        model_type: &'static str,
        classes: &'static [&'static str],
        base: &'static str,
        blueprint: fn(&Config<'_>) -> Result<Blueprint>,
    ) -> Self {
        Self { model_type, classes, base, gguf: None, by_inputs: false, blueprint }
    }

    /// The same with matrices that have a row for each input.
    const fn stored_by_inputs(self) -> Self {
        Self { by_inputs: true, ..self }
    }

    /// The same in GGUF files, under this name.
    const fn in_gguf(self, name: &'static str) -> Self {
        Self { gguf: Some(name), ..self }
    }
}

/// What a stored model computes, and with which of its tensors.
///
/// # Errors
/// An architecture that is not known, hyperparameters that are wrong or ask for what nothing here
/// computes, or tensors that are not those that they call for.
pub fn blueprint(container: &dyn Container) -> Result<Blueprint> {
    let blueprint = drawn(container)?;
    match blueprint.problems(container).into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(blueprint),
    }
}

/// All that keeps [`blueprint`] from giving one, as far as it can be told at once.
#[must_use]
pub fn problems(container: &dyn Container) -> Vec<Error> {
    match drawn(container) {
        Ok(blueprint) => blueprint.problems(container),
        Err(first) => {
            let all = match container.format() {
                SourceFormat::Onnx if container.graph_inputs().is_some() => {
                    onnx_graph::problems(container)
                }
                SourceFormat::HuggingFace | SourceFormat::Onnx => unread(&config_of(container)),
                SourceFormat::Gguf => gguf::problems(container),
                SourceFormat::Tflite => tflite::problems(container),
                _ => vec![],
            };
            if all.is_empty() { vec![first] } else { all }
        }
    }
}

/// The blueprint of a container, whose tensors are not looked at.
fn drawn(container: &dyn Container) -> Result<Blueprint> {
    match container.format() {
        SourceFormat::Onnx if container.graph_inputs().is_some() => {
            onnx_graph::blueprint(container)
        }
        SourceFormat::HuggingFace | SourceFormat::Onnx => hugging_face(container),
        SourceFormat::Gguf => gguf::blueprint(container),
        SourceFormat::Llama2c => llama2c::blueprint(container),
        SourceFormat::Tflite => tflite::blueprint(container),
        SourceFormat::PyTorch => llama2c_checkpoint::blueprint(container),
    }
}

/// Refusals of what a model asks for that its architecture does not know; none where drawing it fails.
fn unread(config: &Config<'_>) -> Vec<Error> {
    let of = |config: &Config<'_>| {
        let drawn = architecture(config).and_then(|found| (found.blueprint)(config));
        drawn.map_or(vec![], |_| config.unread())
    };
    match text::part(config) {
        Ok(None) => of(config),
        Ok(Some(part)) => config.unread().into_iter().chain(of(&part)).collect(),
        Err(_) => vec![],
    }
}

/// The hyperparameters of a Hugging Face folder.
fn config_of(container: &dyn Container) -> Config<'_> {
    let mut config = Config::new(container.path(), Cow::Borrowed(container.config()));
    // As transformers 5 holds experts in memory, and some models are published.
    if container.names().iter().any(|name| name.ends_with(".experts.gate_up_proj")) {
        config.stacking = Stacking::Joint;
    }
    config
}

/// The blueprint of a Hugging Face folder, with the names that its tensors really have.
fn hugging_face(container: &dyn Container) -> Result<Blueprint> {
    let (architecture, mut blueprint) = draw_text(&config_of(container))?;
    let exported = onnx::Exported::new(container, &blueprint, architecture.base);
    blueprint.rename(|name| {
        let bare = name.strip_prefix(architecture.base).unwrap_or(name);
        // As TensorFlow's checkpoints called them, which were converted name by name.
        let old = |name: &str| {
            let stem = name.strip_suffix("LayerNorm.weight").map(|stem| (stem, "gamma"));
            let stem = stem.or(name.strip_suffix("LayerNorm.bias").map(|stem| (stem, "beta")));
            stem.map(|(stem, part)| format!("{stem}LayerNorm.{part}"))
        };
        let own = [Some(name.to_owned()), Some(bare.to_owned()), old(name), old(bare)];
        let inner = text::names(name, bare).map(Some);
        let usual = own.into_iter().chain(inner).flatten().chain(exported.names(name, bare));
        let found = usual.into_iter().find_map(|other| container.stored_name(&other));
        Ok(found.unwrap_or_else(|| name.to_owned()))
    })?;
    exported.take(&mut blueprint, container, architecture.by_inputs);
    Ok(blueprint)
}

/// What a model with the hyperparameters of a `config.json` computes.
///
/// # Errors
/// As [`blueprint`], but for the tensors.
pub fn of_config(file: &Path, fields: &Fields) -> Result<Blueprint> {
    let config = Config::new(file, Cow::Borrowed(fields));
    Ok(draw_text(&config)?.1)
}

/// The architecture of a model, or of the part of it that writes texts, and its blueprint.
fn draw_text(config: &Config<'_>) -> Result<(&'static Architecture, Blueprint)> {
    let Some(part) = text::part(config)? else {
        let architecture = architecture(config)?;
        return Ok((architecture, draw(architecture, config)?));
    };
    config.refuse_unread()?;
    let architecture = architecture(&part)?;
    let blueprint = draw(architecture, &part)?;
    let aside = text::ASIDE.map(str::to_owned).to_vec();
    Ok((architecture, Blueprint { aside, ..blueprint }))
}

/// Draws the blueprint of an architecture, and refuses what it did not ask for.
fn draw(architecture: &Architecture, config: &Config<'_>) -> Result<Blueprint> {
    let blueprint = (architecture.blueprint)(config)?;
    config.refuse_unread()?;
    let hyperparameters = described(architecture, config);
    Ok(Blueprint { hyperparameters, ..blueprint })
}

/// The hyperparameters as a `config.json` has them that stands beside floats.
fn described(architecture: &Architecture, config: &Config<'_>) -> Fields {
    let mut fields = config.fields().clone();
    fields.insert("model_type".into(), architecture.model_type.into());
    fields.entry("architectures").or_insert_with(|| json!([architecture.classes[0]]));
    fields.remove("quantization_config");
    // No token is null to transformers.
    if fields.get("eos_token_id") == Some(&json!([])) {
        fields.insert("eos_token_id".into(), Value::Null);
    }
    if let Some(scaling) = rope::divided_by_factors(config) {
        fields.insert("rope_scaling".into(), scaling);
    }
    fields
}

/// The architecture that a `config.json` names.
fn architecture(config: &Config<'_>) -> Result<&'static Architecture> {
    let has_class = |a: &&Architecture| a.classes.iter().any(|class| config.has_class(class));
    let architecture = match config.get("model_type") {
        Some(kind) => ARCHITECTURES.iter().find(|a| kind == a.model_type),
        None => ARCHITECTURES.iter().find(has_class),
    };
    let Some(architecture) = architecture else {
        let found = config.get("model_type").unwrap_or(&Value::Null);
        return Err(unknown(config, "model_type", found, |a| Some(a.model_type)));
    };
    match config.get("architectures").filter(|_| !has_class(&architecture)) {
        Some(found) => {
            Err(config.unsupported("architectures", found, &architecture.classes.join(" or ")))
        }
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
    let mut known: Vec<_> = ARCHITECTURES.iter().filter_map(name).collect();
    known.dedup();
    let expected = format!("one of {}", known.join(", "));
    let remedy = "other architectures are not supported";
    Error::malformed(config.file(), field, found.to_string(), expected, remedy)
}

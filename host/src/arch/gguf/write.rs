//! Hyperparameters into GGUF's keys: what is read of them beside this, the other way round.

use super::kinds::{BERT, DEEPSEEK, GEMMA4, KINDS, Kind, MODERN_BERT, QWEN3_5, SIGMOID, SOFTMAX};
use super::names::{LONG_ROPE, ROPE_FACTORS};
use super::renamed;
use crate::arch::blueprint::Blueprint;
use crate::arch::builder::FREQUENCIES;
use crate::arch::config::{Config, Stacking};
use crate::arch::gemma3::LOCAL_FREQUENCIES;
use crate::arch::{architecture, draw};
use crate::graph::{CLASSES, Node};
use crate::import::Fields;
use crate::{Error, Result};
use omex_core::ops::Index;
use serde_json::Value;
use std::borrow::Cow;
use std::path::Path;

/// A model in GGUF's words.
pub(crate) struct InGguf {
    /// `general.architecture`.
    pub(crate) architecture: &'static str,
    /// The blueprint, with GGUF's names of tensors.
    pub(crate) blueprint: Blueprint,
    /// The architecture's keys: floats are numbers with a point.
    pub(crate) keys: Vec<(String, Value)>,
    /// What llama.cpp computes otherwise.
    pub(crate) notes: Vec<&'static str>,
    /// Vectors that say how RoPE's frequencies are stretched.
    pub(crate) factors: Vec<(&'static str, Vec<f32>)>,
}

/// What llama.cpp calls a model with these hyperparameters, and its tensors.
///
/// # Errors
/// A model that GGUF files have no words for.
pub(crate) fn in_gguf(file: &Path, fields: &Fields) -> Result<InGguf> {
    let architecture = architecture(&Config::new(file, Cow::Borrowed(fields)))?;
    let kind = architecture.gguf.and_then(|name| KINDS.iter().find(|kind| kind.name == name));
    let kind = kind.ok_or_else(|| stranger(file, architecture.model_type))?;
    let mut config = Config::new(file, Cow::Borrowed(fields));
    (config.interleaved, config.stacking) = (kind.interleaved, Stacking::Parts);
    config.converted = true;
    let blueprint = draw(architecture, &config)?;
    let mut words = Words { kind, config: &config, keys: vec![], factors: vec![] };
    words.add_fields(&blueprint);
    match kind.name {
        GEMMA4 => words.add_gemma4()?,
        _ => words.add_rope()?,
    }
    let Words { keys, factors, .. } = words;
    let window = config.noted("sliding_window").filter(|window| !window.is_null());
    let slides = window.is_some() && !kind.slides;
    let notes = [
        (WINDOWS, slides),
        (SEGMENTS, sorts_by_segments(&blueprint)),
        (GROUPS, chooses_groups_by_best(&blueprint)),
    ];
    let notes = notes.into_iter().filter(|(_, so)| *so).map(|(note, _)| note).collect();
    let remedy = "use --format safetensors";
    let blueprint = renamed(blueprint, file, kind, remedy)?;
    Ok(InGguf { architecture: kind.name, blueprint, keys, notes, factors })
}

const WINDOWS: &str = "llama.cpp lets these layers see all of a text: longer ones than their window come \
                       out otherwise";
const SEGMENTS: &str =
    "llama.cpp puts all tokens into the first segment: scores of pairs come out otherwise";

const GROUPS: &str = "llama.cpp chooses groups of experts by the best two of each, and not by the best one: texts \
                      may come out otherwise";

/// True for a model that chooses groups of experts by the best of each.
fn chooses_groups_by_best(blueprint: &Blueprint) -> bool {
    let nodes = blueprint.graph.subgraphs.values().flatten().chain(&blueprint.graph.nodes);
    nodes.into_iter().any(|node| matches!(node, Node::Route(op) if op.by_best))
}

/// True for a model that tells two texts apart by their segments.
fn sorts_by_segments(blueprint: &Blueprint) -> bool {
    let by_segment = |node: &Node| matches!(node, Node::Embed(op) if op.index == Index::Segment);
    let graph = &blueprint.graph;
    graph.values.contains_key(CLASSES) && graph.nodes.iter().any(by_segment)
}

fn stranger(file: &Path, kind: &str) -> Error {
    let known = KINDS.map(|kind| kind.name).join(", ");
    let remedy = "use --format safetensors";
    Error::malformed(file, "model_type", kind, format!("one that is written as {known}"), remedy)
}

/// The pooling of models that sort texts into classes, by its number.
const RANK: u32 = 4;

pub(super) struct Words<'w> {
    kind: &'static Kind,
    pub(super) config: &'w Config<'w>,
    keys: Vec<(String, Value)>,
    pub(super) factors: Vec<(&'static str, Vec<f32>)>,
}

impl Words<'_> {
    pub(super) fn add(&mut self, key: &str, value: impl Into<Value>) {
        self.keys.push((format!("{}.{key}", self.kind.name), value.into()));
    }

    fn add_fields(&mut self, blueprint: &Blueprint) {
        let fields = self.kind.fields.iter().chain([&self.kind.epsilon]);
        let latent = self.kind.name == DEEPSEEK;
        let elsewhere = |name: &str, key: &str| {
            key.starts_with("rope.") && name != "rope_finetuned"
                || latent && ["head_dim", "num_key_value_heads"].contains(&name)
        };
        for (name, key) in
            fields.chain(self.kind.optional()).filter(|(name, key)| !elsewhere(name, key))
        {
            if let Some(value) = self.config.noted(name).filter(|value| !value.is_null()) {
                self.add(key, value);
            }
        }
        match self.config.noted("head_dim") {
            Some(_) if latent => self.add_latent(blueprint),
            Some(_) if self.kind.own_widths => {}
            Some(width) => self.add("attention.value_length", width),
            None => {}
        }
        self.add("vocab_size", blueprint.graph.vocab_size);
        // Fields that llama.cpp insists on where OMEX and transformers have them by other names.
        match self.kind.name {
            "gpt-oss" => {
                let width = self.config.noted("intermediate_size");
                self.add("expert_feed_forward_length", width);
            }
            "granite" if self.config.noted("logits_scaling").is_none() => {
                self.add("logit_scale", 1.0)
            }
            MODERN_BERT => {
                self.add("attention.causal", false);
                self.add_classes(blueprint);
            }
            BERT => self.add_encoder(blueprint),
            name if QWEN3_5.contains(&name) => {
                self.add("rope.dimension_sections", self.sections());
            }
            _ => {}
        }
    }

    /// How positions in time and in pictures share the pairs that RoPE turns, in whole thirds unless the model
    /// says otherwise: in texts all of them are the same.
    fn sections(&self) -> Vec<u64> {
        let rope = self.config.fields().get("rope_parameters");
        let given = rope.and_then(|rope| rope["mrope_section"].as_array());
        let given = given.map(|sections| sections.iter().filter_map(Value::as_u64).collect());
        let turned = self.config.noted(FREQUENCIES).and_then(|rope| rope["width"].as_u64());
        let third = turned.unwrap_or(0).div_ceil(6);
        let mut sections: Vec<_> = given.unwrap_or_else(|| vec![third; 3]);
        sections.resize(4, 0);
        sections
    }

    /// How many segments there are, and classes.
    fn add_encoder(&mut self, blueprint: &Blueprint) {
        self.add("attention.causal", false);
        let types = self.config.noted("type_vocab_size").unwrap_or_default();
        self.keys.push(("tokenizer.ggml.token_type_count".to_owned(), types));
        self.add_classes(blueprint);
    }

    /// Which classes texts are sorted into, if they are.
    fn add_classes(&mut self, blueprint: &Blueprint) {
        let Some(classes) = blueprint.graph.values.get(CLASSES).map(|shape| shape.width) else {
            return;
        };
        self.add("pooling_type", RANK);
        let labels = self.config.fields().get("id2label");
        let label = |class: u32| {
            let said = labels.and_then(|labels| labels[class.to_string()].as_str());
            said.map_or_else(|| format!("LABEL_{class}"), str::to_owned)
        };
        self.add("classifier.output_labels", (0..classes).map(label).collect::<Vec<_>>());
    }

    /// Widths of what is kept, of which there is one for all heads, and of heads.
    fn add_latent(&mut self, blueprint: &Blueprint) {
        let scores = if blueprint.family == "deepseek_v2" { SOFTMAX } else { SIGMOID };
        let noted = |name| self.config.noted(name).and_then(|size| size.as_u64()).unwrap_or(0);
        let [width, turned, plain] =
            ["kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim"].map(noted);
        for (key, size) in [
            ("attention.head_count_kv", 1),
            ("attention.key_length", width + turned),
            ("attention.value_length", width),
            ("attention.key_length_mla", plain + turned),
            ("expert_gating_func", scores.into()),
        ] {
            self.add(key, size);
        }
    }

    /// What RoPEs are made of, which architectures note by the names of their frequencies.
    fn add_rope(&mut self) -> Result<()> {
        let Some(rope) = self.config.noted(FREQUENCIES) else { return Ok(()) };
        if rope["kind"] == "proportional" {
            let (found, remedy) = ("a kind that GGUF has no words for", "use --format safetensors");
            let file = self.config.file();
            return Err(Error::malformed(file, "rope_scaling", found, "another kind", remedy));
        }
        let local = self.config.noted(LOCAL_FREQUENCIES).unwrap_or_default();
        // Where scores are multiplied, queries and keys are not.
        let scores = rope["score_mscale"].as_f64().filter(|mscale| *mscale != 0.0);
        let scores = scores.map_or(Value::Null, |mscale| (0.1 * mscale).into());
        let part = if scores.is_null() { &rope["attention_part"] } else { &Value::Null };
        for (key, value) in [
            ("dimension_count", &rope["width"]),
            ("freq_base", &rope["theta"]),
            ("freq_base_swa", &local["theta"]),
            ("scaling.type", &rope["kind"]),
            ("scaling.factor", &rope["factor"]),
            ("scaling.original_context_length", &rope["original"]),
            ("scaling.attn_factor", part),
            ("scaling.yarn_beta_fast", &rope["beta_fast"]),
            ("scaling.yarn_beta_slow", &rope["beta_slow"]),
            ("scaling.yarn_log_multiplier", &scores),
        ] {
            if !value.is_null() {
                self.add(&format!("rope.{key}"), value.clone());
            }
        }
        let [(_, short), (_, long)] = LONG_ROPE;
        for (name, from) in [(ROPE_FACTORS, "divisors"), (short, "short"), (long, "long")] {
            if let Some(factors) = rope[from].as_array() {
                let factors = factors.iter().filter_map(Value::as_f64);
                self.factors.push((name, factors.map(|factor| factor as f32).collect()));
            }
        }
        Ok(())
    }
}

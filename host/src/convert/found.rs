//! What a model of another program is, and what a package of it would be, without reading its weights.

use super::weights::WeightLayout;
use super::{
    ConvertOptions, TokenizerChoice, chat, embedding, ends, precisions, rerank, tables, tokenizer,
};
use crate::arch;
use crate::import::{Container, Encoding, TokenizerSource};
use crate::quantize::Precision;
use crate::session::SessionOptions;
use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;

/// What was found of a model.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    /// The format that it is stored in.
    pub source_format: String,
    /// The architecture, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<&'static str>,
    /// Numbers that it learned, if the architecture is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// Tensors of each type of numbers.
    pub dtypes: BTreeMap<String, usize>,
    /// Bytes of the tensors.
    pub source_bytes: u64,
    /// What the tokenizer comes from; `None` without one.
    pub tokenizer: Option<&'static str>,
    /// Its tokens.
    pub tokens: usize,
    /// Names of the chat templates.
    pub chat_templates: Vec<String>,
    /// What keeps it from being converted.
    #[serde(serialize_with = "texts")]
    pub problems: Vec<Error>,
}

fn texts<S: serde::Serializer>(problems: &[Error], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(problems.iter().map(ToString::to_string))
}

/// A package that is not written yet.
#[derive(Clone, Debug, Serialize)]
pub struct Outlook {
    /// Precisions of the matrices.
    pub quantization: String,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Tokens that a text may have at most; 0 where it has none.
    pub context: u32,
    /// So many where the model is converted for longer texts, if it can be ([`ConvertOptions::long_context`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub long_context: Option<u32>,
    /// Bytes that running it takes with a context of [`Self::tokens`], if no weights stream.
    pub memory: u64,
    /// Tokens of a text that this has room for: all that a text may have, but [`CONTEXT`] at most.
    pub tokens: u32,
}

/// Tokens of a text at most that what is to fit into memory has room for.
pub const CONTEXT: u32 = 4096;

/// Looks at all that a conversion would read but the numbers, and notes every part that it would refuse.
#[must_use]
pub fn found(source: &dyn Container, options: &ConvertOptions<'_>) -> Found {
    let choice = options.tokenizer;
    let mut found =
        Found { source_format: source.format().to_string(), ..Found::of_tensors(source) };
    let blueprint = match arch::blueprint(source) {
        Ok(blueprint) => Some(blueprint),
        Err(_) => {
            found.problems = arch::problems(source);
            None
        }
    };
    if let Some(blueprint) = blueprint.clone() {
        found.part(super::as_asked(blueprint, source, options));
    }
    if let Some(blueprint) = &blueprint {
        found.architecture = Some(blueprint.family);
        found.parameters = Some(blueprint.parameters());
    }
    let vocabulary = blueprint.as_ref().map_or(u32::MAX, |b| b.graph.vocab_size);
    let spec = tokenizer(source, vocabulary as usize, choice);
    let spec = found.part(spec).flatten();
    if let Some(spec) = &spec {
        found.tokens = spec.pieces.len();
        found.tokenizer = Some(match (choice, source.tokenizer()) {
            (TokenizerChoice::File(_), _) => "the file that was given",
            (_, Some(tokenizer)) => name(tokenizer),
            (_, None) => "no file",
        });
    }
    found.part(embedding::embedding_settings(source));
    let templates = found.part(chat::chat(source, spec.as_ref())).flatten();
    found.chat_templates =
        templates.into_iter().flat_map(|chat| chat.templates.into_keys()).collect();
    if let Some(blueprint) = &blueprint {
        found.part(rerank::rerank_settings(source, blueprint, spec.as_ref()));
        found.part(ends::end_tokens(source, &blueprint.eos, spec.as_ref(), vocabulary));
    }
    found
}

impl Found {
    fn of_tensors(source: &dyn Container) -> Self {
        let mut found = Self::default();
        for info in source.names().iter().filter_map(|name| source.tensor(name)) {
            let name = match info.encoding {
                Encoding::Other(name, _) => name.to_owned(),
                known => format!("{known:?}").to_uppercase(),
            };
            *found.dtypes.entry(name).or_default() += 1;
            let row = info.encoding.row_bytes(info.columns).unwrap_or(0);
            found.source_bytes += row * u64::from(info.rows);
        }
        found
    }

    /// A part, or a problem.
    fn part<T>(&mut self, part: Result<T>) -> Option<T> {
        part.map_err(|problem| self.problems.push(problem)).ok()
    }
}

fn name(tokenizer: &TokenizerSource) -> &'static str {
    match tokenizer {
        TokenizerSource::HuggingFace(_) => "tokenizer.json",
        TokenizerSource::Vocabulary(_) => "vocab.txt",
        TokenizerSource::Model(path) if path.extension().is_some_and(|e| e == "tiktoken") => {
            "qwen.tiktoken"
        }
        TokenizerSource::Model(_) => "tokenizer.model",
        TokenizerSource::Llama2c(_) => "tokenizer.bin",
        TokenizerSource::Gguf(_) => "the GGUF file",
    }
}

/// What a conversion without calibration would make of a model.
///
/// # Errors
/// Those of [`super::outline`].
pub fn outlook(source: &dyn Container, options: &ConvertOptions<'_>) -> Result<Outlook> {
    let blueprint = arch::blueprint(source)?;
    let long_context = blueprint.longer.as_ref().map(|longer| longer.context_length);
    let blueprint = super::as_asked(blueprint, source, options)?;
    let layout = WeightLayout::new(source, &blueprint, options.precision, options.residual);
    let index = layout.index();
    let tables = tables(source.path(), &layout, &blueprint.eos, &index)?;
    let context = blueprint.graph.context_length;
    let tokens = context.min(CONTEXT);
    let room = (tokens > 0).then_some(tokens);
    let memory = tables.needed(&SessionOptions { context: room, ..Default::default() })?;
    let (quantization, weight_bytes) = (precisions(&layout), index.space());
    Ok(Outlook { quantization, weight_bytes, context, long_context, memory, tokens })
}

/// The best precision whose package runs within `memory` bytes without streaming, as
/// [`ConvertOptions::precision`] has it: the default, or else int4.
///
/// # Errors
/// Those of [`outlook`].
pub fn best_precision(
    source: &dyn Container,
    options: &ConvertOptions<'_>,
    memory: Option<u64>,
) -> Result<(Option<Precision>, Outlook)> {
    let with = |precision| {
        outlook(source, &ConvertOptions { precision, residual: false, ..options.clone() })
    };
    let default = with(None)?;
    if memory.is_none_or(|memory| default.memory <= memory) {
        return Ok((None, default));
    }
    let int4 = with(Some(Precision::Int4))?;
    // What can't be rounded any further stays as it is.
    if int4.weight_bytes >= default.weight_bytes {
        return Ok((None, default));
    }
    Ok((Some(Precision::Int4), int4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::{RandomModel, SHAPES};

    #[test]
    fn the_best_precision_is_the_one_that_memory_holds() {
        let source = RandomModel::new(&SHAPES[0], Precision::F16, 1).unwrap();
        let best = |memory| best_precision(&source, &ConvertOptions::default(), memory).unwrap();
        let (precision, int8) = best(None);
        assert_eq!((precision, int8.quantization.as_str()), (None, "int8"));
        assert!(int8.memory > int8.weight_bytes);
        let (precision, _) = best(Some(int8.memory));
        assert_eq!(precision, None);
        let (precision, int4) = best(Some(int8.memory - 1));
        assert_eq!(precision, Some(Precision::Int4));
        assert!(int4.weight_bytes < int8.weight_bytes, "{int4:?}");
    }
}

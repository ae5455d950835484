//! What a model of another program is, and what a package of it would be, without reading its weights.

use super::weights::WeightLayout;
use super::{TokenizerChoice, chat, embedding, ends, precisions, rerank, tables, tokenizer};
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
    /// Bytes that running it takes with a context of [`CONTEXT`] tokens, if no weights stream.
    pub memory: u64,
}

/// Tokens of a text that what is to fit into memory has room for.
pub const CONTEXT: u32 = 4096;

/// Looks at all that a conversion would read but the numbers, and notes every part that it would refuse.
#[must_use]
pub fn found(source: &dyn Container, choice: TokenizerChoice<'_>) -> Found {
    let mut found =
        Found { source_format: source.format().to_string(), ..Found::of_tensors(source) };
    let blueprint = match arch::blueprint(source) {
        Ok(blueprint) => Some(blueprint),
        Err(_) => {
            found.problems = arch::problems(source);
            None
        }
    };
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
pub fn outlook(
    source: &dyn Container,
    precision: Option<Precision>,
    residual: bool,
) -> Result<Outlook> {
    let blueprint = arch::blueprint(source)?;
    let layout = WeightLayout::new(source, &blueprint, precision, residual);
    let index = layout.index();
    let tables = tables(source.path(), &layout, &blueprint.eos, &index)?;
    let context = Some(blueprint.graph.context_length).filter(|trained| *trained > 0);
    let context = context.map(|trained| trained.min(CONTEXT));
    let memory = tables.needed(&SessionOptions { context, ..Default::default() })?;
    let (quantization, weight_bytes) = (precisions(&layout), index.space());
    Ok(Outlook { quantization, weight_bytes, memory })
}

/// The best precision whose package runs within `memory` bytes without streaming, as
/// [`super::ConvertOptions::precision`] has it: the default, or else int4.
///
/// # Errors
/// Those of [`outlook`].
pub fn best_precision(
    source: &dyn Container,
    memory: Option<u64>,
) -> Result<(Option<Precision>, Outlook)> {
    let default = outlook(source, None, false)?;
    if memory.is_none_or(|memory| default.memory <= memory) {
        return Ok((None, default));
    }
    let int4 = outlook(source, Some(Precision::Int4), false)?;
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
        let (precision, int8) = best_precision(&source, None).unwrap();
        assert_eq!((precision, int8.quantization.as_str()), (None, "int8"));
        assert!(int8.memory > int8.weight_bytes);
        let (precision, _) = best_precision(&source, Some(int8.memory)).unwrap();
        assert_eq!(precision, None);
        let (precision, int4) = best_precision(&source, Some(int8.memory - 1)).unwrap();
        assert_eq!(precision, Some(Precision::Int4));
        assert!(int4.weight_bytes < int8.weight_bytes, "{int4:?}");
    }
}

//! The vocabulary in a GGUF file's metadata (`tokenizer.ggml.*`; `docs/gguf.md` of ggml-org/ggml, and
//! `src/llama-vocab.cpp` of ggml-org/llama.cpp for what the fields mean).

use super::{
    Added, Kind, Lookup, Merge, PreTokenizer, Spec, WITHOUT_TOKENIZER, byte_level, scores,
};
use crate::{Error, Result};
use omex_core::token::layout::flag;
use std::collections::HashMap;
use std::path::Path;

/// The fields of `tokenizer.ggml` that describe a vocabulary.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocabulary {
    /// `model`: "llama" (SentencePiece's BPE), "gemma4" (the same with merges), "t5" (its Unigram), "gpt2" (byte-level BPE) or "bert" (WordPiece).
    pub model: String,
    /// `pre`: how text is cut into words.
    pub pre: Option<String>,
    /// `tokens`.
    pub tokens: Vec<Vec<u8>>,
    /// `scores`: one a token, or none.
    pub scores: Vec<f32>,
    /// `token_type`: one a token, or none.
    pub token_types: Vec<i32>,
    /// `merges`: two pieces with a space between.
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `unknown_token_id`.
    pub unknown: Option<u32>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// `add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// `remove_extra_whitespaces`.
    pub remove_extra_whitespaces: Option<bool>,
    /// `precompiled_charsmap`; empty for none.
    pub charsmap: Vec<u8>,
}

/// Values of `token_type`.
pub(super) mod token_type {
    pub(in super::super) const NORMAL: i32 = 1;
    pub(in super::super) const UNKNOWN: i32 = 2;
    pub(in super::super) const CONTROL: i32 = 3;
    pub(in super::super) const USER_DEFINED: i32 = 4;
    pub(in super::super) const UNUSED: i32 = 5;
    pub(in super::super) const BYTE: i32 = 6;
}

impl Spec {
    /// Makes a tokenizer of the vocabulary that the GGUF file at `origin` holds.
    ///
    /// # Errors
    /// If the vocabulary is of another kind than "llama", "gemma4", "t5", "gpt2" and "bert", its way of cutting text is unknown, or fields
    /// contradict each other.
    pub fn from_gguf(origin: &Path, vocabulary: GgufVocabulary) -> Result<Self> {
        let lengths = [vocabulary.scores.len(), vocabulary.token_types.len()];
        if let Some(other) = lengths.into_iter().find(|&n| n != 0 && n != vocabulary.tokens.len()) {
            return Err(Error::malformed(
                origin,
                "tokenizer.ggml.scores, token_type",
                format!("{other} entries"),
                format!("{}, one a token", vocabulary.tokens.len()),
                "convert the model again",
            ));
        }
        match vocabulary.model.as_str() {
            "llama" => characters(origin, vocabulary),
            "gemma4" => merged(origin, &vocabulary),
            "t5" => scored(origin, &vocabulary),
            "gpt2" => bytes(origin, vocabulary),
            "bert" => Self::from_gguf_words(origin, &texts(origin, &vocabulary)?),
            other => Err(Error::malformed(
                origin,
                "tokenizer.ggml.model",
                other,
                "llama, gemma4, t5, gpt2 or bert",
                WITHOUT_TOKENIZER,
            )),
        }
    }
}

fn characters(origin: &Path, vocabulary: GgufVocabulary) -> Result<Spec> {
    let added = added(origin, &vocabulary)?;
    let texts = texts(origin, &vocabulary)?;
    let pieces: Vec<_> = texts.into_iter().map(String::into_bytes).collect();
    let merges = scores::merges(&pieces, &vocabulary.scores).ok_or_else(|| {
        Error::malformed(
            origin,
            "tokenizer.ggml.scores",
            "not a number",
            "finite scores",
            "convert the model again",
        )
    })?;
    if vocabulary.scores.is_empty() {
        return Err(Error::malformed(
            origin,
            "tokenizer.ggml.scores",
            "nothing",
            "a score for every token",
            "convert the model again",
        ));
    }
    let prefix = vocabulary.add_space_prefix.unwrap_or(true);
    let spec = Spec {
        origin: origin.to_owned(),
        kind: Kind::Characters,
        pre_tokenizer: PreTokenizer::None,
        flags: flag::SPACE_MARK | if prefix { flag::PREFIX_ALWAYS | flag::STRIP_START } else { 0 },
        pieces,
        merges,
        added,
        unknown: vocabulary.unknown.or(Some(0)),
        byte_fallback: true,
        ignore_merges: false,
        before: wanted(vocabulary.add_bos.unwrap_or(true), vocabulary.bos.or(Some(1))),
        after: wanted(vocabulary.add_eos.unwrap_or(false), vocabulary.eos.or(Some(2))),
        lookup: Lookup::default(),
        json: None,
    };
    spec.check()?;
    Ok(spec)
}

/// Characters that merge as a list says, where others have scores.
fn merged(origin: &Path, vocabulary: &GgufVocabulary) -> Result<Spec> {
    let texts = texts(origin, vocabulary)?;
    let merges = ranked(origin, &texts, &vocabulary.merges)?;
    let prefix = match vocabulary.add_space_prefix {
        Some(true) => flag::PREFIX_ALWAYS | flag::STRIP_START,
        _ => 0,
    };
    let spec = Spec {
        origin: origin.to_owned(),
        kind: Kind::Characters,
        pre_tokenizer: PreTokenizer::None,
        flags: flag::SPACE_MARK | flag::FUSE_UNKNOWN | prefix,
        pieces: texts.into_iter().map(String::into_bytes).collect(),
        merges,
        added: added(origin, vocabulary)?,
        unknown: vocabulary.unknown,
        byte_fallback: true,
        ignore_merges: false,
        before: wanted(vocabulary.add_bos.unwrap_or(true), vocabulary.bos),
        after: wanted(vocabulary.add_eos.unwrap_or(false), vocabulary.eos),
        lookup: Lookup::default(),
        json: None,
    };
    spec.check()?;
    Ok(spec)
}

/// A Unigram tokenizer, which llama.cpp calls by the first model that had one.
fn scored(origin: &Path, vocabulary: &GgufVocabulary) -> Result<Spec> {
    let flags = [
        (vocabulary.add_space_prefix.unwrap_or(true), flag::PREFIX_ALWAYS | flag::STRIP_START),
        (vocabulary.remove_extra_whitespaces.unwrap_or(false), flag::COLLAPSE_SPACES),
    ];
    let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flags)| flags).sum();
    let byte_fallback = vocabulary.token_types.contains(&token_type::BYTE);
    let names = ["tokenizer.ggml.scores", "tokenizer.ggml.precompiled_charsmap"];
    let spec = Spec::of_scores(origin, vocabulary, names, (flags, byte_fallback))?;
    Ok(Spec {
        before: wanted(vocabulary.add_bos.unwrap_or(false), vocabulary.bos),
        after: wanted(vocabulary.add_eos.unwrap_or(true), vocabulary.eos.or(Some(1))),
        ..spec
    })
}

fn bytes(origin: &Path, vocabulary: GgufVocabulary) -> Result<Spec> {
    let pre = vocabulary.pre.as_deref();
    let (pre_tokenizer, llama3, nfc) = match pre {
        Some("gpt-2" | "phi-2" | "mpt" | "olmo" | "roberta-bpe") => (PreTokenizer::Gpt2, false, 0),
        Some("modern-bert") => (PreTokenizer::Gpt2, false, flag::NFC),
        Some("smollm" | "starcoder" | "refact" | "command-r") => {
            (PreTokenizer::Gpt2Digits, false, 0)
        }
        Some("llama-bpe" | "llama3" | "llama-v3") => (PreTokenizer::Llama3, true, 0),
        Some("dbrx" | "smaug-bpe" | "chatglm-bpe") => (PreTokenizer::Llama3, false, 0),
        Some("qwen2") => (PreTokenizer::Qwen2, false, flag::NFC),
        Some("qwen35") => (PreTokenizer::Qwen3_5, false, flag::NFC),
        Some("gpt-4o") => (PreTokenizer::Gpt4o, false, 0),
        Some("tekken") => (PreTokenizer::Tekken, true, 0),
        Some("deepseek-v3") => (PreTokenizer::DeepSeekV3, false, 0),
        other => {
            return Err(Error::malformed(
                origin,
                "tokenizer.ggml.pre",
                other.unwrap_or("nothing"),
                "gpt-2, gpt-4o, smollm, llama-bpe, qwen2, qwen35, tekken, deepseek-v3 or another name for one of these",
                "convert the model again with a current converter, or give its tokenizer.json",
            ));
        }
    };
    let added = added(origin, &vocabulary)?;
    let texts = texts(origin, &vocabulary)?;
    let mut pieces = spelled_bytes(origin, &texts, &added)?;
    let merges = ranked(origin, &texts, &vocabulary.merges)?;
    for token in &added {
        if let Some(piece) = pieces.get_mut(token.id as usize) {
            *piece = token.content.clone().into_bytes();
        }
    }
    let spec = Spec {
        origin: origin.to_owned(),
        kind: Kind::Bytes,
        pre_tokenizer,
        flags: nfc,
        pieces,
        merges,
        added,
        unknown: None,
        byte_fallback: false,
        ignore_merges: llama3,
        before: wanted(vocabulary.add_bos.unwrap_or(llama3), vocabulary.bos),
        after: wanted(vocabulary.add_eos.unwrap_or(false), vocabulary.eos),
        lookup: Lookup::default(),
        json: None,
    };
    spec.check()?;
    Ok(spec)
}

fn wanted(add: bool, id: Option<u32>) -> Vec<u32> {
    id.filter(|_| add).into_iter().collect()
}

/// The tokens as text, all different; an empty one is a gap that the converter did not fill.
pub(super) fn texts(origin: &Path, vocabulary: &GgufVocabulary) -> Result<Vec<String>> {
    let mut seen = HashMap::new();
    let mut texts = Vec::with_capacity(vocabulary.tokens.len());
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        let wrong = |found: String, expected: &str| {
            Error::malformed(
                origin,
                format!("tokenizer.ggml.tokens[{id}]"),
                found,
                expected,
                "convert the model again",
            )
        };
        let text = std::str::from_utf8(token)
            .map_err(|_| wrong("bytes that are not UTF-8".into(), "text"))?;
        let text = if text.is_empty() { format!("[PAD{id}]") } else { text.to_owned() };
        if let Some(other) = seen.insert(text.clone(), id) {
            return Err(wrong(format!("{text:?}, as at {other}"), "different tokens"));
        }
        texts.push(text);
    }
    Ok(texts)
}

pub(super) fn added(origin: &Path, vocabulary: &GgufVocabulary) -> Result<Vec<Added>> {
    let kinds = vocabulary.token_types.iter().zip(texts(origin, vocabulary)?).zip(0..);
    let token = |((&kind, content), id): ((&i32, String), u32)| Added {
        id,
        content,
        special: kind != token_type::USER_DEFINED,
        strip_left: false,
        strip_right: false,
        normalized: false,
    };
    Ok(kinds
        .filter(|((kind, _), _)| {
            [token_type::UNKNOWN, token_type::CONTROL, token_type::USER_DEFINED].contains(kind)
        })
        .map(token)
        .collect())
}

/// The bytes that byte-level pieces spell; added tokens are text already.
pub(super) fn spelled_bytes(
    origin: &Path,
    texts: &[String],
    added: &[Added],
) -> Result<Vec<Vec<u8>>> {
    let plain: std::collections::HashSet<u32> = added.iter().map(|a| a.id).collect();
    let bytes = texts.iter().zip(0..).map(|(text, id)| {
        if plain.contains(&id) {
            return Ok(text.clone().into_bytes());
        }
        byte_level::bytes(text).ok_or_else(|| {
            Error::malformed(
                origin,
                format!("token {id}"),
                format!("{text:?}"),
                "a byte-level piece, spelled in GPT-2's 256 characters",
                "list the token among the added tokens",
            )
        })
    });
    bytes.collect()
}

/// The merges that lines of "left right" give, ranked in order.
fn ranked(origin: &Path, texts: &[String], lines: &[String]) -> Result<Vec<Merge>> {
    let ids: HashMap<&str, u32> = texts.iter().map(String::as_str).zip(0..).collect();
    let merge = |(line, rank): (&String, u32)| {
        let (left, right) = line.split_once(' ')?;
        let merged = [left, right].concat();
        Some(Merge {
            left: *ids.get(left)?,
            right: *ids.get(right)?,
            merged: *ids.get(merged.as_str())?,
            rank,
        })
    };
    let merges = lines.iter().zip(0..).map(|(line, rank)| {
        merge((line, rank)).ok_or_else(|| {
            Error::malformed(
                origin,
                format!("merge {rank}"),
                format!("{line:?}"),
                "two tokens with a space between, that make a third",
                "convert the model again",
            )
        })
    });
    merges.collect()
}

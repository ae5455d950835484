//! The tokenizer in the metadata of GGUF files.

use super::{Gguf, header::Value};
use crate::{Result, tokenizer::GgufVocabulary};

/// Types of the elements of an array of bytes, unsigned and signed.
const BYTES: [u32; 2] = [0, 1];
/// Type of the elements of an array of 32-bit signed integers and floats.
const I32: u32 = 5;
const F32: u32 = 6;

/// The tokenizer, if the file has one.
pub(super) fn read(gguf: &Gguf) -> Result<Option<GgufVocabulary>> {
    let Some(model) = gguf.string("tokenizer.ggml.model")? else { return Ok(None) };
    let tokens = gguf.typed("tokenizer.ggml.tokens", strings, "an array of strings")?;
    let tokens = tokens.ok_or_else(|| gguf.missing("tokenizer.ggml.tokens"))?.to_vec();
    let scores = numbers(gguf, "tokenizer.ggml.scores", F32, f32::from_le_bytes)?;
    let token_types = numbers(gguf, "tokenizer.ggml.token_type", I32, i32::from_le_bytes)?;
    for (key, length) in
        [("tokenizer.ggml.scores", scores.len()), ("tokenizer.ggml.token_type", token_types.len())]
    {
        if length != 0 && length != tokens.len() {
            let (found, expected) = (length.to_string(), format!("{}, one a token", tokens.len()));
            return Err(gguf.file.malformed(key, found, expected, "convert the model again"));
        }
    }
    let merges = gguf.typed("tokenizer.ggml.merges", texts, "an array of strings in UTF-8")?;
    let key = "tokenizer.ggml.precompiled_charsmap";
    let charsmap = gguf.typed(key, bytes, "an array of bytes")?;
    Ok(Some(GgufVocabulary {
        model: model.to_owned(),
        pre: gguf.string("tokenizer.ggml.pre")?.map(str::to_owned),
        tokens,
        scores,
        token_types,
        merges: merges.unwrap_or_default(),
        bos: gguf.integer("tokenizer.ggml.bos_token_id")?,
        eos: gguf.integer("tokenizer.ggml.eos_token_id")?,
        unknown: gguf.integer("tokenizer.ggml.unknown_token_id")?,
        add_bos: gguf.boolean("tokenizer.ggml.add_bos_token")?,
        add_eos: gguf.boolean("tokenizer.ggml.add_eos_token")?,
        add_space_prefix: gguf.boolean("tokenizer.ggml.add_space_prefix")?,
        remove_extra_whitespaces: gguf.boolean("tokenizer.ggml.remove_extra_whitespaces")?,
        charsmap: charsmap.unwrap_or_default().to_vec(),
    }))
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Numbers(kind, bytes) if BYTES.contains(kind) => Some(bytes),
        _ => None,
    }
}

fn strings(value: &Value) -> Option<&[Vec<u8>]> {
    match value {
        Value::Strings(strings) => Some(strings),
        _ => None,
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    strings(value)?.iter().map(|bytes| String::from_utf8(bytes.clone()).ok()).collect()
}

/// An array of 32-bit numbers of type `kind`; empty when there is none.
fn numbers<T>(gguf: &Gguf, key: &str, kind: u32, convert: fn([u8; 4]) -> T) -> Result<Vec<T>> {
    let numbers = |value: &Value| match value {
        Value::Numbers(found, bytes) if *found == kind => {
            Some(bytes.as_chunks().0.iter().map(|bytes| convert(*bytes)).collect())
        }
        _ => None,
    };
    let expected = if kind == F32 { "an array of F32" } else { "an array of I32" };
    Ok(gguf.typed(key, numbers, expected)?.unwrap_or_default())
}

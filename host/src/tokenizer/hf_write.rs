//! Writing Hugging Face's `tokenizer.json` for tokenizers that were read from other formats.

use super::hf::{COLLAPSING, DEEPSEEK_V3, EQUAL_RANKS, EXPRESSIONS, MARK};
use super::{Kind, PreTokenizer, Spec, byte_level, unigram};
use omex_core::token::layout::flag;
use serde_json::{Value, json};
use std::collections::HashMap;

/// A `tokenizer.json` for a tokenizer that was read from another format.
pub(super) fn json(spec: &Spec) -> Value {
    let added: HashMap<u32, &str> =
        spec.added.iter().map(|token| (token.id, token.content.as_str())).collect();
    let text = |id: u32| match (added.get(&id), spec.kind, &spec.pieces[id as usize]) {
        (Some(content), ..) => (*content).to_owned(),
        (None, Kind::Characters | Kind::WordPiece | Kind::Unigram, piece) => {
            String::from_utf8_lossy(piece).into_owned()
        }
        (None, Kind::Bytes, piece) => byte_level::spelled(piece),
    };
    let added_tokens: Vec<Value> = spec.added.iter().map(|token| json!({
        "id": token.id, "content": token.content, "single_word": false, "lstrip": token.strip_left,
        "rstrip": token.strip_right, "normalized": token.normalized, "special": token.special,
    })).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens,
        "normalizer": normalizer_json(spec), "pre_tokenizer": pre_tokenizer_json(spec),
        "post_processor": template_json(spec, &text), "decoder": decoder_json(spec),
        "model": model_json(spec, &text),
    })
}

fn model_json(spec: &Spec, text: &dyn Fn(u32) -> String) -> Value {
    if spec.kind == Kind::Unigram {
        return unigram::model_json(spec, text);
    }
    let used = (0..).zip(&spec.pieces).filter(|(_, piece)| !piece.is_empty());
    let vocabulary: serde_json::Map<String, Value> =
        used.map(|(id, _)| (text(id), json!(id))).collect();
    let merges: Vec<Value> =
        spec.merges.iter().map(|m| json!([text(m.left), text(m.right)])).collect();
    json!({
        "type": "BPE", "dropout": null, "unk_token": spec.unknown.map(text), "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": spec.flags & flag::FUSE_UNKNOWN != 0,
        "byte_fallback": spec.byte_fallback, "ignore_merges": spec.ignore_merges,
        "vocab": vocabulary, "merges": merges,
    })
}

fn normalizer_json(spec: &Spec) -> Value {
    let marked = spec.flags & flag::SPACE_MARK != 0;
    let mut parts: Vec<Value> = unigram::charsmap_json(spec).into_iter().collect();
    if spec.flags & flag::COLLAPSE_SPACES != 0 {
        parts.extend(COLLAPSING.map(|(pattern, content)| {
            json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": content })
        }));
    }
    if spec.flags & flag::PREFIX_ALWAYS != 0 {
        parts.push(json!({ "type": "Prepend", "prepend": if marked { MARK } else { " " } }));
    }
    if marked {
        parts.push(json!({ "type": "Replace", "pattern": { "String": " " }, "content": MARK }));
    }
    if spec.flags & flag::NFC != 0 {
        parts.push(json!({ "type": "NFC" }));
    }
    if parts.is_empty() { Value::Null } else { json!({ "type": "Sequence", "normalizers": parts }) }
}

fn pre_tokenizer_json(spec: &Spec) -> Value {
    let byte_level = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex });
    let sequence = |parts: Vec<Value>| json!({ "type": "Sequence", "pretokenizers": parts });
    let split = |expression: &str| json!({ "type": "Split", "pattern": { "Regex": expression }, "behavior": "Isolated", "invert": false });
    match (spec.kind, spec.pre_tokenizer) {
        (Kind::Characters | Kind::WordPiece | Kind::Unigram, _) => Value::Null,
        (Kind::Bytes, PreTokenizer::None) => byte_level(false),
        (Kind::Bytes, PreTokenizer::Gpt2) => byte_level(true),
        (Kind::Bytes, PreTokenizer::Gpt2Digits) => {
            sequence(vec![json!({ "type": "Digits", "individual_digits": true }), byte_level(true)])
        }
        (Kind::Bytes, scanner) => {
            let known = EXPRESSIONS.iter().filter(|(_, known)| *known == scanner);
            let mut expressions: Vec<&str> = known.map(|(expression, _)| *expression).collect();
            if scanner == PreTokenizer::DeepSeekV3 {
                expressions.extend(DEEPSEEK_V3);
            }
            sequence(expressions.into_iter().map(split).chain([byte_level(false)]).collect())
        }
    }
}

fn template_json(spec: &Spec, text: &dyn Fn(u32) -> String) -> Value {
    let special = |&id: &u32| json!({ "SpecialToken": { "id": text(id), "type_id": 0 } });
    let sequence = |id: &str, kind: u32| json!({ "Sequence": { "id": id, "type_id": kind } });
    let around = |id: &str, kind: u32| -> Vec<Value> {
        let before = spec.before.iter().map(special);
        before.chain([sequence(id, kind)]).chain(spec.after.iter().map(special)).collect()
    };
    let tokens: serde_json::Map<String, Value> = spec
        .before
        .iter()
        .chain(&spec.after)
        .map(|&id| (text(id), json!({ "id": text(id), "ids": [id], "tokens": [text(id)] })))
        .collect();
    let (single, pair) = (around("A", 0), [around("A", 0), around("B", 1)].concat());
    json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens })
}

fn decoder_json(spec: &Spec) -> Value {
    if spec.kind == Kind::Bytes {
        return json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
    }
    let mut fallback = json!({ "type": "ByteFallback" });
    let runs: Vec<usize> = spec.merges.chunk_by(|a, b| a.rank == b.rank).map(<[_]>::len).collect();
    if runs.len() != spec.merges.len() {
        fallback[EQUAL_RANKS] = json!(runs);
    }
    let mut parts = Vec::new();
    if spec.flags & flag::SPACE_MARK != 0 {
        parts.push(json!({ "type": "Replace", "pattern": { "String": MARK }, "content": " " }));
    }
    parts.extend([fallback, json!({ "type": "Fuse" })]);
    if spec.flags & flag::STRIP_START != 0 {
        parts.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": parts })
}

//! Reading WordPiece tokenizers: BERT's, from `tokenizer.json` or from `vocab.txt`.

use super::bert::BertNormalizer;
use super::hf::{Reader, by_id, parts, text, truth, type_of};
use super::lookup::{Lookup, Normalizer};
use super::{Kind, PreTokenizer, Spec};
use crate::{Error, Result, input};
use omex_core::token::layout::{CONTINUATION, flag};
use serde_json::{Value, json};
use std::path::Path;

/// The longest `tokenizer_config.json` that is read.
const MAX_CONFIG: u64 = 1 << 20;

impl Reader<'_> {
    /// Reads a tokenizer whose model is WordPiece.
    pub(super) fn word_piece(&self) -> Result<Spec> {
        let model = &self.file.model;
        let mark = model.continuing_subword_prefix.as_deref().unwrap_or("##");
        if mark.as_bytes() != CONTINUATION {
            return Err(self.unsupported("model.continuing_subword_prefix", mark, "##"));
        }
        let ids = self.ids()?;
        let normalizer = self.bert_normalizer()?;
        let lowercase =
            matches!(normalizer, Normalizer::Bert(BertNormalizer { lowercase: true, .. }));
        let added = self.added_as_they_are(lowercase)?;
        let unknown = model.unk_token.as_deref().unwrap_or("[UNK]");
        let Some(&unknown) = ids.get(unknown) else {
            return Err(self.damaged("model.unk_token", unknown, "a token of the vocabulary"));
        };
        let flags = self.bert_words()?;
        let (before, after) = self.template()?;
        let spec = Spec {
            origin: self.origin.to_owned(),
            kind: Kind::WordPiece,
            pre_tokenizer: PreTokenizer::None,
            flags,
            pieces: self.texts(by_id(ids), &added)?.into_iter().map(String::into_bytes).collect(),
            merges: vec![],
            added,
            unknown: Some(unknown),
            byte_fallback: false,
            ignore_merges: false,
            before,
            after,
            lookup: Lookup {
                normalizer,
                longest_word: model.max_input_chars_per_word.unwrap_or(100),
                ..Lookup::default()
            },
            json: None,
        };
        spec.check()?;
        Ok(spec)
    }

    fn bert_normalizer(&self) -> Result<Normalizer> {
        let found = parts(&self.file.normalizer, "normalizers");
        match found.as_slice() {
            [] => Ok(Normalizer::Plain),
            [part] if type_of(part) == "BertNormalizer" => {
                let lowercase = truth(part, "lowercase", true);
                Ok(Normalizer::Bert(BertNormalizer {
                    clean_text: truth(part, "clean_text", true),
                    pad_ideographs: truth(part, "handle_chinese_chars", true),
                    strip_accents: truth(part, "strip_accents", lowercase),
                    lowercase,
                }))
            }
            _ => {
                let types: Vec<String> = found.iter().map(|part| type_of(part)).collect();
                Err(self.unsupported("normalizer", types.join(", "), "BertNormalizer or none"))
            }
        }
    }

    /// Checks how text is cut and joined: the flags that joining asks for.
    fn bert_words(&self) -> Result<u32> {
        let pre = type_of(&self.file.pre_tokenizer);
        if pre != "BertPreTokenizer" {
            return Err(self.unsupported("pre_tokenizer", pre, "BertPreTokenizer"));
        }
        let decoder = &self.file.decoder;
        if type_of(decoder) != "WordPiece" || text(decoder, "prefix").as_bytes() != CONTINUATION {
            return Err(self.unsupported("decoder", type_of(decoder), "WordPiece with prefix ##"));
        }
        Ok(if truth(decoder, "cleanup", true) { flag::CLEANUP } else { 0 })
    }
}

impl Spec {
    /// Reads a `vocab.txt` of one piece a line, and from `tokenizer_config.json` beside it, if that exists, how BERT's
    /// rules are set.
    ///
    /// # Errors
    /// If a file cannot be read or is damaged, or lacks one of BERT's special tokens.
    pub fn from_vocab_txt(path: &Path) -> Result<Self> {
        let vocabulary = input::read(path, input::MAX_TOKENIZER_BYTES)?;
        let damaged = |field: &str, found: String, expected: &str| {
            Error::malformed(path, field, found, expected, "get the file again: it is damaged")
        };
        let vocabulary = String::from_utf8(vocabulary)
            .map_err(|e| damaged("text", e.to_string(), "UTF-8, one piece a line"))?;
        let config = path.with_file_name("tokenizer_config.json");
        let config: Value = if config.is_file() {
            let json = input::read(&config, MAX_CONFIG)?;
            serde_json::from_slice(input::without_mark(&json)).map_err(|e| {
                let remedy = "save the tokenizer again";
                Error::malformed(&config, "JSON", e.to_string(), "a JSON object", remedy)
            })?
        } else {
            Value::Null
        };
        let mut ids = serde_json::Map::new();
        for (line, id) in vocabulary.lines().zip(0u32..) {
            if ids.insert(line.to_owned(), json!(id)).is_some() {
                return Err(damaged(&format!("line {}", id + 1), line.into(), "different pieces"));
            }
        }
        let json = bert_json(&ids, &config)
            .map_err(|token| damaged("pieces", format!("no {token}"), "BERT's special tokens"))?;
        Self::from_hf_bytes(path, json.to_string().into_bytes())
    }
}

impl Spec {
    /// Makes a tokenizer of the pieces that a GGUF file holds: those that begin words have a mark there,
    /// where BERT's vocabulary marks those that go on.
    ///
    /// # Errors
    /// Pieces that are there twice, or that lack one of BERT's special tokens.
    pub(super) fn from_gguf_words(origin: &Path, tokens: &[String]) -> Result<Self> {
        let damaged = |found: String, expected: &str| {
            let remedy = "convert the model again";
            Error::malformed(origin, "tokenizer.ggml.tokens", found, expected, remedy)
        };
        let is_special = |token: &str| token.starts_with('[') && token.ends_with(']');
        let mut ids = serde_json::Map::new();
        for (token, id) in tokens.iter().zip(0u32..) {
            let piece = match token.strip_prefix('\u{2581}') {
                Some(begins) => begins.to_owned(),
                None if is_special(token) => token.clone(),
                None => format!("##{token}"),
            };
            if ids.insert(piece, json!(id)).is_some() {
                return Err(damaged(format!("{token} a second time"), "different pieces"));
            }
        }
        // The file does not say whether letters become small: they do where no piece has a capital.
        let capital = |token: &String| {
            !is_special(token) && token.chars().any(|letter| letter.is_ascii_uppercase())
        };
        let config = json!({ "do_lower_case": !tokens.iter().any(capital) });
        let json = bert_json(&ids, &config)
            .map_err(|token| damaged(format!("no {token}"), "BERT's special tokens"))?;
        Self::from_hf_bytes(origin, json.to_string().into_bytes())
    }
}

/// The `tokenizer.json` that transformers makes of BERT's vocabulary and configuration; or the special token that the
/// vocabulary lacks.
fn bert_json(ids: &serde_json::Map<String, Value>, config: &Value) -> Result<Value, String> {
    let named = |key: &str, default: &str| {
        let token = &config[key];
        let content = token.as_str().or_else(|| token["content"].as_str());
        content.unwrap_or(default).to_owned()
    };
    let [unknown, sep, cls] = [("unk", "[UNK]"), ("sep", "[SEP]"), ("cls", "[CLS]")]
        .map(|(name, default)| named(&format!("{name}_token"), default));
    let others = [named("pad_token", "[PAD]"), named("mask_token", "[MASK]")];
    if let Some(token) = [&unknown, &sep, &cls].into_iter().find(|&token| !ids.contains_key(token))
    {
        return Err(token.clone());
    }
    let special: Vec<Value> = [&unknown, &sep, &cls].into_iter().chain(&others).filter_map(|token| {
        let id = ids.get(token)?;
        Some(json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true }))
    }).collect();
    let special_of =
        |token: &str, kind: u32| json!({ "SpecialToken": { "id": token, "type_id": kind } });
    let around = |token: &str| special_of(token, 0);
    let template = |token: &str| json!({ "id": token, "ids": [ids.get(token)], "tokens": [token] });
    let sequence = |id: &str, kind: u32| json!({ "Sequence": { "id": id, "type_id": kind } });
    let (a, b) = (sequence("A", 0), sequence("B", 1));
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": truth(config, "tokenize_chinese_chars", true),
            "strip_accents": config.get("strip_accents"),
            "lowercase": truth(config, "do_lower_case", true),
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing", "single": [around(&cls), a, around(&sep)],
            "pair": [around(&cls), a, around(&sep), b, special_of(&sep, 1)],
            "special_tokens": { &cls: template(&cls), &sep: template(&sep) },
        },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": ids,
        },
    }))
}

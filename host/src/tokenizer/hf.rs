//! Hugging Face's `tokenizer.json`, read and written (the format is that of the `tokenizers` library's serializers).

use super::{Added, Kind, Merge, PreTokenizer, Spec, byte_level, gguf};
use crate::{Error, Result};
use omex_core::token::layout::{CHARACTER, flag};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// No tokenizer is larger.
const MAX_FILE: u64 = 256 << 20;
const MARK: &str = "\u{2581}";
/// Lengths of runs of merges of equal rank, which Hugging Face's format has no place for; kept in the
/// ByteFallback decoder, whose unknown fields its reader passes over.
const EQUAL_RANKS: &str = "omex_equal_rank_runs";

/// Regular expressions that the core has scanners for.
const EXPRESSIONS: [(&str, PreTokenizer); 3] = [
    (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", PreTokenizer::Gpt2),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        PreTokenizer::Llama3,
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        PreTokenizer::Qwen2,
    ),
];

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Vocabulary,
    #[serde(default)]
    merges: Vec<MergeText>,
    unk_token: Option<String>,
    #[serde(default)]
    dropout: Option<f32>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Vocabulary {
    Pieces(HashMap<String, u32>),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MergeText {
    Line(String),
    Pair(String, String),
}

impl Spec {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If the file cannot be read, is not JSON, is damaged, or asks for what is not supported: models other than
    /// BPE, and normalizers, pre-tokenizers, decoders and templates without an equal in the core.
    pub fn from_hf_json(path: &Path) -> Result<Self> {
        let length = fs::metadata(path).map_err(|e| Error::io(path, "read", e))?.len();
        if length > MAX_FILE {
            let (found, expected) = (format!("{length} bytes"), format!("at most {MAX_FILE}"));
            return Err(Error::malformed(path, "length", found, expected, "this is not a tokenizer.json"));
        }
        Self::from_hf_bytes(path, fs::read(path).map_err(|e| Error::io(path, "read", e))?)
    }

    /// Reads the bytes of a `tokenizer.json`; `origin` is named in messages.
    ///
    /// # Errors
    /// As [`Spec::from_hf_json`].
    pub fn from_hf_bytes(origin: &Path, json: Vec<u8>) -> Result<Self> {
        let file: File = serde_json::from_slice(&json).map_err(|e| {
            Error::malformed(origin, "JSON", e.to_string(), "a Hugging Face tokenizer", "save the tokenizer again")
        })?;
        let mut reader = Reader { origin, file: &file };
        let mut spec = reader.spec()?;
        spec.json = Some(json);
        Ok(spec)
    }
}

/// A value's `type`, or what else it is.
fn type_of(value: &Value) -> String {
    value.get("type").and_then(Value::as_str).map_or_else(|| value.to_string().chars().take(80).collect(), Into::into)
}

/// The parts of a value: those of a sequence, itself, or nothing for null.
fn parts<'v>(value: &'v Value, key: &str) -> Vec<&'v Value> {
    match value.get(key).and_then(Value::as_array) {
        Some(inner) if type_of(value) == "Sequence" => inner.iter().flat_map(|part| parts(part, key)).collect(),
        _ if value.is_null() => Vec::new(),
        _ => vec![value],
    }
}

fn truth(value: &Value, key: &str, default: bool) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(default)
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

fn is_replace(value: &Value, from: &str, to: &str) -> bool {
    value.pointer("/pattern/String").and_then(Value::as_str) == Some(from) && text(value, "content") == to
}

/// Whether a Metaspace part puts a space before the text: "always", "first" or "never".
fn prepend_scheme(value: &Value) -> &str {
    match value.get("prepend_scheme").and_then(Value::as_str) {
        Some(scheme) => scheme,
        None if truth(value, "add_prefix_space", true) => "always",
        None => "never",
    }
}

struct Reader<'f> {
    origin: &'f Path,
    file: &'f File,
}

impl Reader<'_> {
    fn unsupported(&self, field: &str, found: impl Into<String>, expected: &str) -> Error {
        Error::malformed(self.origin, field, found, expected, "this tokenizer is not supported")
    }

    fn damaged(&self, field: impl Into<String>, found: impl Into<String>, expected: &str) -> Error {
        Error::malformed(self.origin, field, found, expected, "save the tokenizer again: the file is damaged")
    }

    fn spec(&mut self) -> Result<Spec> {
        let file = self.file;
        let ids = self.vocabulary()?;
        let (kind, pre_tokenizer, pre_flags) = self.pre_tokenizer()?;
        let flags = pre_flags | self.normalizer(kind)? | self.decoder(kind)?;
        let flags = flags | if file.model.fuse_unk { flag::FUSE_UNKNOWN } else { 0 };
        let added = self.added(flags)?;
        let texts = texts(ids, &added);
        let pieces = match kind {
            Kind::Characters => texts.into_iter().map(String::into_bytes).collect(),
            Kind::Bytes => gguf::spelled_bytes(self.origin, &texts, &added)?,
        };
        let unknown = file.model.unk_token.as_deref().map(|token| {
            let known = ids.get(token).copied();
            known.ok_or_else(|| self.damaged("model.unk_token", token, "a token of the vocabulary"))
        });
        let (before, after) = self.template()?;
        let spec = Spec {
            origin: self.origin.to_owned(),
            kind,
            pre_tokenizer,
            flags,
            pieces,
            merges: self.merges(ids)?,
            added,
            unknown: unknown.transpose()?,
            byte_fallback: file.model.byte_fallback,
            ignore_merges: file.model.ignore_merges,
            before,
            after,
            json: None,
        };
        spec.check()?;
        Ok(spec)
    }

    /// The pieces by id, of a model that is supported.
    fn vocabulary(&self) -> Result<&HashMap<String, u32>> {
        let model = &self.file.model;
        if model.kind.as_deref().is_some_and(|kind| kind != "BPE") {
            return Err(self.unsupported("model.type", model.kind.clone().unwrap_or_default(), "BPE"));
        }
        if let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0) {
            return Err(self.unsupported("model.dropout", dropout.to_string(), "none"));
        }
        for (field, affix) in [
            ("model.continuing_subword_prefix", &model.continuing_subword_prefix),
            ("model.end_of_word_suffix", &model.end_of_word_suffix),
        ] {
            if let Some(affix) = affix.as_deref().filter(|affix| !affix.is_empty()) {
                return Err(self.unsupported(field, affix, "none"));
            }
        }
        let Vocabulary::Pieces(ids) = &model.vocab else {
            return Err(self.unsupported("model.vocab", "a list", "pieces and ids of a BPE model"));
        };
        if model.kind.is_none() && model.merges.is_empty() {
            return Err(self.unsupported("model", "no type and no merges", "BPE"));
        }
        let mut seen = HashMap::new();
        for (piece, &id) in ids {
            if id >= CHARACTER {
                return Err(self.damaged("model.vocab", format!("id {id}"), "ids below 2097151"));
            }
            if let Some(other) = seen.insert(id, piece) {
                return Err(self.damaged("model.vocab", format!("id {id} for {piece:?} and {other:?}"), "different ids"));
            }
        }
        Ok(ids)
    }

    fn normalizer(&self, kind: Kind) -> Result<u32> {
        let mut flags = 0;
        let mut prefix = None;
        for part in parts(&self.file.normalizer, "normalizers") {
            match type_of(part).as_str() {
                "NFC" => flags |= flag::NFC,
                "Prepend" if kind == Kind::Characters => prefix = Some(text(part, "prepend")),
                "Replace" if kind == Kind::Characters && is_replace(part, " ", MARK) => flags |= flag::SPACE_MARK,
                other => return Err(self.unsupported("normalizer", other, "NFC, Prepend \u{2581}, Replace ' ' by \u{2581}")),
            }
        }
        match prefix {
            None => Ok(flags),
            Some(MARK) if flags & flag::SPACE_MARK != 0 => Ok(flags | flag::PREFIX_ALWAYS),
            Some(" ") => Ok(flags | flag::PREFIX_ALWAYS),
            Some(other) => Err(self.unsupported("normalizer.prepend", other, "the character that spaces become")),
        }
    }

    fn pre_tokenizer(&self) -> Result<(Kind, PreTokenizer, u32)> {
        let found = parts(&self.file.pre_tokenizer, "pretokenizers");
        let types: Vec<String> = found.iter().map(|part| type_of(part)).collect();
        let expected = "none, Metaspace, ByteLevel, Digits and ByteLevel, or a known Split and ByteLevel";
        let types: Vec<&str> = types.iter().map(String::as_str).collect();
        let scanner = match (types.as_slice(), found.as_slice()) {
            ([], _) => return Ok((Kind::Characters, PreTokenizer::None, 0)),
            (["Metaspace"], [part]) => return Ok((Kind::Characters, PreTokenizer::None, self.metaspace(part)?)),
            (["ByteLevel"], [part]) if truth(part, "use_regex", true) => PreTokenizer::Gpt2,
            (["ByteLevel"], _) => PreTokenizer::None,
            (["Digits", "ByteLevel"], [digits, part])
                if truth(digits, "individual_digits", false) && truth(part, "use_regex", true) =>
            {
                PreTokenizer::Gpt2Digits
            }
            (["Split", "ByteLevel"], [split, part]) if !truth(part, "use_regex", true) => self.split(split)?,
            _ => return Err(self.unsupported("pre_tokenizer", types.join(", "), expected)),
        };
        if found.iter().any(|part| type_of(part) == "ByteLevel" && truth(part, "add_prefix_space", true)) {
            return Err(self.unsupported("pre_tokenizer.add_prefix_space", "true", "false"));
        }
        Ok((Kind::Bytes, scanner, 0))
    }

    fn split(&self, split: &Value) -> Result<PreTokenizer> {
        let expression = split.pointer("/pattern/Regex").and_then(Value::as_str).unwrap_or("");
        let known = EXPRESSIONS.iter().find(|(known, _)| *known == expression);
        let isolated = text(split, "behavior") == "Isolated" && !truth(split, "invert", false);
        known.filter(|_| isolated).map(|&(_, scanner)| scanner).ok_or_else(|| {
            self.unsupported("pre_tokenizer.pattern", expression, "GPT-2's, Llama 3's or Qwen2's expression, isolated")
        })
    }

    fn metaspace(&self, part: &Value) -> Result<u32> {
        if text(part, "replacement") != MARK {
            return Err(self.unsupported("pre_tokenizer.replacement", text(part, "replacement"), MARK));
        }
        let prefix = match prepend_scheme(part) {
            "always" => flag::PREFIX_ALWAYS | flag::PREFIX_UNLESS_SPACE,
            "first" => flag::PREFIX_FIRST | flag::PREFIX_UNLESS_SPACE,
            "never" => 0,
            other => return Err(self.unsupported("pre_tokenizer.prepend_scheme", other, "always, first or never")),
        };
        let split = if truth(part, "split", true) { flag::SPLIT_SPACES } else { 0 };
        Ok(flag::SPACE_MARK | prefix | split)
    }

    fn decoder(&self, kind: Kind) -> Result<u32> {
        let found = parts(&self.file.decoder, "decoders");
        if kind == Kind::Bytes {
            return match found.as_slice() {
                [part] if type_of(part) == "ByteLevel" => Ok(0),
                _ => Err(self.unsupported("decoder", type_of(&self.file.decoder), "ByteLevel")),
            };
        }
        let mut flags = 0;
        for part in &found {
            match type_of(part).as_str() {
                "ByteFallback" | "Fuse" => {}
                "Replace" if is_replace(part, MARK, " ") => {}
                "Metaspace" if prepend_scheme(part) == "never" => {}
                "Metaspace" => flags |= flag::STRIP_START,
                "Strip" if text(part, "content") == " " && part["stop"].as_u64() == Some(0) => {
                    match part["start"].as_u64() {
                        Some(0) => {}
                        Some(1) => flags |= flag::STRIP_START,
                        _ => return Err(self.unsupported("decoder.start", part["start"].to_string(), "0 or 1")),
                    }
                }
                other => return Err(self.unsupported("decoder", other, "Replace, ByteFallback, Fuse, Strip, Metaspace")),
            }
        }
        if found.is_empty() {
            return Err(self.unsupported("decoder", "none", "one that joins pieces"));
        }
        Ok(flags)
    }

    /// Ids before and after the text.
    fn template(&self) -> Result<(Vec<u32>, Vec<u32>)> {
        let found = parts(&self.file.post_processor, "processors");
        let mut templates = found.into_iter().filter(|part| type_of(part) != "ByteLevel");
        let template = match (templates.next(), templates.next()) {
            (None, _) => return Ok((Vec::new(), Vec::new())),
            (Some(template), None) if type_of(template) == "TemplateProcessing" => template,
            (Some(other), _) => {
                return Err(self.unsupported("post_processor", type_of(other), "one TemplateProcessing, or ByteLevel"));
            }
        };
        let (mut sides, mut side) = ([Vec::new(), Vec::new()], 0);
        for item in template["single"].as_array().into_iter().flatten() {
            if item.pointer("/Sequence/id").and_then(Value::as_str) == Some("A") && side == 0 {
                side = 1;
                continue;
            }
            let name = item.pointer("/SpecialToken/id").and_then(Value::as_str);
            let ids = name.and_then(|name| template["special_tokens"][name]["ids"].as_array());
            let ids: Option<Vec<u32>> = ids.and_then(|ids| ids.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect());
            let wrong = || self.damaged("post_processor.single", item.to_string(), "special tokens around one sequence A");
            sides[side].extend(ids.ok_or_else(wrong)?);
        }
        if side == 0 {
            return Err(self.damaged("post_processor.single", "no sequence A", "special tokens around one sequence A"));
        }
        let [before, after] = sides;
        Ok((before, after))
    }

    fn added(&self, flags: u32) -> Result<Vec<Added>> {
        let prefixed = flags & (flag::PREFIX_ALWAYS | flag::SPACE_MARK) != 0 && !self.file.normalizer.is_null();
        let token = |token: &AddedToken| {
            let field = format!("added_tokens, id {}", token.id);
            if token.id >= CHARACTER {
                return Err(self.damaged(field, "its id", "ids below 2097151"));
            }
            if token.single_word {
                return Err(self.unsupported(&field, "single_word", "tokens that match inside words"));
            }
            if token.normalized && (prefixed || (flags & flag::NFC != 0 && !token.content.is_ascii())) {
                return Err(self.unsupported(&field, "normalized", "tokens that are matched before normalization"));
            }
            Ok(Added {
                id: token.id,
                content: token.content.clone(),
                special: token.special,
                strip_left: token.lstrip,
                strip_right: token.rstrip,
            })
        };
        self.file.added_tokens.iter().filter(|token| !token.content.is_empty()).map(token).collect()
    }

    fn merges(&self, ids: &HashMap<String, u32>) -> Result<Vec<Merge>> {
        let mut ranks = self.ranks()?;
        let mut merges = Vec::with_capacity(self.file.model.merges.len());
        let mut merged_text = String::new();
        for (text, number) in self.file.model.merges.iter().zip(0u32..) {
            let (left, right) = match text {
                MergeText::Pair(left, right) => (left.as_str(), right.as_str()),
                MergeText::Line(line) => line.split_once(' ').unwrap_or((line, "")),
            };
            merged_text.clear();
            merged_text.extend([left, right]);
            let found = (ids.get(left), ids.get(right), ids.get(&merged_text));
            let (Some(&left), Some(&right), Some(&merged)) = found else {
                let found = format!("{left:?} and {right:?}");
                return Err(self.damaged(format!("model.merges[{number}]"), found, "two tokens that make a third"));
            };
            let rank = ranks.as_mut().map_or(Some(number), Iterator::next);
            let wrong = || self.damaged(EQUAL_RANKS, "too few", "the number of merges");
            merges.push(Merge { left, right, merged, rank: rank.ok_or_else(wrong)? });
        }
        Ok(merges)
    }

    /// The ranks of merges, where the file tells of equal ones.
    fn ranks(&self) -> Result<Option<impl Iterator<Item = u32>>> {
        let decoders = parts(&self.file.decoder, "decoders");
        let Some(runs) = decoders.iter().find_map(|part| part.get(EQUAL_RANKS)) else { return Ok(None) };
        let runs: Vec<usize> =
            Deserialize::deserialize(runs).map_err(|e: serde_json::Error| self.damaged(EQUAL_RANKS, e.to_string(), "numbers"))?;
        Ok(Some(runs.into_iter().zip(0..).flat_map(|(length, rank)| std::iter::repeat_n(rank, length))))
    }
}

/// Piece or content of every id.
fn texts(ids: &HashMap<String, u32>, added: &[Added]) -> Vec<String> {
    let count = ids.values().copied().chain(added.iter().map(|token| token.id)).max().map_or(0, |id| id as usize + 1);
    let mut texts = vec![String::new(); count];
    for (piece, &id) in ids {
        texts[id as usize].clone_from(piece);
    }
    for token in added {
        texts[token.id as usize].clone_from(&token.content);
    }
    texts
}

/// A `tokenizer.json` for a tokenizer that was read from another format.
pub(super) fn json(spec: &Spec) -> Value {
    let added: HashMap<u32, &str> = spec.added.iter().map(|token| (token.id, token.content.as_str())).collect();
    let text = |id: u32| match (added.get(&id), spec.kind, &spec.pieces[id as usize]) {
        (Some(content), ..) => (*content).to_owned(),
        (None, Kind::Characters, piece) => String::from_utf8_lossy(piece).into_owned(),
        (None, Kind::Bytes, piece) => byte_level::spelled(piece),
    };
    let used = (0..).zip(&spec.pieces).filter(|(_, piece)| !piece.is_empty());
    let vocabulary: serde_json::Map<String, Value> = used.map(|(id, _)| (text(id), json!(id))).collect();
    let merges: Vec<Value> = spec.merges.iter().map(|m| json!([text(m.left), text(m.right)])).collect();
    let added_tokens: Vec<Value> = spec.added.iter().map(|token| json!({
        "id": token.id, "content": token.content, "single_word": false, "lstrip": token.strip_left,
        "rstrip": token.strip_right, "normalized": false, "special": token.special,
    })).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens,
        "normalizer": normalizer_json(spec), "pre_tokenizer": pre_tokenizer_json(spec),
        "post_processor": template_json(spec, &text), "decoder": decoder_json(spec),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": spec.unknown.map(&text), "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": spec.flags & flag::FUSE_UNKNOWN != 0,
            "byte_fallback": spec.byte_fallback, "ignore_merges": spec.ignore_merges,
            "vocab": vocabulary, "merges": merges,
        },
    })
}

fn normalizer_json(spec: &Spec) -> Value {
    let marked = spec.flags & flag::SPACE_MARK != 0;
    let mut parts = Vec::new();
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
    let byte_level = |regex: bool| {
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex })
    };
    let two = |first: Value, second: Value| json!({ "type": "Sequence", "pretokenizers": [first, second] });
    match (spec.kind, spec.pre_tokenizer) {
        (Kind::Characters, _) => Value::Null,
        (Kind::Bytes, PreTokenizer::None) => byte_level(false),
        (Kind::Bytes, PreTokenizer::Gpt2) => byte_level(true),
        (Kind::Bytes, PreTokenizer::Gpt2Digits) => {
            two(json!({ "type": "Digits", "individual_digits": true }), byte_level(true))
        }
        (Kind::Bytes, scanner) => {
            let expression = EXPRESSIONS.iter().find(|(_, known)| *known == scanner).map(|(expression, _)| expression);
            let pattern = json!({ "Regex": expression });
            two(json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false }), byte_level(false))
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
    let tokens: serde_json::Map<String, Value> = spec.before.iter().chain(&spec.after)
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

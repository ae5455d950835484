//! Reading Hugging Face's `tokenizer.json` (the format is that of the `tokenizers` library's serializers).

use super::{Added, Kind, Lookup, Merge, PreTokenizer, Spec, WITHOUT_TOKENIZER, gguf, nfc};
use crate::{Error, Result, input};
use omex_core::token::layout::{CHARACTER, flag};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

pub(super) const MARK: &str = "\u{2581}";
/// Lengths of runs of merges of equal rank, which Hugging Face's format has no place for; kept in the
/// ByteFallback decoder, whose unknown fields its reader passes over.
pub(super) const EQUAL_RANKS: &str = "omex_equal_rank_runs";

/// CLIP's: what it matches are words, and what lies between them is left out.
const CLIP: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// What pieces end with that end a word of CLIP.
const WORD_END: &str = "</w>";

/// Replacements, in this order, that leave one space of each run, and none around a text.
pub(super) const COLLAPSING: [(&str, &str); 2] = [(r"\A +| +\z", ""), (" {2,}", " ")];

/// Regular expressions that the core has scanners for.
pub(super) const EXPRESSIONS: [(&str, PreTokenizer); 6] = [
    (
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        PreTokenizer::Gpt2,
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        PreTokenizer::Llama3,
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        PreTokenizer::Qwen2,
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        PreTokenizer::Qwen3_5,
    ),
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        PreTokenizer::Gpt4o,
    ),
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        PreTokenizer::Tekken,
    ),
];

/// DeepSeek-V3's expressions, one after the other.
pub(super) const DEEPSEEK_V3: [&str; 3] = [
    r"\p{N}{1,3}",
    "[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];

#[derive(Deserialize)]
pub(super) struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub(super) normalizer: Value,
    #[serde(default)]
    pub(super) pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    pub(super) decoder: Value,
    pub(super) model: Model,
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
pub(super) struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Vocabulary,
    #[serde(default)]
    merges: Vec<MergeText>,
    pub(super) unk_token: Option<String>,
    pub(super) max_input_chars_per_word: Option<u32>,
    pub(super) unk_id: Option<u32>,
    #[serde(default, rename = "omex_single_precision")]
    pub(super) single: bool,
    #[serde(default, rename = "omex_single_scores")]
    pub(super) single_scores: bool,
    #[serde(rename = "omex_unknown_score")]
    pub(super) unknown_score: Option<f64>,
    #[serde(default)]
    dropout: Option<f32>,
    #[serde(default)]
    pub(super) continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    pub(super) byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Vocabulary {
    Pieces(BTreeMap<String, u32>),
    Scored(Vec<(String, f64)>),
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
    /// BPE, WordPiece and Unigram, and normalizers, pre-tokenizers, decoders and templates without an equal in the core.
    pub fn from_hf_json(path: &Path) -> Result<Self> {
        Self::from_hf_bytes(path, input::read(path, input::MAX_TOKENIZER_BYTES)?)
    }

    /// Reads the bytes of a `tokenizer.json`; `origin` is named in messages.
    ///
    /// # Errors
    /// As [`Spec::from_hf_json`].
    pub fn from_hf_bytes(origin: &Path, mut json: Vec<u8>) -> Result<Self> {
        let mark = json.len() - input::without_mark(&json).len();
        json.drain(..mark);
        let file: File = serde_json::from_slice(&json).map_err(|e| {
            Error::malformed(
                origin,
                "JSON",
                e.to_string(),
                "a Hugging Face tokenizer",
                "save the tokenizer again",
            )
        })?;
        let reader = Reader { origin, file: &file };
        let mut spec = reader.spec()?;
        spec.json = Some(json);
        Ok(spec)
    }
}

/// Pieces and their ids.
pub(super) fn by_id(ids: &BTreeMap<String, u32>) -> impl Iterator<Item = (&str, u32)> + Clone {
    ids.iter().map(|(piece, &id)| (piece.as_str(), id))
}

/// The start of a text, for a message.
fn short(text: &str) -> String {
    text.chars().take(120).collect()
}

/// A value's `type`, or what else it is.
pub(super) fn type_of(value: &Value) -> String {
    let other = || short(&value.to_string());
    value.get("type").and_then(Value::as_str).map_or_else(other, Into::into)
}

/// The parts of a value: those of a sequence, itself, or nothing for null.
pub(super) fn parts<'v>(value: &'v Value, key: &str) -> Vec<&'v Value> {
    match value.get(key).and_then(Value::as_array) {
        Some(inner) if type_of(value) == "Sequence" => {
            inner.iter().flat_map(|part| parts(part, key)).collect()
        }
        _ if value.is_null() => Vec::new(),
        _ => vec![value],
    }
}

pub(super) fn truth(value: &Value, key: &str, default: bool) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(default)
}

pub(super) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

fn is_replace(value: &Value, from: &str, to: &str) -> bool {
    value.pointer("/pattern/String").and_then(Value::as_str) == Some(from)
        && text(value, "content") == to
}

/// The expression that a split makes words of, with what lies between them.
fn isolates(split: &Value) -> Option<&str> {
    let isolated = text(split, "behavior") == "Isolated" && !truth(split, "invert", false);
    split.pointer("/pattern/Regex").and_then(Value::as_str).filter(|_| isolated)
}

fn is_clip(split: &Value) -> bool {
    let removed = text(split, "behavior") == "Removed" && truth(split, "invert", false);
    removed && split.pointer("/pattern/Regex").and_then(Value::as_str) == Some(CLIP)
}

fn is_deepseek_v3(splits: &[&Value]) -> bool {
    splits.iter().map(|split| isolates(split)).eq(DEEPSEEK_V3.map(Some))
}

/// Whether parts begin with those that [`COLLAPSING`] says.
fn is_collapsing(parts: &[&Value]) -> bool {
    let replaces = |(part, (pattern, content)): (&&Value, (&str, &str))| {
        let found = part.pointer("/pattern/Regex").and_then(Value::as_str);
        type_of(part) == "Replace" && found == Some(pattern) && text(part, "content") == content
    };
    parts.len() >= COLLAPSING.len() && parts.iter().zip(COLLAPSING).all(replaces)
}

/// Whether a Metaspace part puts a space before the text: "always", "first" or "never".
pub(super) fn prepend_scheme(value: &Value) -> &str {
    match value.get("prepend_scheme").and_then(Value::as_str) {
        Some(scheme) => scheme,
        None if truth(value, "add_prefix_space", true) => "always",
        None => "never",
    }
}

pub(super) struct Reader<'f> {
    pub(super) origin: &'f Path,
    pub(super) file: &'f File,
}

impl Reader<'_> {
    pub(super) fn unsupported(
        &self,
        field: &str,
        found: impl Into<String>,
        expected: &str,
    ) -> Error {
        Error::malformed(self.origin, field, short(&found.into()), expected, WITHOUT_TOKENIZER)
    }

    pub(super) fn damaged(
        &self,
        field: impl Into<String>,
        found: impl Into<String>,
        expected: &str,
    ) -> Error {
        let remedy = "save the tokenizer again: the file is damaged";
        Error::malformed(self.origin, field, short(&found.into()), expected, remedy)
    }

    fn spec(&self) -> Result<Spec> {
        if self.is_word_piece() {
            return self.word_piece();
        }
        let file = self.file;
        if let Vocabulary::Scored(vocabulary) = &file.model.vocab {
            return self.unigram(vocabulary);
        }
        self.check_bpe()?;
        let ids = self.ids()?;
        let (kind, pre_tokenizer, pre_flags) = self.pre_tokenizer()?;
        let is_clip = pre_tokenizer == PreTokenizer::Clip;
        self.check_affixes(if is_clip { WORD_END } else { "" })?;
        let normalizer = if is_clip { self.clip_normalizer()? } else { self.normalizer(kind)? };
        let flags = pre_flags | normalizer | self.decoder(kind)?;
        let flags = flags | if file.model.fuse_unk { flag::FUSE_UNKNOWN } else { 0 };
        let added = self.added(normalizer)?;
        let marked = normalizer & (flag::PREFIX_ALWAYS | flag::SPACE_MARK) != 0;
        let second = marked && added.iter().any(|token| token.normalized);
        let flags = flags | if second { flag::SECOND_IN_NORMALIZED } else { 0 };
        let texts = self.texts(by_id(ids), &added)?;
        let pieces = match kind {
            Kind::Characters | Kind::WordPiece | Kind::Unigram => {
                texts.into_iter().map(String::into_bytes).collect()
            }
            Kind::Bytes => gguf::spelled_bytes(self.origin, &texts, &added)?,
        };
        let unknown = file.model.unk_token.as_deref().map(|token| {
            let known = ids.get(token).copied();
            known.ok_or_else(|| self.damaged("model.unk_token", token, "a token of the vocabulary"))
        });
        let unknown = unknown.transpose()?;
        let mut merges = self.merges(ids)?;
        if is_clip {
            merges.splice(..0, self.word_ends(ids, unknown)?);
            merges.iter_mut().zip(0..).for_each(|(merge, rank)| merge.rank = rank);
        }
        let (before, after) = self.template()?;
        let spec = Spec {
            origin: self.origin.to_owned(),
            kind,
            pre_tokenizer,
            flags,
            pieces,
            merges,
            added,
            unknown,
            byte_fallback: file.model.byte_fallback,
            ignore_merges: file.model.ignore_merges,
            before,
            after,
            lookup: Lookup::default(),
            json: None,
        };
        spec.check()?;
        Ok(spec)
    }

    /// Whether the model is WordPiece: older files name no type, and it has no merges.
    fn is_word_piece(&self) -> bool {
        let model = &self.file.model;
        match model.kind.as_deref() {
            Some(kind) => kind == "WordPiece",
            None => model.merges.is_empty() && model.max_input_chars_per_word.is_some(),
        }
    }

    /// Checks that the model is byte-pair encoding as it is supported.
    fn check_bpe(&self) -> Result<()> {
        let model = &self.file.model;
        if model.kind.as_deref().is_some_and(|kind| kind != "BPE") {
            let found = model.kind.clone().unwrap_or_default();
            return Err(self.unsupported("model.type", found, "BPE, WordPiece or Unigram"));
        }
        if let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0) {
            return Err(self.unsupported("model.dropout", dropout.to_string(), "none"));
        }
        if model.kind.is_none() && model.merges.is_empty() {
            return Err(self.unsupported("model", "no type and no merges", "BPE"));
        }
        Ok(())
    }

    /// Checks what pieces end with that end a word, and that those within one begin with nothing of their own.
    fn check_affixes(&self, word_end: &str) -> Result<()> {
        let model = &self.file.model;
        for (field, affix, expected) in [
            ("model.continuing_subword_prefix", &model.continuing_subword_prefix, ""),
            ("model.end_of_word_suffix", &model.end_of_word_suffix, word_end),
        ] {
            let affix = affix.as_deref().unwrap_or("");
            if affix != expected {
                let expected = if expected.is_empty() { "none" } else { expected };
                return Err(self.unsupported(field, affix, expected));
            }
        }
        Ok(())
    }

    /// The merges of each last byte of a word and the unknown token behind it, which go before all others.
    fn word_ends(&self, ids: &BTreeMap<String, u32>, unknown: Option<u32>) -> Result<Vec<Merge>> {
        let right = unknown.ok_or_else(|| {
            self.damaged("model.unk_token", "none", "the token that stands behind words")
        })?;
        let pairs = ids.iter().filter_map(|(piece, &left)| {
            let whole = piece.chars().count() == 1;
            let merged = *ids.get(&format!("{piece}{WORD_END}")).filter(|_| whole)?;
            Some(Merge { left, right, merged, rank: 0 })
        });
        Ok(pairs.collect())
    }

    /// The ids of pieces.
    pub(super) fn ids(&self) -> Result<&BTreeMap<String, u32>> {
        let Vocabulary::Pieces(ids) = &self.file.model.vocab else {
            return Err(self.unsupported("model.vocab", "a list", "pieces and their ids"));
        };
        let mut seen = HashMap::new();
        for (piece, &id) in ids {
            if id >= CHARACTER {
                return Err(self.damaged("model.vocab", format!("id {id}"), "ids below 2097151"));
            }
            if let Some(other) = seen.insert(id, piece) {
                return Err(self.damaged(
                    "model.vocab",
                    format!("id {id} for {piece:?} and {other:?}"),
                    "different ids",
                ));
            }
        }
        Ok(ids)
    }

    fn normalizer(&self, kind: Kind) -> Result<u32> {
        self.spaces(kind, parts(&self.file.normalizer, "normalizers"))
    }

    /// That of CLIP: white space, which is left out later on, becomes spaces.
    fn clip_normalizer(&self) -> Result<u32> {
        let found = parts(&self.file.normalizer, "normalizers");
        let types: Vec<String> = found.iter().map(|part| type_of(part)).collect();
        let blanks = found.get(1).and_then(|part| part.pointer("/pattern/Regex"));
        if types == ["NFC", "Replace", "Lowercase"] && blanks == Some(&Value::from(r"\s+")) {
            return Ok(flag::NFC);
        }
        let expected = r"NFC, Replace \s+ by a space, Lowercase";
        Err(self.unsupported("normalizer", types.join(", "), expected))
    }

    /// The flags that parts of a normalizer ask for, which put, join and mark spaces, or compose characters.
    pub(super) fn spaces(&self, kind: Kind, mut found: Vec<&Value>) -> Result<u32> {
        let mut flags = 0;
        let mut prefix = None;
        let marks = matches!(kind, Kind::Characters | Kind::Unigram);
        if marks && is_collapsing(&found) {
            flags |= flag::COLLAPSE_SPACES;
            found.drain(..COLLAPSING.len());
        }
        for part in found {
            match type_of(part).as_str() {
                "NFC" if kind != Kind::Unigram => flags |= flag::NFC,
                "Prepend" if marks => prefix = Some(text(part, "prepend")),
                "Replace" if marks && is_replace(part, " ", MARK) => flags |= flag::SPACE_MARK,
                other => {
                    return Err(self.unsupported(
                        "normalizer",
                        other,
                        "NFC, Prepend \u{2581}, Replace ' ' by \u{2581}",
                    ));
                }
            }
        }
        match prefix {
            None => Ok(flags),
            Some(MARK) if flags & flag::SPACE_MARK != 0 => Ok(flags | flag::PREFIX_ALWAYS),
            Some(" ") => Ok(flags | flag::PREFIX_ALWAYS),
            Some(other) => Err(self.unsupported(
                "normalizer.prepend",
                other,
                "the character that spaces become",
            )),
        }
    }

    fn pre_tokenizer(&self) -> Result<(Kind, PreTokenizer, u32)> {
        let found = parts(&self.file.pre_tokenizer, "pretokenizers");
        let types: Vec<String> = found.iter().map(|part| type_of(part)).collect();
        let expected =
            "none, Metaspace, ByteLevel, Digits and ByteLevel, or a known Split and ByteLevel";
        let types: Vec<&str> = types.iter().map(String::as_str).collect();
        let scanner = match (types.as_slice(), found.as_slice()) {
            ([], _) => return Ok((Kind::Characters, PreTokenizer::None, 0)),
            (["Metaspace"], [part]) => {
                return Ok((Kind::Characters, PreTokenizer::None, self.metaspace(part)?));
            }
            (["ByteLevel"], [part]) if truth(part, "use_regex", true) => PreTokenizer::Gpt2,
            (["ByteLevel"], _) => PreTokenizer::None,
            (["Digits", "ByteLevel"], [digits, part])
                if truth(digits, "individual_digits", false) && truth(part, "use_regex", true) =>
            {
                PreTokenizer::Gpt2Digits
            }
            (["Split", "ByteLevel"], [split, _]) if is_clip(split) => PreTokenizer::Clip,
            (["Split", "ByteLevel"], [split, part]) if !truth(part, "use_regex", true) => {
                self.split(split)?
            }
            (["Split", "Split", "Split", "ByteLevel"], [splits @ .., part])
                if !truth(part, "use_regex", true) && is_deepseek_v3(splits) =>
            {
                PreTokenizer::DeepSeekV3
            }
            // Gemma's: no space is left where all are marked.
            (["Split"], [split])
                if self.marks_spaces()
                    && split.pointer("/pattern/String").and_then(Value::as_str) == Some(" ") =>
            {
                return Ok((Kind::Characters, PreTokenizer::None, 0));
            }
            _ => return Err(self.unsupported("pre_tokenizer", types.join(", "), expected)),
        };
        if found
            .iter()
            .any(|part| type_of(part) == "ByteLevel" && truth(part, "add_prefix_space", true))
        {
            return Err(self.unsupported("pre_tokenizer.add_prefix_space", "true", "false"));
        }
        Ok((Kind::Bytes, scanner, 0))
    }

    fn split(&self, split: &Value) -> Result<PreTokenizer> {
        let known = EXPRESSIONS.iter().find(|(known, _)| isolates(split) == Some(known));
        known.map(|&(_, scanner)| scanner).ok_or_else(|| {
            let found = text(&split["pattern"], "Regex");
            let expected = "the expression of GPT-2, GPT-4o, Llama 3, Qwen2, Qwen3.5, Tekken or DeepSeek-V3, isolated";
            self.unsupported("pre_tokenizer.pattern", found, expected)
        })
    }

    /// Whether the normalizer marks spaces.
    fn marks_spaces(&self) -> bool {
        let found = parts(&self.file.normalizer, "normalizers");
        found.iter().any(|part| type_of(part) == "Replace" && is_replace(part, " ", MARK))
    }

    pub(super) fn metaspace(&self, part: &Value) -> Result<u32> {
        if text(part, "replacement") != MARK {
            return Err(self.unsupported(
                "pre_tokenizer.replacement",
                text(part, "replacement"),
                MARK,
            ));
        }
        let prefix = match prepend_scheme(part) {
            "always" => flag::PREFIX_ALWAYS | flag::PREFIX_UNLESS_SPACE,
            "first" => flag::PREFIX_FIRST | flag::PREFIX_UNLESS_SPACE,
            "never" => 0,
            other => {
                return Err(self.unsupported(
                    "pre_tokenizer.prepend_scheme",
                    other,
                    "always, first or never",
                ));
            }
        };
        let split = if truth(part, "split", true) { flag::SPLIT_SPACES } else { 0 };
        Ok(flag::SPACE_MARK | prefix | split)
    }

    pub(super) fn decoder(&self, kind: Kind) -> Result<u32> {
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
                        _ => {
                            return Err(self.unsupported(
                                "decoder.start",
                                part["start"].to_string(),
                                "0 or 1",
                            ));
                        }
                    }
                }
                other => {
                    return Err(self.unsupported(
                        "decoder",
                        other,
                        "Replace, ByteFallback, Fuse, Strip, Metaspace",
                    ));
                }
            }
        }
        if found.is_empty() {
            return Err(self.unsupported("decoder", "none", "one that joins pieces"));
        }
        Ok(flags)
    }

    /// Ids before and after the text.
    pub(super) fn template(&self) -> Result<(Vec<u32>, Vec<u32>)> {
        let found = parts(&self.file.post_processor, "processors");
        let mut templates = found.into_iter().filter(|part| type_of(part) != "ByteLevel");
        let template = match (templates.next(), templates.next()) {
            (None, _) => return Ok((Vec::new(), Vec::new())),
            (Some(template), None) if type_of(template) == "TemplateProcessing" => template,
            (Some(pair), None)
                if ["BertProcessing", "RobertaProcessing"].contains(&&*type_of(pair)) =>
            {
                return self.pair(pair);
            }
            (Some(other), _) => {
                return Err(self.unsupported(
                    "post_processor",
                    type_of(other),
                    "one TemplateProcessing, BertProcessing or RobertaProcessing, or ByteLevel",
                ));
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
            let ids: Option<Vec<u32>> =
                ids.and_then(|ids| ids.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect());
            let wrong = || {
                self.damaged(
                    "post_processor.single",
                    item.to_string(),
                    "special tokens around one sequence A",
                )
            };
            sides[side].extend(ids.ok_or_else(wrong)?);
        }
        if side == 0 {
            return Err(self.damaged(
                "post_processor.single",
                "no sequence A",
                "special tokens around one sequence A",
            ));
        }
        let [before, after] = sides;
        Ok((before, after))
    }

    /// The ids of a processor that puts one token before the text and one after it.
    fn pair(&self, processor: &Value) -> Result<(Vec<u32>, Vec<u32>)> {
        let id = |key: &str| {
            let id = processor[key][1].as_u64().and_then(|id| u32::try_from(id).ok());
            let found = || processor[key].to_string();
            let field = format!("post_processor.{key}");
            id.ok_or_else(|| self.damaged(field, found(), "a token and its id"))
        };
        Ok((vec![id("cls")?], vec![id("sep")?]))
    }

    /// Added tokens that can be sought in the text as it is: those that are, and those that no normalizer changes.
    pub(super) fn added_as_they_are(&self, lowercase: bool) -> Result<Vec<Added>> {
        let stays = |c: char| c.is_ascii_graphic() && !(lowercase && c.is_ascii_uppercase());
        let added = self.added(0)?;
        let changed = |token: &&Added| token.normalized && !token.content.chars().all(stays);
        if let Some(token) = added.iter().find(changed) {
            let field = format!("added_tokens, id {}", token.id);
            let found = format!("{:?}, sought in normalized text", token.content);
            let expected = "tokens that are sought in the text as it is (\"normalized\": false), \
                            or that the normalizer leaves as they are";
            return Err(self.unsupported(&field, found, expected));
        }
        Ok(added)
    }

    fn added(&self, normalizer: u32) -> Result<Vec<Added>> {
        let token = |token: &AddedToken| {
            let field = format!("added_tokens, id {}", token.id);
            if token.id >= CHARACTER {
                return Err(self.damaged(field, "its id", "ids below 2097151"));
            }
            if token.single_word {
                return Err(self.unsupported(
                    &field,
                    "single_word",
                    "tokens that match inside words",
                ));
            }
            let composed = normalizer & flag::NFC == 0 || nfc(&token.content) == token.content;
            if token.normalized && !composed {
                return Err(self.unsupported(
                    &field,
                    &token.content,
                    "a token in Unicode's normalization form C",
                ));
            }
            Ok(Added {
                id: token.id,
                content: token.content.clone(),
                special: token.special,
                strip_left: token.lstrip,
                strip_right: token.rstrip,
                normalized: token.normalized,
            })
        };
        self.file.added_tokens.iter().filter(|token| !token.content.is_empty()).map(token).collect()
    }

    /// Piece or content of every id. Few ids may be missing: a file cannot ask for much more memory than it has.
    pub(super) fn texts<'t>(
        &self,
        ids: impl Iterator<Item = (&'t str, u32)> + Clone,
        added: &[Added],
    ) -> Result<Vec<String>> {
        let known = ids.clone().count() + added.len();
        let all = ids.clone().map(|(_, id)| id).chain(added.iter().map(|token| token.id));
        let count = all.max().map_or(0, |id| id as usize + 1);
        if count > 4 * known + 65536 {
            let found = format!("{known} tokens with ids up to {}", count - 1);
            return Err(self.damaged("model.vocab", found, "ids without large gaps"));
        }
        let mut texts = vec![String::new(); count];
        for (piece, id) in ids {
            piece.clone_into(&mut texts[id as usize]);
        }
        for token in added {
            texts[token.id as usize].clone_from(&token.content);
        }
        Ok(texts)
    }

    fn merges(&self, ids: &BTreeMap<String, u32>) -> Result<Vec<Merge>> {
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
                return Err(self.damaged(
                    format!("model.merges[{number}]"),
                    found,
                    "two tokens that make a third",
                ));
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
        let Some(runs) = decoders.iter().find_map(|part| part.get(EQUAL_RANKS)) else {
            return Ok(None);
        };
        let runs: Vec<usize> = Deserialize::deserialize(runs)
            .map_err(|e: serde_json::Error| self.damaged(EQUAL_RANKS, e.to_string(), "numbers"))?;
        Ok(Some(
            runs.into_iter().zip(0..).flat_map(|(length, rank)| std::iter::repeat_n(rank, length)),
        ))
    }
}

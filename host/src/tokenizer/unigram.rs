//! Reading and writing Unigram tokenizers: SentencePiece's, from `tokenizer.json`.

use super::gguf::token_type;
use super::hf::{MARK, Reader, parts, prepend_scheme, text, truth, type_of};
use super::lookup::{Charsmap, Lookup, Normalizer};
use super::{GgufVocabulary, Kind, PreTokenizer, Spec, gguf};
use crate::{Error, Result};
use omex_core::token::layout::flag;
use serde_json::{Value, json};
use std::path::Path;

/// What an unknown character's score is below the lowest of all.
const PENALTY: f64 = 10.0;
/// Tells that the longest key is replaced, as SentencePiece does; readers pass over fields that they do not know.
const LONGEST: &str = "omex_longest_key";
/// Tells that scores are, but for how they are written.
const SINGLE_SCORES: &str = "omex_single_scores";
/// Tells that sums of scores are of single precision.
const SINGLE: &str = "omex_single_precision";

impl Spec {
    /// A tokenizer of SentencePiece's pieces, scores and map of characters, which the file calls so, that puts
    /// nothing around texts.
    pub(super) fn of_scores(
        origin: &Path,
        vocabulary: &GgufVocabulary,
        [scores, charsmap]: [&str; 2],
        (flags, byte_fallback): (u32, bool),
    ) -> Result<Self> {
        let wrong = |field: &str, found: &str, expected: &str| {
            let remedy = "get the file again: it is damaged";
            Error::malformed(origin, field, found, expected, remedy)
        };
        let normal = vocabulary.token_types.iter().zip(&vocabulary.scores);
        let normal = normal.filter(|(kind, _)| **kind == token_type::NORMAL);
        let lowest = normal.map(|(_, score)| *score).fold(f32::INFINITY, f32::min);
        let finite = vocabulary.scores.iter().chain([&lowest]).all(|score| score.is_finite());
        if !finite || vocabulary.scores.len() != vocabulary.tokens.len() {
            let expected = "a finite score for each piece";
            return Err(wrong(scores, "none, or scores that are no numbers", expected));
        }
        let normalizer = match Charsmap::new(&vocabulary.charsmap) {
            _ if vocabulary.charsmap.is_empty() => Normalizer::default(),
            Some(map) => Normalizer::Charsmap(map),
            None => return Err(wrong(charsmap, "other bytes", "a compiled map")),
        };
        let texts = gguf::texts(origin, vocabulary)?;
        let spec = Self {
            origin: origin.to_owned(),
            kind: Kind::Unigram,
            pre_tokenizer: PreTokenizer::None,
            flags: flags | flag::SPACE_MARK | flag::FUSE_UNKNOWN,
            pieces: texts.into_iter().map(String::into_bytes).collect(),
            merges: vec![],
            added: gguf::added(origin, vocabulary)?,
            unknown: Some(vocabulary.unknown.unwrap_or(0)),
            byte_fallback,
            ignore_merges: false,
            before: vec![],
            after: vec![],
            lookup: Lookup {
                normalizer,
                longest_word: 0,
                scores: vocabulary.scores.iter().copied().map(f64::from).collect(),
                unknown_score: f64::from(lowest - PENALTY as f32),
            },
            json: None,
        };
        spec.check()?;
        Ok(spec)
    }
}

impl Reader<'_> {
    /// Reads a tokenizer whose model is Unigram.
    pub(super) fn unigram(&self, vocabulary: &[(String, f64)]) -> Result<Spec> {
        let model = &self.file.model;
        if vocabulary.iter().any(|(_, score)| !score.is_finite()) {
            return Err(self.damaged("model.vocab", "not a number", "finite scores"));
        }
        let (normalizer, flags) = self.unigram_normalizer()?;
        let flags = flags | self.unigram_words()? | self.decoder(Kind::Unigram)?;
        let flags = flags | flag::FUSE_UNKNOWN | flag::SPACE_MARK;
        let flags = flags | if model.single { flag::SINGLE } else { 0 };
        let added = self.added_as_they_are(false)?;
        let ids = vocabulary.iter().zip(0..).map(|((piece, _), id)| (piece.as_str(), id));
        let texts = self.texts(ids, &added)?;
        let lowest = vocabulary.iter().map(|(_, score)| *score).fold(f64::INFINITY, f64::min);
        // Such numbers are written shorter than those of double precision.
        let exact = |score: f64| match model.single || model.single_scores {
            true => f64::from(score as f32),
            false => score,
        };
        let mut scores: Vec<f64> = vocabulary.iter().map(|(_, score)| exact(*score)).collect();
        scores.resize(texts.len(), 0.0);
        let (before, after) = self.template()?;
        let spec = Spec {
            origin: self.origin.to_owned(),
            kind: Kind::Unigram,
            pre_tokenizer: PreTokenizer::None,
            flags,
            pieces: texts.into_iter().map(String::into_bytes).collect(),
            merges: vec![],
            added,
            unknown: model.unk_id,
            byte_fallback: model.byte_fallback,
            ignore_merges: false,
            before,
            after,
            lookup: Lookup {
                normalizer,
                longest_word: 0,
                scores,
                unknown_score: model.unknown_score.map_or(lowest - PENALTY, exact),
            },
            json: None,
        };
        spec.check()?;
        Ok(spec)
    }

    fn unigram_normalizer(&self) -> Result<(Normalizer, u32)> {
        let mut found = parts(&self.file.normalizer, "normalizers");
        let (mut normalizer, mut flags) = (Normalizer::Plain, 0);
        if let Some(part) = found.first().filter(|part| type_of(part) == "Precompiled") {
            let charsmap = Charsmap::from_base64(text(part, "precompiled_charsmap"))
                .ok_or_else(|| self.damaged("normalizer", "other bytes", "a precompiled map"))?;
            normalizer = Normalizer::Charsmap(charsmap);
            flags |= if truth(part, LONGEST, false) { 0 } else { flag::CLUSTERS };
            found.remove(0);
        }
        if let [strip, runs, ..] = found.as_slice()
            && type_of(strip) == "Strip"
            && !truth(strip, "strip_left", true)
            && is_runs(runs, MARK)
        {
            flags |= flag::COLLAPSE_SPACES;
            found.drain(..2);
        } else if let [runs] = found.as_slice()
            && self.splits_blanks()
            && is_runs(runs, " ")
        {
            // Runs are one blank to what splits at them.
            found.clear();
        }
        Ok((normalizer, flags | self.spaces(Kind::Unigram, found)?))
    }

    fn splits_blanks(&self) -> bool {
        let found = parts(&self.file.pre_tokenizer, "pretokenizers");
        found.first().is_some_and(|part| type_of(part) == "WhitespaceSplit")
    }

    fn unigram_words(&self) -> Result<u32> {
        let found = parts(&self.file.pre_tokenizer, "pretokenizers");
        let types: Vec<String> = found.iter().map(|part| type_of(part)).collect();
        let types: Vec<&str> = types.iter().map(String::as_str).collect();
        match (types.as_slice(), found.as_slice()) {
            ([], _) => Ok(0),
            (["Metaspace"], [part]) => self.metaspace(part),
            (["WhitespaceSplit", "Metaspace"], [_, part]) if prepend_scheme(part) == "always" => {
                Ok(flag::SPLIT_BLANKS | self.metaspace(part)?)
            }
            _ => {
                let expected = "none, Metaspace, or WhitespaceSplit and Metaspace";
                Err(self.unsupported("pre_tokenizer", types.join(", "), expected))
            }
        }
    }
}

/// Whether a part makes runs of spaces `content`.
fn is_runs(part: &Value, content: &str) -> bool {
    let pattern = part.pointer("/pattern/Regex").and_then(Value::as_str);
    type_of(part) == "Replace" && pattern == Some(" {2,}") && text(part, "content") == content
}

/// The `model` of a `tokenizer.json`.
pub(super) fn model_json(spec: &Spec, text: &dyn Fn(u32) -> String) -> Value {
    let scores = (0u32..).zip(&spec.lookup.scores);
    let vocabulary: Vec<Value> = scores.map(|(id, score)| json!([text(id), score])).collect();
    let single = |score: &f64| f64::from(*score as f32) == *score;
    let all_single = spec.lookup.scores.iter().chain([&spec.lookup.unknown_score]).all(single);
    json!({
        "type": "Unigram", "unk_id": spec.unknown, "vocab": vocabulary,
        "byte_fallback": spec.byte_fallback, SINGLE: spec.flags & flag::SINGLE != 0,
        SINGLE_SCORES: all_single,
        "omex_unknown_score": spec.lookup.unknown_score,
    })
}

/// The part of a `normalizer` that replaces characters, if there is one.
pub(super) fn charsmap_json(spec: &Spec) -> Option<Value> {
    let Normalizer::Charsmap(charsmap) = &spec.lookup.normalizer else { return None };
    Some(json!({
        "type": "Precompiled", "precompiled_charsmap": charsmap.to_base64(),
        LONGEST: spec.flags & flag::CLUSTERS == 0,
    }))
}

//! A tokenizer as GGUF's metadata have it.

use super::gguf::token_type;
use super::{GgufVocabulary, Kind, Normalizer, PreTokenizer, Spec, byte_level, compile};
use omex_core::token::layout::flag;
use std::collections::HashMap;
use std::path::Path;

/// What llama.cpp calls the ways in which byte-level tokenizers cut text.
const NAMES: [(PreTokenizer, &str); 8] = [
    (PreTokenizer::Gpt2, "gpt-2"),
    (PreTokenizer::Gpt2Digits, "smollm"),
    (PreTokenizer::Llama3, "llama-bpe"),
    (PreTokenizer::Qwen2, "qwen2"),
    (PreTokenizer::Qwen3_5, "qwen35"),
    (PreTokenizer::Gpt4o, "gpt-4o"),
    (PreTokenizer::Tekken, "tekken"),
    (PreTokenizer::DeepSeekV3, "deepseek-v3"),
];

/// The score of a piece that no merge makes.
const NO_MERGE: f32 = -1e6;

impl Spec {
    /// This tokenizer as a GGUF file's metadata, for a vocabulary of this size, and whether what is read
    /// of them again makes the same tokens of every text; none if llama.cpp has no such tokenizers.
    pub(crate) fn to_gguf(&self, size: usize) -> Option<(GgufVocabulary, bool)> {
        let mut vocabulary = match self.kind {
            Kind::Characters => self.characters(),
            Kind::Bytes => self.bytes()?,
            Kind::WordPiece => self.words()?,
            Kind::Unigram => self.scores(),
        };
        (vocabulary.bos, vocabulary.eos) =
            (self.before.first().copied(), self.after.first().copied());
        (vocabulary.add_bos, vocabulary.add_eos) =
            (Some(vocabulary.bos.is_some()), Some(vocabulary.eos.is_some()));
        vocabulary.token_types = self.types();
        let same = self.is_read_from(&vocabulary);
        vocabulary.fill(size);
        Some((vocabulary, same))
    }

    fn is_read_from(&self, vocabulary: &GgufVocabulary) -> bool {
        let read = Spec::from_gguf(Path::new("tokenizer.ggml"), vocabulary.clone());
        let tables = read.and_then(|read| compile(&read));
        tables.is_ok_and(|tables| compile(self).is_ok_and(|own| own == tables))
    }

    fn characters(&self) -> GgufVocabulary {
        let mut scores = vec![NO_MERGE; self.pieces.len()];
        // The first merge that makes a piece says how good it is.
        for merge in self.merges.iter().rev() {
            if let Some(score) = scores.get_mut(merge.merged as usize) {
                *score = -(merge.rank as f32);
            }
        }
        GgufVocabulary {
            model: "llama".into(),
            tokens: self.pieces.clone(),
            scores,
            unknown: self.unknown,
            add_space_prefix: Some(self.flags & flag::PREFIX_ALWAYS != 0),
            ..GgufVocabulary::default()
        }
    }

    fn bytes(&self) -> Option<GgufVocabulary> {
        let name = NAMES.iter().find(|(known, _)| *known == self.pre_tokenizer)?.1;
        let name = match (self.pre_tokenizer, self.ignore_merges) {
            (PreTokenizer::Llama3, false) => "dbrx",
            _ => name,
        };
        let added: HashMap<u32, &str> =
            self.added.iter().map(|token| (token.id, token.content.as_str())).collect();
        let text = |(id, piece): (u32, &Vec<u8>)| match added.get(&id) {
            Some(content) => (*content).to_owned(),
            None => byte_level::spelled(piece),
        };
        let texts: Vec<String> = (0..).zip(&self.pieces).map(text).collect();
        let of = |id: u32| texts.get(id as usize).map_or("", String::as_str);
        let merge = |merge: &super::Merge| format!("{} {}", of(merge.left), of(merge.right));
        let merges = self.merges.iter().map(merge).collect();
        let tokens = texts.into_iter().map(String::into_bytes).collect();
        let (model, pre) = ("gpt2".into(), Some(name.into()));
        Some(GgufVocabulary { model, pre, tokens, merges, ..GgufVocabulary::default() })
    }

    fn scores(&self) -> GgufVocabulary {
        let charsmap = match &self.lookup.normalizer {
            Normalizer::Charsmap(charsmap) => charsmap.to_bytes(),
            _ => vec![],
        };
        GgufVocabulary {
            model: "t5".into(),
            pre: Some("default".into()),
            tokens: self.pieces.clone(),
            scores: self.lookup.scores.iter().map(|score| *score as f32).collect(),
            unknown: self.unknown,
            add_space_prefix: Some(self.flags & flag::PREFIX_ALWAYS != 0),
            remove_extra_whitespaces: Some(
                self.flags & (flag::COLLAPSE_SPACES | flag::SPLIT_BLANKS) != 0,
            ),
            charsmap,
            ..GgufVocabulary::default()
        }
    }

    /// Pieces that begin words have a mark in front; those that go on with one have none.
    fn words(&self) -> Option<GgufVocabulary> {
        let json: serde_json::Value = serde_json::from_slice(self.json.as_ref()?).ok()?;
        let mut tokens = vec![vec![]; self.pieces.len()];
        for (piece, id) in json["model"]["vocab"].as_object()? {
            let special = piece.starts_with('[') && piece.ends_with(']');
            let token = match piece.strip_prefix("##") {
                Some(goes_on) => goes_on.to_owned(),
                None if special => piece.clone(),
                None => format!("\u{2581}{piece}"),
            };
            *tokens.get_mut(usize::try_from(id.as_u64()?).ok()?)? = token.into_bytes();
        }
        let (model, unknown) = ("bert".into(), self.unknown);
        Some(GgufVocabulary { model, tokens, unknown, ..GgufVocabulary::default() })
    }

    /// What each token is for.
    fn types(&self) -> Vec<i32> {
        let is_byte = |piece: &[u8]| {
            self.byte_fallback
                && piece.len() == 6
                && piece.starts_with(b"<0x")
                && piece.ends_with(b">")
        };
        let plain = |piece: &Vec<u8>| match piece.is_empty() {
            true => token_type::UNUSED,
            false if is_byte(piece) => token_type::BYTE,
            false => token_type::NORMAL,
        };
        let mut types: Vec<i32> = self.pieces.iter().map(plain).collect();
        for token in &self.added {
            let kind = if token.special { token_type::CONTROL } else { token_type::USER_DEFINED };
            types[token.id as usize] = kind;
        }
        if let Some(unknown) =
            self.unknown.filter(|_| [Kind::Characters, Kind::Unigram].contains(&self.kind))
        {
            types[unknown as usize] = token_type::UNKNOWN;
        }
        types
    }
}

impl GgufVocabulary {
    /// Has as many tokens as the model's matrix has rows: the others are never used.
    fn fill(&mut self, size: usize) {
        for id in self.tokens.len()..size {
            self.tokens.push(format!("[PAD{id}]").into_bytes());
        }
        for (id, token) in self.tokens.iter_mut().enumerate().filter(|(_, token)| token.is_empty())
        {
            *token = format!("[PAD{id}]").into_bytes();
        }
        self.tokens.truncate(size);
        self.token_types.resize(size, token_type::UNUSED);
        if !self.scores.is_empty() {
            self.scores.resize(size, NO_MERGE);
        }
    }

    /// Tokens without a meaning, for models that have no tokenizer: llama.cpp opens no model without any.
    pub(crate) fn of_dummies(size: u32) -> Self {
        let token = |id: u32| match id {
            0 => ("<unk>".to_owned(), token_type::UNKNOWN),
            1 => ("<s>".to_owned(), token_type::CONTROL),
            2 => ("</s>".to_owned(), token_type::CONTROL),
            // llama.cpp asks for it in some vocabularies.
            259 => ("<|endoftext|>".to_owned(), token_type::CONTROL),
            3..259 => (format!("<0x{:02X}>", id - 3), token_type::BYTE),
            _ => (format!("w{id}"), token_type::NORMAL),
        };
        let (texts, token_types): (Vec<_>, Vec<_>) = (0..size).map(token).unzip();
        let tokens = texts.into_iter().map(String::into_bytes).collect();
        let scores = (0..size).map(|id| -(id as f32)).collect();
        Self { model: "llama".into(), tokens, scores, token_types, ..Self::default() }
    }
}

//! SentencePiece's `tokenizer.model`: a protobuf message (`sentencepiece_model.proto` of google/sentencepiece) with
//! pieces, scores and how text is normalized.

use super::{GgufVocabulary, Spec, scores};
use crate::{Error, Result, input};
use omex_core::token::layout::flag;
use std::path::Path;

/// Values of a piece's type: those of GGUF, which took them from here.
mod piece_type {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
}

/// Values of the trainer's `model_type`.
const UNIGRAM: u64 = 1;
const BPE: u64 = 2;
/// Text of the unknown token.
const UNKNOWN: &str = "\u{2581}\u{2047}\u{2581}";

/// Names of the trainer's `model_type`, from 1.
const MODEL_TYPES: [&str; 4] = ["unigram", "BPE", "word", "char"];

/// A field's value on the wire.
enum Field<'b> {
    Number(u64),
    Float(f32),
    Bytes(&'b [u8]),
}

impl Field<'_> {
    fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Float(_) | Self::Bytes(_) => 0,
        }
    }
}

/// The fields of a message, with their numbers; none if it is cut short, or no message.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            1 => Field::Bytes(take(&mut bytes, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Field::Bytes(take(&mut bytes, length)?)
            }
            5 => Field::Float(f32::from_le_bytes(take(&mut bytes, 4)?.try_into().ok()?)),
            _ => return None,
        };
        fields.push((key >> 3, field));
    }
    Some(fields)
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(number);
        }
    }
    None
}

/// What the file says, with the format's defaults where it says nothing.
struct Model {
    vocabulary: GgufVocabulary,
    model_type: u64,
    byte_fallback: bool,
    prefix: bool,
    collapses: bool,
    /// The name of the rule by which characters are replaced, and its map, if there is one.
    rule: Option<(String, Vec<u8>)>,
}

impl Model {
    fn read(file: &[u8]) -> Option<Self> {
        let mut model = Self {
            vocabulary: GgufVocabulary { model: "llama".into(), ..GgufVocabulary::default() },
            model_type: 1,
            byte_fallback: false,
            prefix: true,
            collapses: true,
            rule: None,
        };
        for (number, field) in fields(file)? {
            match (number, field) {
                (1, Field::Bytes(piece)) => model.piece(piece)?,
                (2, Field::Bytes(trainer)) => model.trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => model.normalizer(normalizer)?,
                _ => {}
            }
        }
        Some(model)
    }

    fn piece(&mut self, bytes: &[u8]) -> Option<()> {
        let (mut piece, mut score, mut kind) = (&[][..], 0.0, piece_type::NORMAL);
        for (number, field) in fields(bytes)? {
            match (number, field) {
                (1, Field::Bytes(text)) => piece = text,
                (2, Field::Float(x)) => score = x,
                (3, Field::Number(x)) => kind = i32::try_from(x).ok()?,
                _ => {}
            }
        }
        self.vocabulary.tokens.push(piece.to_vec());
        self.vocabulary.scores.push(score);
        self.vocabulary.token_types.push(kind);
        Some(())
    }

    fn trainer(&mut self, bytes: &[u8]) -> Option<()> {
        for (number, field) in fields(bytes)? {
            let id = u32::try_from(field.number()).ok();
            match number {
                3 => self.model_type = field.number(),
                35 => self.byte_fallback = field.number() != 0,
                40 => self.vocabulary.unknown = id,
                41 => self.vocabulary.bos = id,
                42 => self.vocabulary.eos = id,
                _ => {}
            }
        }
        Some(())
    }

    fn normalizer(&mut self, bytes: &[u8]) -> Option<()> {
        let (mut name, mut map) = (String::new(), &[][..]);
        for (number, field) in fields(bytes)? {
            match (number, field) {
                (1, Field::Bytes(text)) => name = String::from_utf8_lossy(text).into_owned(),
                (2, Field::Bytes(bytes)) => map = bytes,
                (3, Field::Number(x)) => self.prefix = x != 0,
                (4, Field::Number(x)) => self.collapses = x != 0,
                _ => {}
            }
        }
        self.rule = (!map.is_empty()).then(|| (name, map.to_vec()));
        Some(())
    }
}

impl Spec {
    /// Reads a `tokenizer.model` with byte-pair merges or of the Unigram kind. That puts nothing around texts.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or holds another kind of model or a normalization
    /// that the core does not have.
    pub fn from_sentencepiece(path: &Path) -> Result<Self> {
        let file = input::read(path, input::MAX_TOKENIZER_BYTES)?;
        let model = Model::read(&file).filter(|model| !model.vocabulary.tokens.is_empty());
        let model = model.ok_or_else(|| {
            let (found, expected) = ("other bytes", "a SentencePiece model");
            let remedy = "get the file again, or give the tokenizer.json of the same model";
            Error::malformed(path, "protobuf", found, expected, remedy)
        })?;
        supported(path, &model)?;
        if model.model_type == UNIGRAM {
            return unigram(path, model);
        }
        let types = model.vocabulary.token_types.clone();
        let (byte_fallback, collapses) = (model.byte_fallback, model.collapses);
        let mut vocabulary = model.vocabulary;
        vocabulary.add_space_prefix = Some(model.prefix);
        let mut spec = Self::from_gguf(path, vocabulary)?;
        spec.byte_fallback = byte_fallback;
        spec.flags |= flag::FUSE_UNKNOWN;
        spec.flags |= if collapses { flag::COLLAPSE_SPACES } else { 0 };
        // Text never merges into a control token.
        let merges =
            |id: u32| [piece_type::NORMAL, piece_type::USER_DEFINED].contains(&types[id as usize]);
        spec.merges.retain(|merge| merges(merge.merged));
        spec.merges = scores::dense(spec.merges);
        Ok(spec)
    }
}

/// A tokenizer of the Unigram kind, whose sums are of single precision.
fn unigram(path: &Path, model: Model) -> Result<Spec> {
    let Model { mut vocabulary, byte_fallback, prefix, collapses, rule, .. } = model;
    let flags = [
        (true, flag::SINGLE),
        (prefix, flag::PREFIX_ALWAYS | flag::STRIP_START),
        (collapses, flag::COLLAPSE_SPACES),
    ];
    let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flags)| flags).sum();
    vocabulary.charsmap = rule.map(|(_, map)| map).unwrap_or_default();
    let names = ["pieces", "normalizer_spec.precompiled_charsmap"];
    let mut spec = Spec::of_scores(path, &vocabulary, names, (flags, byte_fallback))?;
    let unknown = vocabulary.unknown.unwrap_or(0);
    if let Some(piece) = spec.pieces.get_mut(unknown as usize) {
        *piece = UNKNOWN.into();
    }
    spec.added.retain(|token| token.id != unknown);
    Ok(spec)
}

fn supported(path: &Path, model: &Model) -> Result<()> {
    let refused = |field: &str, found: String, expected: &str| {
        let remedy = "save the tokenizer as tokenizer.json, with transformers, and give that";
        Err(Error::malformed(path, field, found, expected, remedy))
    };
    if ![UNIGRAM, BPE].contains(&model.model_type) {
        let name = MODEL_TYPES.get((model.model_type as usize).wrapping_sub(1));
        let found = name.map_or_else(|| model.model_type.to_string(), |name| (*name).to_owned());
        return refused("trainer_spec.model_type", found, "unigram or BPE");
    }
    if let Some((rule, _)) = model.rule.as_ref().filter(|_| model.model_type == BPE) {
        return refused("normalizer_spec.name", rule.clone(), "identity");
    }
    if model.vocabulary.token_types.contains(&piece_type::UNUSED) {
        return refused("pieces", "an unused one".into(), "none that is unused");
    }
    let unknown = model.vocabulary.unknown.unwrap_or(0) as usize;
    if model.vocabulary.token_types.get(unknown) != Some(&piece_type::UNKNOWN) {
        return refused("trainer_spec.unk_id", unknown.to_string(), "the unknown piece's id");
    }
    Ok(())
}

//! Small tokenizers for tests, made of GGUF vocabularies so that no file is needed.

use omex::tokenizer::{GgufVocabulary, Spec};
use omex_core::token::{Decoder, EncodeOptions, Symbol, TableSource, Tokenizer};
use serde_json::{Value, json};
use std::path::Path;

/// Pieces that merge into longer ones, down to single characters.
const PIECES: [&str; 16] = [
    "aa", "aaaa", "aaa", "ab", "he", "ll", "hell", "hello", "  ", "    ", "o ", " w", "12", "é",
    "日本", "\n\n",
];

/// GPT-2's spelling of bytes.
fn spelled(text: &[u8]) -> String {
    let mut others = 0x100..;
    let table: Vec<char> = (0..=255u8)
        .map(|b| match b {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE.. => char::from(b),
            _ => char::from_u32(others.next().unwrap()).unwrap(),
        })
        .collect();
    text.iter().map(|&b| table[usize::from(b)]).collect()
}

/// A SentencePiece-style tokenizer: bytes, ASCII letters, `PIECES`; scores with ties.
pub(crate) fn characters() -> Spec {
    characters_of(&PIECES)
}

/// The same without the piece that has a space after something else, so that words may be cut at spaces.
pub(crate) fn characters_in_words() -> Spec {
    characters_of(&PIECES.map(|piece| if piece == "o " { "lo" } else { piece }))
}

fn characters_of(pieces: &[&str]) -> Spec {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    tokens.extend((0..256).map(|b| format!("<0x{b:02X}>")));
    let first = tokens.len();
    tokens.extend((' '..='z').map(|c| c.to_string()));
    tokens.extend(["日", "本"].map(String::from));
    tokens.extend(pieces.iter().copied().map(String::from));
    let tokens: Vec<_> =
        tokens.into_iter().map(|token| token.replace(' ', "\u{2581}").into_bytes()).collect();
    let vocabulary = GgufVocabulary {
        model: "llama".into(),
        scores: (0..tokens.len()).map(|id| -((id / 2) as f32)).collect(),
        token_types: (0..tokens.len())
            .map(|id| {
                if id < 3 {
                    3
                } else if id < first {
                    6
                } else {
                    1
                }
            })
            .collect(),
        tokens,
        ..GgufVocabulary::default()
    };
    Spec::from_gguf(Path::new("characters.gguf"), vocabulary).unwrap()
}

/// A byte-level tokenizer: bytes, `PIECES` and what leads to them, two added tokens.
pub(crate) fn bytes(pre: &str) -> Spec {
    let mut pieces: Vec<Vec<u8>> = (0..=255u8).map(|b| vec![b]).collect();
    let mut merges = Vec::new();
    for piece in PIECES {
        // From the left, byte by byte; a piece that is there already is a merge already.
        for end in 2..=piece.len() {
            let (left, right) = piece.as_bytes()[..end].split_at(end - 1);
            if !pieces.contains(&[left, right].concat()) {
                pieces.push([left, right].concat());
                merges.push(format!("{} {}", spelled(left), spelled(right)));
            }
        }
    }
    merges.push(format!("{0} {0}", spelled(b"aa")));
    let mut tokens: Vec<_> = pieces.iter().map(|piece| spelled(piece).into_bytes()).collect();
    let first = tokens.len();
    tokens.extend([b"<|end|>".to_vec(), b"<|end|><|end|>".to_vec()]);
    let vocabulary = GgufVocabulary {
        model: "gpt2".into(),
        pre: Some(pre.into()),
        token_types: (0..tokens.len())
            .map(|id| {
                if id < first {
                    1
                } else if id == first {
                    3
                } else {
                    4
                }
            })
            .collect(),
        tokens,
        merges,
        bos: Some(first as u32),
        ..GgufVocabulary::default()
    };
    Spec::from_gguf(Path::new("bytes.gguf"), vocabulary).unwrap()
}

/// A WordPiece tokenizer of BERT's with few pieces.
#[allow(dead_code, reason = "not every test file needs it")]
pub(crate) fn word_piece() -> Spec {
    let pieces = [
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "a",
        "##a",
        "##aa",
        "aaa",
        "he",
        "##ll",
        "##o",
        "hello",
        "!",
        "'",
        "s",
        "日",
        "1",
        "##1",
        "##2",
        "e",
        "#",
        "\u{1112}",
        "##\u{1161}",
        "##\u{11AB}",
        "i",
        "##\u{307}",
    ];
    let vocabulary: serde_json::Map<String, Value> =
        pieces.iter().zip(0u32..).map(|(piece, id)| ((*piece).to_owned(), id.into())).collect();
    let special = |id: usize| json!({ "id": id, "content": pieces[id], "special": true });
    let json = json!({
        "added_tokens": [special(0), special(1), special(2)],
        "normalizer": { "type": "BertNormalizer", "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "cls": ["[CLS]", 1], "sep": ["[SEP]", 2] },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 40, "vocab": vocabulary,
        },
    });
    Spec::from_hf_bytes(Path::new("word_piece.json"), json.to_string().into_bytes()).unwrap()
}

/// A Unigram tokenizer; `bytes` if it has a token for each byte.
#[allow(dead_code, reason = "not every test file needs it")]
pub(crate) fn unigram(pre_tokenizer: &Value, bytes: bool) -> Spec {
    let pieces = [
        ("<unk>", 0.0),
        ("</s>", 0.0),
        ("\u{2581}", -2.0),
        ("a", -3.0),
        ("aa", -5.5),
        ("aaa", -9.5),
        ("\u{2581}he", -4.0),
        ("ll", -4.5),
        ("o", -3.5),
        ("\u{2581}hello", -13.0),
        ("!", -3.0),
        ("日", -6.0),
        ("12", -5.0),
        ("1", -2.0),
        ("2", -3.5),
        ("\u{2581}\u{2581}", -3.0),
    ];
    let mut vocabulary: Vec<Value> = pieces.iter().map(|piece| json!(piece)).collect();
    vocabulary
        .extend((0..256).filter(|_| bytes).map(|byte| json!([format!("<0x{byte:02X}>"), -20.0])));
    let json = json!({
        "added_tokens": [{ "id": 1, "content": "</s>", "special": true }],
        "pre_tokenizer": pre_tokenizer,
        "decoder": { "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always" },
        "model": { "type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": bytes },
    });
    Spec::from_hf_bytes(Path::new("unigram.json"), json.to_string().into_bytes()).unwrap()
}

/// The pre-tokenizers of Unigram models: words at white space, words at marks, no words.
#[allow(dead_code, reason = "not every test file needs it")]
pub(crate) fn marking() -> [Value; 3] {
    let marks = |split: bool| json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": split });
    let blanks = json!({ "type": "WhitespaceSplit" });
    [
        json!({ "type": "Sequence", "pretokenizers": [blanks, marks(true)] }),
        marks(true),
        marks(false),
    ]
}

/// The text's own ids, with scratch memory of `symbols`, and the number of cuts.
pub(crate) fn encode<S: TableSource>(
    tokenizer: &mut Tokenizer<S>,
    text: &str,
    symbols: usize,
) -> (Vec<u32>, u32) {
    let mut scratch = vec![Symbol::EMPTY; symbols];
    let mut ids = Vec::new();
    let options = EncodeOptions { add_special: false, parse_special: false };
    let encoded = tokenizer.encode(text, options, &mut scratch, |id| {
        ids.push(id);
        Ok(())
    });
    (ids, encoded.unwrap().cuts)
}

/// The text of `ids`, special tokens shown.
pub(crate) fn decode<S: TableSource>(tokenizer: &mut Tokenizer<S>, ids: &[u32]) -> String {
    let mut decoder = Decoder::new(true);
    let mut text = String::new();
    for &id in ids {
        tokenizer.decode(&mut decoder, id, &mut |part| text.push_str(part)).unwrap();
    }
    decoder.finish(&mut |part| text.push_str(part));
    text
}

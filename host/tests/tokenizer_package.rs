//! What a package holds compiles to the same section as what was written into it.

mod common;

use common::{
    bytes, characters, characters_in_words, decode, encode, marking, unigram, word_piece,
};
use omex::tokenizer::{GgufVocabulary, Spec, compile};
use omex_core::token::{Decoder, EncodeOptions, Symbol, Tokenizer};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

fn shared(path: &str) -> Option<PathBuf> {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(path);
    if !full.exists() {
        println!("skipped: {} is absent", full.display());
        return None;
    }
    Some(full)
}

fn check(spec: &Spec) {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = folder.path().join("tokenizer");
    spec.write_package(&tokenizer).unwrap();
    let section = compile(spec).unwrap();
    let read = Spec::from_package(folder.path()).unwrap();
    assert!(compile(&read).unwrap() == section, "{}", spec.origin.display());
    assert!(fs::read(tokenizer.join("tokenizer.bin")).unwrap() == section);
    let lines = fs::read_to_string(tokenizer.join("vocab.txt")).unwrap().lines().count();
    assert_eq!(lines, spec.pieces.len());
}

#[test]
fn gguf_vocabularies() {
    check(&characters());
    check(&characters_in_words());
    for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2"] {
        check(&bytes(pre));
    }
}

#[test]
fn word_pieces() {
    check(&word_piece());
}

#[test]
fn unigrams() {
    for pre_tokenizer in marking() {
        check(&unigram(&pre_tokenizer, true));
    }
}

/// GGUF marks pieces that begin words, BERT's vocabulary those that go on.
#[test]
fn word_pieces_of_gguf() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab.txt");
    let mark = |piece: &str| match piece.strip_prefix("##") {
        Some(rest) => rest.to_owned(),
        None if piece.starts_with('[') && piece.ends_with(']') => piece.to_owned(),
        None => format!("\u{2581}{piece}"),
    };
    let small = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nhe\n##llo\n日\n##本\n[\n##]\n!";
    for (vocabulary, cased) in [(small.to_owned(), false), (format!("{small}\nHello"), true)] {
        fs::write(&path, &vocabulary).unwrap();
        let config = json!({ "do_lower_case": !cased }).to_string();
        fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        let tokens = vocabulary.lines().map(|piece| mark(piece).into_bytes()).collect();
        let model = "bert".to_owned();
        let vocabulary = GgufVocabulary { model, tokens, ..GgufVocabulary::default() };
        let spec = Spec::from_gguf(Path::new("gguf"), vocabulary).unwrap();
        let expected = Spec::from_vocab_txt(&path).unwrap();
        assert!(compile(&spec).unwrap() == compile(&expected).unwrap(), "{cased}");
        check(&spec);
    }
    for (tokens, said) in [
        (["[UNK]", "[x]", "\u{2581}[x]"], "[x] a second time"),
        (["[UNK]", "[CLS]", "x"], "no [SEP]"),
    ] {
        let tokens = tokens.map(|token| token.as_bytes().to_vec()).to_vec();
        let vocabulary = GgufVocabulary { model: "bert".into(), tokens, ..Default::default() };
        let error = Spec::from_gguf(Path::new("gguf"), vocabulary).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// A folder without `tokenizer.json`: the settings are those of the configuration, or BERT's.
#[test]
fn vocabulary_of_one_piece_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab.txt");
    fs::write(&path, "[PAD]\n[UNK]\n[CLS]\n[SEP]\nhe\n##llo\nHello\né\n日\n##本\n!").unwrap();
    let ids = |text: &str| {
        let spec = Spec::from_vocab_txt(&path).unwrap();
        assert_eq!((&*spec.before, &*spec.after), (&[2][..], &[3][..]));
        check(&spec);
        encode(&mut Tokenizer::open(&compile(&spec).unwrap()[..]).unwrap(), text, 64).0
    };
    assert_eq!(ids("Hello é 日本!"), [4, 5, 1, 8, 1, 10]);
    let config = folder.path().join("tokenizer_config.json");
    fs::write(&config, r#"{ "do_lower_case": false, "tokenize_chinese_chars": false }"#).unwrap();
    assert_eq!(ids("Hello é 日本!"), [6, 7, 8, 9, 10]);
    fs::write(&config, r#"{ "unk_token": { "content": "<unk>" } }"#).unwrap();
    let message = Spec::from_vocab_txt(&path).unwrap_err().to_string();
    assert!(message.contains("pieces: found no <unk>"), "{message}");
    fs::write(&path, "[UNK]\nhe\nhe\n").unwrap();
    let message = Spec::from_vocab_txt(&path).unwrap_err().to_string();
    assert!(message.contains("line 3: found he, expected different pieces"), "{message}");
}

#[test]
fn what_follows_a_prompt_keeps_its_first_space() {
    let section = compile(&characters()).unwrap();
    let mut tokenizer = Tokenizer::open(&section[..]).unwrap();
    let text = "go on 日 and é";
    let (ids, _) = encode(&mut tokenizer, text, 64);
    let (mut decoder, mut said) = (Decoder::new(true), String::new());
    for (at, id) in ids.iter().enumerate() {
        let mut after = tokenizer.decoder_after(&ids[..at], true).unwrap();
        let mut rest = String::new();
        for id in &ids[at..] {
            tokenizer.decode(&mut after, *id, &mut |part| rest.push_str(part)).unwrap();
        }
        assert_eq!(format!("{said}{rest}"), text, "behind {at} tokens");
        tokenizer.decode(&mut decoder, *id, &mut |part| said.push_str(part)).unwrap();
    }
    assert_eq!(said, text);
}

#[test]
fn llama2c_files() {
    for (file, size) in
        [("models/stories260K/tok512.bin", 512), ("models/llama2_tokenizer/tokenizer.bin", 32000)]
    {
        let Some(path) = shared(file) else { return };
        check(&Spec::from_llama2c(&path, size).unwrap());
        assert!(Spec::from_llama2c(&path, size + 1).is_err());
        // What is not read would be cut silently.
        assert!(Spec::from_llama2c(&path, size - 1).is_err());
    }
}

#[test]
fn hugging_face_files_keep_their_bytes() {
    let Some(path) = shared("models/tokenizers/minimind/tokenizer.json") else { return };
    let spec = Spec::from_hf_json(&path).unwrap();
    check(&spec);
    let folder = tempfile::tempdir().unwrap();
    spec.write_package(folder.path()).unwrap();
    assert!(fs::read(folder.path().join("tokenizer.json")).unwrap() == fs::read(path).unwrap());
}

/// GGUF stores SentencePiece's own pieces; llama2.c the same with spaces. They agree on text without U+2581.
#[test]
fn gguf_and_llama2c_agree() {
    let Some(path) = shared("models/stories260K/tok512.bin") else { return };
    let file = fs::read(&path).unwrap();
    let spec = Spec::from_llama2c(&path, 512).unwrap();
    let mut scores = Vec::new();
    let mut at = 4;
    while at < file.len() {
        scores.push(f32::from_le_bytes(file[at..at + 4].try_into().unwrap()));
        at += 8 + u32::from_le_bytes(file[at + 4..at + 8].try_into().unwrap()) as usize;
    }
    let text = |piece: &Vec<u8>| {
        String::from_utf8(piece.clone()).unwrap().replace(' ', "\u{2581}").into_bytes()
    };
    let vocabulary = GgufVocabulary {
        model: "llama".into(),
        tokens: spec.pieces.iter().map(text).collect(),
        scores,
        ..GgufVocabulary::default()
    };
    let gguf = Spec::from_gguf(Path::new("tok512.gguf"), vocabulary).unwrap();
    let sections = [compile(&spec).unwrap(), compile(&gguf).unwrap()];
    for text in ["Once upon a time, there was a little girl.", "  two  spaces\n", "日本 naïve", ""]
    {
        let [a, b] = sections.each_ref().map(|section| {
            let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
            let (ids, _) = encode(&mut tokenizer, text, 256);
            assert_eq!(decode(&mut tokenizer, &ids), text);
            ids
        });
        assert_eq!(a, b, "{text:?}");
    }
}

/// A byte-level tokenizer of one letter and some added tokens.
fn added_tokens() -> serde_json::Value {
    let added = |id: u32, content: &str, special: bool, strip: bool| {
        json!({ "id": id, "content": content, "special": special, "lstrip": strip, "rstrip": strip,
                "single_word": false, "normalized": false })
    };
    json!({
        "added_tokens": [added(3, "<x>", true, true), added(4, "<xx>", true, false), added(5, "<y>", false, false)],
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "use_regex": true },
        "decoder": { "type": "ByteLevel" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<x>" } }, { "Sequence": { "id": "A" } }, { "SpecialToken": { "id": "<xx>" } }],
            "special_tokens": { "<x>": { "ids": [3] }, "<xx>": { "ids": [4, 4] } },
        },
        "model": { "type": "BPE", "vocab": { "a": 0, "\u{120}": 1, "aa": 2 }, "merges": ["a a"] },
    })
}

#[test]
fn added_tokens_and_templates() {
    let spec =
        Spec::from_hf_bytes(Path::new("t.json"), added_tokens().to_string().into_bytes()).unwrap();
    let section = compile(&spec).unwrap();
    let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
    let mut encode = |text: &str, add_special, parse_special| {
        let (mut scratch, mut ids) = ([Symbol::EMPTY; 16], [9; 16]);
        let options = EncodeOptions { add_special, parse_special };
        let count = tokenizer.encode_into(text, options, &mut scratch, &mut ids).unwrap().ids;
        ids[..count as usize].to_vec()
    };
    assert_eq!(encode("aa", true, true), [3, 2, 4, 4]);
    // Takes the spaces around it; other characters than "a" and " " are not in the vocabulary.
    assert_eq!(encode("a  <x>  aaa", false, true), [0, 3, 2, 0]);
    assert_eq!(encode("a <xx> a", false, true), [0, 1, 4, 1, 0]);
    assert_eq!(encode("a<x>a<y>a", false, false), [0, 0, 5, 0]);
    check(&spec);
}

#[test]
fn damaged_and_unsupported_json_is_refused_with_a_reason() {
    let refused = |change: &dyn Fn(&mut serde_json::Value), reason: &str| {
        let mut json = added_tokens();
        change(&mut json);
        let error = Spec::from_hf_bytes(Path::new("t.json"), json.to_string().into_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
    };
    refused(&|j| j["model"]["type"] = json!("Unigram"), "model.type: found Unigram");
    refused(
        &|j| j["model"]["vocab"]["b"] = json!(4_000_000_000_u32),
        "model.vocab: found id 4000000000",
    );
    refused(&|j| j["model"]["vocab"]["b"] = json!(2), "different ids");
    refused(&|j| j["model"]["merges"] = json!(["a b"]), "model.merges[0]");
    refused(&|j| j["model"]["end_of_word_suffix"] = json!("</w>"), "end_of_word_suffix");
    refused(&|j| j["pre_tokenizer"]["add_prefix_space"] = json!(true), "add_prefix_space");
    refused(&|j| j["pre_tokenizer"] = json!({ "type": "BertPreTokenizer" }), "BertPreTokenizer");
    refused(&|j| j["normalizer"] = json!({ "type": "Lowercase" }), "Lowercase");
    refused(&|j| j["post_processor"]["special_tokens"] = json!({}), "post_processor.single");
    refused(&|j| j["post_processor"]["special_tokens"]["<x>"]["ids"] = json!([77]), "id 77");
    refused(&|j| j["added_tokens"][0]["single_word"] = json!(true), "single_word");
}

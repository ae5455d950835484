//! Ids and text agree with the reference implementations, string by string.

use flate2::read::GzDecoder;
use omex::tokenizer::{GgufVocabulary, Kind, Spec, compile, normalized};
use omex_core::token::{Decoder, EncodeOptions, Symbol, Tokenizer};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The test data beside the repository, or none with a line that says so.
fn shared(path: &str) -> Option<PathBuf> {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(path);
    if !full.exists() {
        println!("skipped: {} is absent", full.display());
        return None;
    }
    Some(full)
}

fn hugging_face(name: &str) -> Option<Spec> {
    let folder = shared(&format!("models/tokenizers/{name}"))?;
    let (plain, packed) = (folder.join("tokenizer.json"), folder.join("tokenizer.json.gz"));
    if plain.exists() {
        return Some(Spec::from_hf_json(&plain).unwrap());
    }
    let mut json = Vec::new();
    GzDecoder::new(fs::File::open(&packed).unwrap()).read_to_end(&mut json).unwrap();
    Some(Spec::from_hf_bytes(&packed, json).unwrap())
}

fn ids(tokenizer: &mut Tokenizer<&[u8]>, text: &str, options: EncodeOptions) -> Vec<u32> {
    let text = normalized(tokenizer, text);
    let mut scratch = vec![Symbol::EMPTY; tokenizer.scratch_for(text.len())];
    let mut ids = Vec::new();
    let encoded = tokenizer.encode(&text, options, &mut scratch, |id| {
        ids.push(id);
        Ok(())
    });
    assert_eq!(encoded.unwrap().cuts, 0);
    ids
}

fn decoded(tokenizer: &mut Tokenizer<&[u8]>, ids: &[u32], show_special: bool) -> String {
    let mut decoder = Decoder::new(show_special);
    let mut text = String::new();
    for &id in ids {
        tokenizer.decode(&mut decoder, id, &mut |part| text.push_str(part)).unwrap();
    }
    decoder.finish(&mut |part| text.push_str(part));
    text
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn cases(reference: &str) -> Vec<Value> {
    let path = shared(&format!("refs/tokenizers/{reference}.json")).unwrap();
    let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    file["cases"].as_array().unwrap().clone()
}

/// Compares every case and reports all differences at once.
fn check(
    spec: &Spec,
    reference: &str,
    compare: impl Fn(&mut Tokenizer<&[u8]>, &Value) -> Vec<(String, String)>,
) {
    let section = compile(spec).unwrap();
    let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
    let mut different = Vec::new();
    let cases = cases(reference);
    for case in &cases {
        for (found, expected) in compare(&mut tokenizer, case) {
            if found != expected {
                different.push(format!("{}\n   found {found}\nexpected {expected}", case["text"]));
            }
        }
    }
    assert!(
        different.is_empty(),
        "{reference}: {} differ\n{}",
        different.len(),
        different.join("\n")
    );
    println!("{reference}: {} strings, {} bytes of tables", cases.len(), section.len());
}

fn check_hugging_face(name: &str) {
    let Some(spec) = hugging_face(name) else { return };
    check_texts(&spec, name);
}

fn check_texts(spec: &Spec, reference: &str) {
    check(spec, reference, |tokenizer, case| {
        let text = case["text"].as_str().unwrap();
        let plain = EncodeOptions { add_special: false, parse_special: true };
        let (all, bare) = (numbers(&case["ids"]), numbers(&case["ids_no_special"]));
        vec![
            (format!("{:?}", ids(tokenizer, text, EncodeOptions::default())), format!("{all:?}")),
            (format!("{:?}", ids(tokenizer, text, plain)), format!("{bare:?}")),
            (
                format!("{:?}", decoded(tokenizer, &bare, true)),
                format!("{:?}", case["decoded"].as_str().unwrap()),
            ),
            (
                format!("{:?}", decoded(tokenizer, &all, false)),
                format!("{:?}", case["decoded_skip_special"].as_str().unwrap()),
            ),
        ]
    });
}

#[test]
fn gpt2() {
    check_hugging_face("gpt2");
}

#[test]
fn clip() {
    check_hugging_face("clip_base");
}

#[test]
fn llama2() {
    check_hugging_face("llama2");
}

#[test]
fn llama3() {
    check_hugging_face("llama3");
}

#[test]
fn qwen2() {
    check_hugging_face("qwen2");
}

#[test]
fn mistral01() {
    check_hugging_face("mistral01");
}

#[test]
fn mistral03() {
    check_hugging_face("mistral03");
}

#[test]
fn phi3() {
    check_hugging_face("phi3");
}

#[test]
fn minimind() {
    check_hugging_face("minimind");
}

#[test]
fn t5_small() {
    check_hugging_face("t5_small");
}

#[test]
fn bert_base_cased() {
    check_hugging_face("bert_base_cased");
}

#[test]
fn bert_base_uncased() {
    check_hugging_face("bert_base_uncased");
}

/// Its tokenizer is that of `bert_base_uncased`, but for what is put around texts and how long they may be.
#[test]
fn all_minilm() {
    let Some(spec) = hugging_face("bert_base_uncased") else { return };
    check_texts(&spec, "all-MiniLM-L6-v2");
}

/// Longer texts, whose ids another program (kitoken) recorded from `tokenizers`.
#[test]
fn llama3_longer_texts() {
    let Some(folder) = shared("models/tokenizers/kitoken_refs") else { return };
    let section = compile(&hugging_face("llama3").unwrap()).unwrap();
    let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let plain = EncodeOptions { add_special: false, parse_special: false };
    let mut check = |text: &str, line: &str| {
        let expected: Vec<u32> = line.split(',').map(|id| id.trim().parse().unwrap()).collect();
        assert_eq!(ids(&mut tokenizer, text, plain), expected, "{text}");
    };
    for (text, line) in
        read("small_input.txt").lines().zip(read("small_tokens_llama32.txt").lines())
    {
        let text =
            text.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t").replace("\\s", " ");
        check(&text, line);
    }
    check(&read("utf8_input.txt"), &read("utf8_tokens_llama32.txt"));
}

fn check_llama2c(file: &str, vocabulary: usize, reference: &str) {
    let Some(path) = shared(file) else { return };
    let spec = Spec::from_llama2c(&path, vocabulary).unwrap();
    check(&spec, reference, |tokenizer, case| {
        let text = case["text"].as_str().unwrap();
        let plain = EncodeOptions { add_special: false, parse_special: false };
        let expected = numbers(&case["llama2c_ids"]);
        let found = ids(tokenizer, text, plain);
        vec![
            (decoded(tokenizer, &found, true), text.to_owned()),
            (format!("{found:?}"), format!("{expected:?}")),
        ]
    });
}

#[test]
fn llama2c_tok512() {
    check_llama2c("models/stories260K/tok512.bin", 512, "sp_stories260K_tok512");
}

#[test]
fn llama2c_llama2() {
    check_llama2c("models/llama2_tokenizer/tokenizer.bin", 32000, "sp_llama2");
}

#[test]
fn what_is_not_supported_is_refused() {
    let Some(folder) = shared("models/tokenizers/clip_base") else { return };
    let packed = folder.join("tokenizer.json.gz");
    let mut json = Vec::new();
    GzDecoder::new(fs::File::open(&packed).unwrap()).read_to_end(&mut json).unwrap();
    let mut file: Value = serde_json::from_slice(&json).unwrap();
    file["model"]["end_of_word_suffix"] = "@".into();
    let message = Spec::from_hf_bytes(&packed, file.to_string().into_bytes()).unwrap_err();
    let message = message.to_string();
    assert!(message.contains("end_of_word_suffix: found @, expected </w>"), "{message}");
}

/// Lists of ranks, with what the models' own code adds to them.
#[test]
fn tiktoken_ranks() {
    for (file, reference) in
        [("llama3/tokenizer.model", "llama3"), ("qwen2/qwen.tiktoken", "qwen2")]
    {
        let Some(path) = shared(&format!("models/tokenizers/{file}")) else { return };
        let spec = Spec::from_model(&path).unwrap();
        check_texts(&spec, reference);
        spec.write_package(tempfile::tempdir().unwrap().path()).unwrap();
    }
}

/// Added tokens that are sought in normalized text, beside such that are not.
#[test]
fn normalized_added_tokens() {
    for case in ["06-added-tokens-normalized", "32-added-tokens-in-two-passes"] {
        let Some(folder) = shared(&format!("bugs/{case}")) else { return };
        let spec = Spec::from_hf_json(&folder.join("model/tokenizer.json")).unwrap();
        let section = compile(&spec).unwrap();
        let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
        let cases: Value =
            serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let found = ids(&mut tokenizer, text, EncodeOptions::default());
            assert_eq!(found, numbers(&case["ids"]), "{text}");
        }
    }
}

/// Merges of characters in a GGUF file, as Gemma 4's have them.
#[test]
fn gguf_with_merges_of_characters() {
    let Some(folder) = shared("models/tokenizers/llama2") else { return };
    let file = fs::read(folder.join("tokenizer.json")).unwrap();
    let file: Value = serde_json::from_slice(&file).unwrap();
    let ids = file["model"]["vocab"].as_object().unwrap();
    let mut tokens = vec![vec![]; ids.len()];
    for (token, id) in ids {
        tokens[id.as_u64().unwrap() as usize] = token.clone().into_bytes();
    }
    let mut token_types = vec![1; tokens.len()];
    token_types[..3].copy_from_slice(&[2, 3, 3]);
    let line = |merge: &Value| match merge.as_str() {
        Some(line) => line.to_owned(),
        None => format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()),
    };
    let vocabulary = GgufVocabulary {
        model: "gemma4".into(),
        tokens,
        token_types,
        merges: file["model"]["merges"].as_array().unwrap().iter().map(line).collect(),
        bos: Some(1),
        unknown: Some(0),
        add_space_prefix: Some(true),
        ..GgufVocabulary::default()
    };
    check_texts(&Spec::from_gguf(Path::new("gguf"), vocabulary).unwrap(), "llama2");
}

#[test]
fn sentencepiece_models() {
    for (file, reference) in [
        ("llama2_tokenizer/tokenizer.model", "sp_llama2"),
        ("tokenizers/mistral_sp_v3/tokenizer.model", "sp_mistral_sp_v3"),
        ("stories260K/tok512.model", "sp_stories260K_tok512"),
        ("tokenizers/sp_unigram_test/tokenizer.model", "sp_sp_unigram_test"),
        ("tokenizers/sp_unigram_ja_test/tokenizer.model", "sp_sp_unigram_ja_test"),
    ] {
        let Some(path) = shared(&format!("models/{file}")) else { return };
        let spec = Spec::from_sentencepiece(&path).unwrap();
        let decodes = spec.kind == Kind::Unigram;
        let section = compile(&spec).unwrap();
        let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
        let plain = EncodeOptions { add_special: false, parse_special: false };
        for case in cases(reference) {
            let text = case["text"].as_str().unwrap();
            let found = ids(&mut tokenizer, text, plain);
            assert_eq!(found, numbers(&case["ids"]), "{file}: {text:?}");
            let said = decoded(&mut tokenizer, &found, true);
            let reference = case["decoded"].as_str().unwrap();
            assert!(!decodes || said == reference, "{file}: {said:?}, {reference:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        spec.write_package(folder.path()).unwrap();
    }
}

//! Models as they are found: what their files say of tokens counts, wherever it stands.

use omex::convert::Options;
use omex::import::open;
use omex::quantize::Precision;
use omex::session::{self, Session};
use omex_core::engine::Wanted;
use omex_core::generate::Generation;
use omex_core::sample::{Sampler, Sampling};
use omex_tests::{
    Converted, Setting, json, logits, numbers, read_npy, require_shared, worst_error,
};
use std::path::Path;

fn converted(model: &Path) -> Converted {
    let source = open(model, None).unwrap();
    Converted::with(&*source, &Options { precision: Some(Precision::F32), ..Options::default() })
}

fn greedy(package: &Converted, prompt: &[u32], most: usize) -> Vec<u32> {
    let mut session = Session::open(&package.path, &session::Options::default()).unwrap();
    let mut engine = session.engine().unwrap();
    let sampler = Sampler::new(Sampling::GREEDY);
    let mut text = Generation::prefill(&mut engine, sampler, prompt).unwrap();
    std::iter::from_fn(|| text.next_token().unwrap()).take(most).collect()
}

fn ends(package: &Converted) -> Vec<u32> {
    let metadata = json(&package.path.join("metadata.json"));
    numbers(&metadata["tokens"]["eos"])
}

/// A copy of a model, whose files may be changed.
fn copy(model: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in model.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(folder.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    folder
}

#[test]
fn end_tokens_of_generation_config_end_a_text() {
    let model = require_shared!("bugs/01-eos-list-in-generation-config/model");
    let package = converted(&model);
    assert_eq!(ends(&package), [2, 220]);
    assert_eq!(greedy(&package, &[1, 260, 261], 8), [231, 218, 175]);

    let folder = copy(&model);
    let settings = folder.path().join("generation_config.json");
    // An id without a row ends nothing; a single id counts as a list does.
    std::fs::write(&settings, r#"{"eos_token_id": [220, 100000]}"#).unwrap();
    assert_eq!(ends(&converted(folder.path())), [2, 220]);
    std::fs::write(&settings, r#"{"eos_token_id": 218}"#).unwrap();
    assert_eq!(ends(&converted(folder.path())), [2, 218]);
    std::fs::write(&settings, r#"{"eos_token_id": "x"}"#).unwrap();
    let source = open(folder.path(), None).unwrap();
    let output = folder.path().join("model.omex");
    let options = Options::default();
    let refused =
        omex::convert::convert(&*source, "test", "test", &output, &options, &mut |_, _| {});
    assert!(refused.unwrap_err().to_string().contains("generation_config.json: eos_token_id"));
}

#[test]
fn end_tokens_are_known_by_their_text() {
    let model = require_shared!("bugs/03-padding-rows-end-the-run/model");
    let folder = copy(&model);
    let path = folder.path().join("tokenizer.json");
    let mut tokenizer = json(&path);
    let token = |id: u32, content: &str, special: bool| {
        serde_json::json!({ "id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": special })
    };
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    added.push(token(269, "<|im_end|>", true));
    added.push(token(270, "<|eot_id|>", false));
    added.push(token(271, "[DONE]", true));
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    assert_eq!(ends(&converted(folder.path())), [2, 269]);
    let settings = folder.path().join("tokenizer_config.json");
    std::fs::write(&settings, r#"{"eos_token": {"content": "[DONE]"}}"#).unwrap();
    assert_eq!(ends(&converted(folder.path())), [2, 271, 269]);
}

#[test]
fn rows_beyond_the_vocabulary_print_nothing() {
    let model = require_shared!("bugs/03-padding-rows-end-the-run/model");
    let package = converted(&model);
    let ids = greedy(&package, &[1, 260, 261], 6);
    assert_eq!(ids, [272, 73, 220, 88, 38, 166]);
    let session = Session::open(&package.path, &session::Options::default()).unwrap();
    assert_eq!(session.decode(&ids).unwrap(), session.decode(&ids[1..]).unwrap());
    assert_eq!(session.decode(&[1, 260, 261, 272]).unwrap(), "ab");
}

#[test]
fn blocks_of_several_types_in_one_file() {
    let folder = require_shared!("bugs/05-q4_0-file-with-q6_k-output");
    let source = open(&folder.join("model.gguf"), None).unwrap();
    let expected = json(&folder.join("expected.json"));
    let ids = numbers(&expected["ids"]);
    let last = expected["last_logits"].as_array().unwrap();
    let last: Vec<f32> = last.iter().map(|x| x.as_f64().unwrap() as f32).collect();
    for (precision, bar) in [(Some(Precision::F32), 1e-3), (None, 0.1)] {
        let package = Converted::new(&*source, precision);
        let mut session = Session::open(&package.path, &session::Options::default()).unwrap();
        let mut engine = session.engine().unwrap();
        engine.forward(&ids, Wanted::Last).unwrap();
        let largest = last.iter().fold(0f32, |most, x| most.max(x.abs()));
        let found = engine.logits(0);
        assert_eq!(found.len(), last.len());
        for (found, expected) in found.iter().zip(&last) {
            assert!((found - expected).abs() <= bar * largest, "{found}, expected {expected}");
        }
    }
}

#[test]
fn blocks_of_every_k_type_equal_the_reference() {
    let model = require_shared!("golden/gguf_kquant");
    let package = converted(&model.join("model.gguf"));
    let prompt = numbers(&json(&model.join("ref.json"))["input_ids"]);
    let found = logits(&package.path, &prompt, &Setting::default());
    let worst = worst_error(&found, &read_npy(&model.join("logits.npy")).rows);
    assert!(worst <= 1e-4, "{worst:e}");
}

//! Models as they are found: what their files say of tokens counts, wherever it stands.

use omex::convert::ConvertOptions;
use omex::import::open;
use omex::quantize::Precision;
use omex::session::{Session, SessionOptions};
use omex_core::engine::Wanted;
use omex_core::generate::Generation;
use omex_core::sample::{Sampler, Sampling};
use omex_tests::{
    Converted, Setting, json, logits, numbers, omex, omex_binary, read_npy, require_shared, run,
    run_in, shipped_model, worst_error,
};
use std::path::Path;
use std::process::Command;

fn converted(model: &Path) -> Converted {
    let source = open(model, None).unwrap();
    Converted::with(
        &*source,
        &ConvertOptions { precision: Some(Precision::F32), ..ConvertOptions::default() },
    )
}

fn greedy(package: &Converted, prompt: &[u32], most: usize) -> Vec<u32> {
    let mut session = Session::open(&package.path, &SessionOptions::default()).unwrap();
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
    let options = ConvertOptions::default();
    let refused =
        omex::convert::convert(&*source, "test", "test", &output, &options, &mut |_, _| {});
    assert!(refused.unwrap_err().to_string().contains("generation_config.json: eos_token_id"));
}

#[test]
fn more_end_tokens_than_a_program_holds_are_refused() {
    let folder = copy(&shipped_model());
    let settings = folder.path().join("generation_config.json");
    let said = |most: u32| {
        let ids: Vec<_> = (2..2 + most).collect();
        let text = serde_json::json!({ "eos_token_id": ids }).to_string();
        std::fs::write(&settings, text).unwrap();
        let output = folder.path().join(format!("{most}.omex"));
        run(omex(["convert", "--quantization", "f32"])
            .arg("--model-path")
            .arg(folder.path())
            .arg("--output-dir")
            .arg(output))
    };
    assert_eq!(said(60).code, Some(0));
    let refused = said(70);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let words = "tokens that end a text: found 70 of them, expected at most 64";
    assert!(refused.err.contains(words), "{refused:?}");
}

#[test]
fn models_of_other_programs_are_named_with_the_command_that_converts_them() {
    let folder = tempfile::tempdir().unwrap();
    let here = |args: &[&str]| run_in(folder.path(), args);
    let source = folder.path().join("My Llama-3.2");
    std::fs::create_dir(&source).unwrap();
    omex_tests::Synthetic::odd().write_hugging_face(&source);
    std::fs::write(folder.path().join("model.q8.gguf"), b"GGUF\x03\0\0\0").unwrap();
    omex_tests::Synthetic::odd().write_llama2c(&folder.path().join("stories.bin"));
    std::fs::write(folder.path().join("consolidated.00.pth"), b"PK\x03\x04rest").unwrap();
    std::fs::write(folder.path().join("lines.jsonl"), "{\"ids\": [1]}\n").unwrap();
    let convert = |from: &str, to: &str| format!("omex convert {from} --output-dir {to}");
    let whole = convert("'My Llama-3.2'", "'My Llama-3.2.omex'");
    let models = [
        ("My Llama-3.2", "found a Hugging Face folder", &whole[..]),
        ("My Llama-3.2/model.safetensors", "found weights of a Hugging Face folder", &whole),
        ("model.q8.gguf", "found a GGUF file", &convert("model.q8.gguf", "model.q8.omex")),
        ("stories.bin", "found a llama2.c file", &convert("stories.bin", "stories.omex")),
        (
            "consolidated.00.pth",
            "found a PyTorch checkpoint",
            &convert("consolidated.00.pth", "consolidated.00.omex"),
        ),
    ];
    for (model, found, remedy) in models {
        let commands: [&[&str]; 12] = [
            &["run", model, "--ids", "1"],
            &["inspect", model],
            &["validate", model],
            &["pack", model, "--ram", "64K", "-o", "card.img"],
            &["tokenize", model, "text"],
            &["logits", model, "--ids", "1"],
            &["eval", model, "--data", "lines.jsonl"],
            &["benchmark", model],
            &["profile", model],
            &["memory-trace", model, "--ids", "1"],
            &["compare", model],
            &["batch", model, "lines.jsonl", "-o", "out.jsonl"],
        ];
        for command in commands {
            let said = here(command);
            let named = said.err.contains(found) && said.err.contains(remedy);
            assert!(said.code == Some(1) && named, "{command:?}: {said:?}");
            assert!(!said.err.contains("damaged"), "{command:?}: {said:?}");
        }
    }
    let said = run(Command::new("sh")
        .args(["-c", &whole.replacen("omex", "\"$0\"", 1)])
        .arg(omex_binary())
        .current_dir(folder.path()));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(here(&["inspect", "My Llama-3.2.omex"]).code, Some(0));
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
    let session = Session::open(&package.path, &SessionOptions::default()).unwrap();
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
        let mut session = Session::open(&package.path, &SessionOptions::default()).unwrap();
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

#[test]
fn a_folder_as_meta_stores_it_gets_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("Llama-2-7b");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("params.json"), r#"{"dim": 4096, "n_layers": 32}"#).unwrap();
    for name in ["consolidated.00.pth", "tokenizer.model", "checklist.chk"] {
        std::fs::write(model.join(name), "PK\x03\x04").unwrap();
    }
    let convert = ["convert", "--model-path", "Llama-2-7b", "--output-dir", "new.omex"];
    let said = run_in(folder.path(), &convert);
    let words = ["found params.json, as Meta stores models", "convert_llama_weights_to_hf.py"];
    assert!(said.code == Some(1) && words.iter().all(|w| said.err.contains(w)), "{said:?}");
    let said = run_in(folder.path(), &["run", "Llama-2-7b", "Once"]);
    let words = ["found a folder as Meta stores models", "get the model as safetensors or GGUF"];
    assert!(said.code == Some(1) && words.iter().all(|w| said.err.contains(w)), "{said:?}");
}

#[test]
fn keys_beyond_the_range_of_the_cache_are_refused_with_the_format_that_holds_them() {
    let model = require_shared!("bugs/19-keys-too-large-for-the-f16-cache/model");
    let package = converted(&model);
    let path = package.path.to_str().unwrap();
    let with = |kv: &str| {
        run(&mut omex(["run", path, "--ids", "1,260,261", "--max-tokens", "3", "--kv", kv]))
    };
    let refused = with("f16");
    let words = "keys out of the range of the cache's format, f16: try another one with --kv";
    assert!(refused.code == Some(1) && refused.err.contains(words), "{refused:?}");
    for kv in ["f32", "int8"] {
        let said = with(kv);
        assert!(said.code == Some(0) && said.out.trim().split(',').count() == 3, "{kv}: {said:?}");
    }
}

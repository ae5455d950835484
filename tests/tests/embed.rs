//! Texts become the vectors that the reference makes of them, however many share a pass.

use omex::embed::embed;
use omex::package::{EmbeddingSettings, Package, Pooling};
use omex::quantize::Precision;
use omex::session::{Session, SessionOptions};
use omex_tests::{
    Finished, convert_from, json, json_of, numbers, omex, read_npy, require_shared, run,
    worst_error,
};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const TOLERANCE: f32 = 1e-4;

/// Copies a model with the files that sentence-transformers saves beside it.
fn with_modules(model: &Path, files: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(model.join(name), folder.path().join(name)).unwrap();
    }
    let module = |name: &str, path: &str| {
        let class = format!("sentence_transformers.models.{name}");
        json!({"idx": 0, "name": "0", "path": path, "type": class})
    };
    let modules = json!([
        module("Transformer", ""),
        module("Pooling", "1_Pooling"),
        module("Normalize", "2_N")
    ]);
    let pooling = json!({"word_embedding_dimension": 64, "pooling_mode_cls_token": false,
        "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": false});
    let texts = json!({"prompts": {"query": "query: "}, "default_prompt_name": null});
    let all = [
        ("modules.json", modules),
        ("1_Pooling/config.json", pooling),
        ("sentence_bert_config.json", json!({"max_seq_length": 40, "do_lower_case": false})),
        ("config_sentence_transformers.json", texts),
    ];
    fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    for (name, value) in all.iter().chain(files) {
        fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    folder
}

fn command(name: &str, package: &Path, more: &[&str]) -> Finished {
    run(omex([name, package.to_str().unwrap()]).args(more))
}

fn list(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[test]
fn vectors_are_the_references_in_json_and_in_numpys_format() {
    for name in ["mpnet", "xlm_roberta", "modernbert"] {
        let model = require_shared!(&format!("golden/{name}"));
        let reference = json(&model.join("ref.json"));
        let mask = numbers(&reference["attention_mask"]);
        let ids = numbers(&reference["masked_input_ids"]);
        let ids: Vec<u32> =
            ids.iter().zip(&mask).filter(|(_, m)| **m == 1).map(|(i, _)| *i).collect();
        let folder = with_modules(&model, &[]);
        let package = convert_from(folder.path(), Some(Precision::F32));
        let file = folder.path().join("out.npy");
        let more = ["--ids", &list(&ids), "--json", "-o", file.to_str().unwrap()];
        let said = json_of(&command("embed", &package.path, &more));
        let found = floats(&said["embeddings"][0]);
        let expected = floats(&reference["mean_pool_masked_l2"]);
        let worst = worst_error(&vec![found.clone()], &[expected]);
        println!("{name}: largest relative error {worst:.2e}");
        assert!(worst <= TOLERANCE, "{name}: {worst:e}");
        assert_eq!(read_npy(&file).rows, [found]);
    }
}

#[test]
fn what_fills_up_a_text_does_not_count() {
    for name in ["mpnet", "xlm_roberta", "modernbert"] {
        let model = require_shared!(&format!("golden/{name}"));
        let reference = json(&model.join("ref.json"));
        let [ids, mask] =
            ["masked_input_ids", "attention_mask"].map(|field| numbers(&reference[field]));
        let package = convert_from(&model, Some(Precision::F32));
        let [ids_of, mask_of] = [&ids, &mask].map(|numbers| list(numbers));
        let args = ["--ids", &ids_of, "--mask", &mask_of, "--json"];
        for (more, field, file) in [
            (None, "logits", "logits_masked.npy"),
            (Some("--hidden"), "hidden", "hidden_masked.npy"),
        ] {
            let more = [&args[..], more.as_slice()].concat();
            let said = json_of(&command("logits", &package.path, &more));
            let rows: Vec<_> = said[field].as_array().unwrap().iter().map(floats).collect();
            let count = mask.iter().filter(|mark| **mark == 1).count();
            assert_eq!(rows.len(), count, "{name}");
            let worst = worst_error(&rows, &read_npy(&model.join(file)).rows[..count]);
            println!("{name}, {field}: largest relative error {worst:.2e}");
            assert!(worst <= TOLERANCE, "{name}: {worst:e}");
        }
        let refused = command("logits", &package.path, &["--ids", "1,2,3", "--mask", "1,0,1"]);
        assert!(refused.code == Some(2) && refused.err.contains("--mask"), "{refused:?}");
    }
}

#[test]
fn texts_that_share_a_pass_have_the_bits_that_each_has_alone() {
    let model = require_shared!("golden/modernbert");
    let package = convert_from(&model, Some(Precision::Int8));
    let texts: Vec<Vec<u32>> =
        (1..30).map(|n| (0..n * 4 % 61 + 1).map(|i| (i * 7 + n) % 320).collect()).collect();
    let vectors = |sequences, pooling| {
        let options = SessionOptions { sequences, ..SessionOptions::default() };
        let mut session = Session::open(&package.path, &options).unwrap();
        let settings = EmbeddingSettings { pooling, normalize: true, ..Default::default() };
        let (mut passes, mut last) = (0, 0);
        let vectors = embed(&mut session, &settings, &texts, &mut |done| {
            (passes, last) = (passes + 1, done);
        });
        assert_eq!(last, texts.len());
        (vectors.unwrap(), passes)
    };
    let all = [
        Pooling::Mean,
        Pooling::MeanSqrtLength,
        Pooling::Max,
        Pooling::FirstToken,
        Pooling::LastToken,
    ];
    let alone: Vec<_> = all.iter().map(|pooling| vectors(1, *pooling).0).collect();
    for (pooling, alone) in all.into_iter().zip(&alone) {
        let (together, passes) = vectors(5, pooling);
        assert!(together == *alone, "{pooling:?}");
        assert!(passes < texts.len() / 2, "{passes} passes");
        for vector in alone {
            let length: f32 = vector.iter().map(|x| x * x).sum();
            assert!((length - 1.0).abs() < 1e-5, "{length}");
        }
    }
    assert!((1..alone.len()).all(|i| alone[i] != alone[i - 1] || i == 1), "poolings differ");
}

#[test]
fn settings_come_from_sentence_transformers_or_are_refused_by_name() {
    let model = require_shared!("golden/bert");
    let folder = with_modules(&model, &[]);
    let package = convert_from(folder.path(), Some(Precision::F32));
    let settings = Package::open(&package.path).unwrap().embedding.unwrap();
    let prompts = [("query".to_owned(), "query: ".to_owned())].into();
    let max_tokens = Some(40);
    let pooling = Pooling::Mean;
    let expected =
        EmbeddingSettings { pooling, normalize: true, max_tokens, prompts, default_prompt: None };
    assert_eq!(settings, expected);
    let valid = command("validate", &package.path, &[]);
    assert_eq!(valid.code, Some(0), "{valid:?}");
    let unknown = command("embed", &package.path, &["a", "--prompt", "passage"]);
    assert!(unknown.code == Some(2) && unknown.err.contains("the model has query"), "{unknown:?}");
    let file = package.path.join("postprocessors/embedding.json");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("true", "false")).unwrap();
    let damaged = command("embed", &package.path, &["--ids", "1,2"]);
    assert!(damaged.code == Some(1) && damaged.err.contains("crc32c"), "{damaged:?}");
    let modes = json!({"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true});
    let dense = json!([{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]);
    let outside = json!([{"type": "sentence_transformers.models.Pooling", "path": "../x"}]);
    for (file, value, word) in [
        ("modules.json", dense, "Dense"),
        ("modules.json", outside, "path"),
        ("modules.json", json!({}), "modules.json"),
        ("1_Pooling/config.json", modes, "pooling_mode"),
        ("1_Pooling/config.json", json!({"pooling_mode": "weightedmean"}), "pooling_mode"),
        ("sentence_bert_config.json", json!({"max_seq_length": -1}), "max_seq_length"),
        ("config_sentence_transformers.json", json!({"prompts": 5}), "prompts"),
    ] {
        let folder = with_modules(&model, &[(file, value)]);
        let output = folder.path().join("x.omex");
        let args = ["--model-path", ".", "--output-dir", output.to_str().unwrap()];
        let refused = run(omex(["convert"]).args(args).current_dir(folder.path()));
        assert!(refused.code == Some(1) && refused.err.contains(word), "{file}: {refused:?}");
        assert!(!output.exists());
    }
}

/// A tokenizer of letters, each a word.
fn letters() -> Value {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(str::to_owned);
    let letters = ('A'..='Z').chain('a'..='z').map(|c| c.to_string());
    let vocab: serde_json::Map<_, _> =
        special.into_iter().chain(letters).zip(0..).map(|(word, id)| (word, id.into())).collect();
    let token = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": false},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [token("[CLS]"), text, token("[SEP]")], "pair": [],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

#[test]
fn a_text_that_is_cut_is_the_mean_of_its_parts() {
    let model = require_shared!("golden/bert");
    let texts = json!({"max_seq_length": 10, "do_lower_case": true});
    let more = [("tokenizer.json", letters()), ("sentence_bert_config.json", texts)];
    let folder = with_modules(&model, &more);
    let package = convert_from(folder.path(), Some(Precision::F32));
    let valid = command("validate", &package.path, &[]);
    assert_eq!(valid.code, Some(0), "{valid:?}");
    let vector = |more: &[&str]| {
        let more = [more, &["--json"]].concat();
        floats(&json_of(&command("embed", &package.path, &more))["embeddings"][0])
    };
    // What the model was trained with is in the package.
    assert_eq!(vector(&["A b C"]), vector(&["a b c", "--no-preprocess"]));
    assert_ne!(vector(&["A b C"]), vector(&["A b C", "--no-preprocess"]));
    let parts = [vector(&["a b c d e f g h"]), vector(&["i j"])];
    let sum = |at: usize| 10.0 * parts[0][at] + 4.0 * parts[1][at];
    let length = (0..parts[0].len()).map(|at| sum(at) * sum(at)).sum::<f32>().sqrt();
    let found = vector(&["A b c d e f g h i j", "--chunk", "paragraphs"]);
    for (at, x) in found.iter().enumerate() {
        assert!((x - sum(at) / length).abs() < 1e-6, "{at}: {x}");
    }
    assert_eq!(vector(&["a b c", "--chunk", "code"]), vector(&["a b c"]));
}

#[test]
fn texts_and_vectors_are_in_the_budget() {
    let model = require_shared!("golden/bert");
    let folder = with_modules(&model, &[("tokenizer.json", letters())]);
    let package = convert_from(folder.path(), Some(Precision::F32));
    let file = folder.path().join("texts.txt");
    let said = |lines: usize| {
        fs::write(&file, "a b c d\n".repeat(lines)).unwrap();
        let out = folder.path().join("v.npy");
        let [file, out] = [&file, &out].map(|path| path.to_str().unwrap());
        command("embed", &package.path, &["--data", file, "-o", out, "--memory", "20MB"])
    };
    let few = said(20);
    assert_eq!(few.code, Some(0), "{few:?}");
    let many = said(60_000);
    assert!(many.code == Some(1) && many.err.contains("too small"), "{many:?}");
}

#[test]
fn encoders_write_no_texts_and_learned_positions_have_an_end() {
    let bert = convert_from(&require_shared!("golden/bert"), Some(Precision::F32));
    let refused = command("run", &bert.path, &["--ids", "1,2"]);
    assert!(refused.code == Some(2) && refused.err.contains("omex embed"), "{refused:?}");
    let gpt2 = convert_from(&require_shared!("golden/gpt2"), Some(Precision::F32));
    let config = json(&require_shared!("golden/gpt2/config.json"));
    let known = config["n_positions"].as_u64().unwrap() as usize;
    let more = ["--ids", "1,2", "--max-tokens", "100000", "--json"];
    let said = json_of(&command("run", &gpt2.path, &more));
    let written = said["ids"].as_array().unwrap().len();
    assert!(written + 2 == known || said["finish"] == "stop", "{written} of {known}");
    let context = (known + 1).to_string();
    let refused = command("run", &gpt2.path, &["--ids", "1,2", "--context", &context]);
    let number = format!("{known} positions");
    assert!(refused.code == Some(2) && refused.err.contains(&number), "{refused:?}");
}

/// The model lies where `OMEX_MINILM` says.
#[test]
fn minilm_means_what_it_means_to_pytorch() {
    let Some(model) = std::env::var_os("OMEX_MINILM") else {
        return println!("skipped: OMEX_MINILM names no folder of all-MiniLM-L6-v2");
    };
    let reference = json(&require_shared!("refs/minilm").join("ref.json"));
    let cases = reference["cases"].as_array().unwrap();
    for (precision, least) in [(Precision::F32, 0.999_999), (Precision::Int8, 0.999)] {
        let package = convert_from(Path::new(&model), Some(precision));
        let texts = cases.iter().map(|case| case["text"].as_str().unwrap());
        let texts: Vec<_> = ["--json", "--"].into_iter().chain(texts).collect();
        let said = json_of(&command("embed", &package.path, &texts));
        for (case, vector) in cases.iter().zip(said["embeddings"].as_array().unwrap()) {
            let [expected, found] = [&case["embedding"], vector].map(floats);
            let dot = |a: &[f32], b: &[f32]| {
                a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>()
            };
            let lengths = (dot(&expected, &expected) * dot(&found, &found)).sqrt();
            let cosine = dot(&expected, &found) / lengths;
            println!("{precision:?}: cosine {cosine:.7} of {}", case["text"]);
            assert!(cosine >= least, "{cosine}");
        }
    }
}

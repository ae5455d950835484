//! Logits and greedy tokens are those of the reference implementations.

use omex::import::open;
use omex::plan::{Kv, RunPrecision};
use omex::quantize::Precision;
use omex::reads::weight_bytes_per_token;
use omex_core::generate::Generation;
use omex_core::program::ALL;
use omex_core::sample::{Sampler, Sampling};
use omex_tests::{
    Converted, Rows, Setting, Synthetic, convert_from, greedy, greedy_logits, json, logits,
    numbers, perplexity, read_npy, require_shared, shipped_model, worst_error,
};
use serde_json::Value;
use std::path::Path;

/// How far a logit may be off, relative to the largest of its row.
const TOLERANCE: f32 = 1e-4;

fn f32_of(path: &Path) -> Converted {
    convert_from(path, Some(Precision::F32))
}

fn assert_within(what: &str, found: &Rows, expected: &[Vec<f32>], tolerance: f32) {
    let worst = worst_error(found, expected);
    println!("{what}: largest relative error {worst:.2e} over {} positions", found.len());
    assert!(worst <= tolerance, "{what}: {worst:e} > {tolerance:e}");
}

#[test]
fn tiny_llamas_equal_transformers_with_both_styles_of_config() {
    let golden = require_shared!("golden");
    for name in
        ["llama_tied", "llama_untied", "llama3_rope", "llama_linear", "llama_yarn", "llama_yarn2"]
    {
        let source = golden.join(name);
        let reference = json(&source.join("ref.json"));
        let prompt = numbers(&reference["input_ids"]);
        let expected = numbers(&reference["greedy_ids"]);
        for config in ["config.json", "config_v5.json"] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::copy(source.join(config), folder.path().join("config.json")).unwrap();
            let weights = "model.safetensors";
            std::fs::copy(source.join(weights), folder.path().join(weights)).unwrap();
            let model = f32_of(folder.path());
            let what = format!("{name} with {config}");
            let found = logits(&model.path, &prompt, &Setting::default());
            assert_within(&what, &found, &read_npy(&source.join("logits.npy")).rows, TOLERANCE);
            let (ids, rows) =
                greedy_logits(&model.path, &prompt, expected.len(), &Setting::default());
            assert_eq!(ids, expected, "{what}: greedy tokens");
            let expected = read_npy(&source.join("logits_with_greedy.npy")).rows;
            assert_within(&format!("{what}, greedy"), &rows, &expected, TOLERANCE);
        }
    }
}

/// The trained models, by the name of their references, with the files that hold them.
const TRAINED: [(&str, &str); 2] = [
    ("stories260K", "models/stories260K/stories260K.bin"),
    ("llama2xs", "models/llama2xs/model.bin"),
];

#[test]
fn trained_models_equal_the_references_from_every_source() {
    for (name, file) in TRAINED {
        let references = require_shared!(&format!("refs/{name}"));
        let reference = json(&references.join("ref.json"));
        let sources = [
            require_shared!(file),
            require_shared!(&format!("models/{name}-hf")),
            require_shared!(&format!("models/{name}-gguf/{name}-f32.gguf")),
        ];
        for source in sources {
            let model = f32_of(&source);
            for (number, case) in reference["cases"].as_array().unwrap().iter().enumerate() {
                let what =
                    format!("{name} from {}, case {number}", source.file_name().unwrap().display());
                let prompt = numbers(&case["prompt_ids"]);
                let expected = numbers(&case["greedy_ids"]);
                let (ids, _) =
                    greedy_logits(&model.path, &prompt, expected.len(), &Setting::default());
                assert_eq!(ids, expected, "{what}");
                let all = read_npy(&references.join(format!("case{number}_logits_all.npy"))).rows;
                let text = [&prompt[..], &expected].concat();
                let found = logits(&model.path, &text[..all.len()], &Setting::default());
                assert_within(&what, &found, &all, TOLERANCE);
            }
        }
    }
}

/// The perplexity texts and the greedy continuations of a trained model.
fn texts(reference: &Value) -> Vec<Vec<u32>> {
    let cases = reference["cases"].as_array().unwrap().iter();
    let greedy = cases.map(|c| [numbers(&c["prompt_ids"]), numbers(&c["greedy_ids"])].concat());
    greedy.chain([numbers(&reference["ppl_fixed_text"]["ids"])]).collect()
}

/// How many positions have the same most likely token, and how many there are.
fn agreement(a: &Path, b: &Path, texts: &[Vec<u32>]) -> (usize, usize) {
    let (mut same, mut all) = (0, 0);
    for text in texts {
        let a = greedy(&logits(a, text, &Setting::default()));
        let b = greedy(&logits(b, text, &Setting::default()));
        same += a.iter().zip(&b).filter(|(a, b)| a == b).count();
        all += text.len();
    }
    (same, all)
}

#[test]
fn int8_chooses_the_tokens_of_f32() {
    let (mut same, mut all) = (0, 0);
    for (name, file) in TRAINED {
        let reference = json(&require_shared!(&format!("refs/{name}/ref.json")));
        let source = require_shared!(file);
        let (f32, int8) = (f32_of(&source), convert_from(&source, Some(Precision::Int8)));
        let (s, a) = agreement(&f32.path, &int8.path, &texts(&reference));
        println!(
            "{name}: int8 agrees with f32 at {s} of {a} positions, {:.2} %",
            100.0 * s as f64 / a as f64
        );
        same += s;
        all += a;
        assert!(s as f64 >= 0.98 * a as f64, "{name}: {s} of {a}");
    }
    println!("int8 agrees with f32 at {same} of {all} positions");
}

#[test]
fn quantization_costs_little_perplexity() {
    for (name, file) in TRAINED {
        let reference = json(&require_shared!(&format!("refs/{name}/ref.json")));
        let source = require_shared!(file);
        let ids = numbers(&reference["ppl_fixed_text"]["ids"]);
        let measure = |precision| {
            let model = convert_from(&source, Some(precision));
            perplexity(&logits(&model.path, &ids, &Setting::default()), &ids)
        };
        let expected = reference["ppl_fixed_text_f32"].as_f64().unwrap();
        let f32 = measure(Precision::F32);
        println!("{name}: perplexity {f32:.5} at f32, reference {expected:.5}");
        assert!((f32 / expected - 1.0).abs() < 1e-4, "{name}: {f32} at f32, reference {expected}");
        for (precision, most) in [(Precision::F16, 0.0005), (Precision::Int8, 0.005)] {
            let found = measure(precision);
            let cost = found / f32 - 1.0;
            println!("{name}: perplexity {found:.5} at {precision:?}, {:+.3} %", 100.0 * cost);
            assert!(cost.abs() <= most, "{name}: {precision:?} costs {:+.3} %", 100.0 * cost);
        }
    }
}

/// Texts that a model writes itself: as many tokens as it takes to measure half a percent.
fn own_texts(model: &Path, count: u64, length: usize) -> Vec<Vec<u32>> {
    let mut session = Setting::default().open(model, 1).unwrap();
    let mut engine = session.engine().unwrap();
    let write = |seed| {
        engine.reset();
        let sampler = Sampler::new(Sampling { temperature: 1.0, seed, ..Sampling::GREEDY });
        let mut text = Generation::prefill(&mut engine, sampler, &[1]).unwrap();
        let ids = std::iter::from_fn(|| text.next_token().unwrap());
        [1].into_iter().chain(ids.take(length - 1)).collect()
    };
    (0..count).map(write).collect()
}

/// The perplexity of several texts together.
fn perplexity_of_all(model: &Path, texts: &[Vec<u32>], setting: &Setting<'_>) -> f64 {
    let tokens: usize = texts.iter().map(|text| text.len() - 1).sum();
    let nats = texts
        .iter()
        .map(|ids| (ids.len() - 1) as f64 * perplexity(&logits(model, ids, setting), ids).ln());
    (nats.sum::<f64>() / tokens as f64).exp()
}

/// The base planes are what int4 is, to the bit; with the residual planes, int8 is hardly better.
#[test]
fn planes_are_int4_alone_and_int8_together() {
    for (name, file) in TRAINED {
        let source = open(&require_shared!(file), None).unwrap();
        let [f32, int8, int4] = [Precision::F32, Precision::Int8, Precision::Int4]
            .map(|precision| Converted::new(&*source, Some(precision)));
        let planes = Converted::in_planes(&*source);
        let texts = own_texts(&f32.path, 16, 240);
        let [base, full] = [RunPrecision::Base, RunPrecision::Full]
            .map(|precision| Setting { precision, ..Setting::default() });
        let read = |model: &Converted, setting| logits(&model.path, &texts[0], setting);
        assert!(read(&planes, &base) == read(&int4, &full), "{name}: base planes are not int4");
        let [f32, int8, int4, planes] = [f32, int8, int4, planes].map(|model| {
            let perplexity = perplexity_of_all(&model.path, &texts, &full);
            let bytes = full.open(&model.path, 1).unwrap();
            let bytes = weight_bytes_per_token(&bytes.program().unwrap(), ALL);
            println!("{name}, {}: {perplexity:.5}, {bytes} bytes a pass", quantization(&model));
            perplexity
        });
        let (cost, of_int8) = (planes / f32 - 1.0, int8 / f32 - 1.0);
        assert!(cost < of_int8 + 0.002, "{name}: costs {cost}, int8 {of_int8}");
        assert!(planes < int4, "{name}: {planes}, int4 {int4}");
    }
}

fn quantization(model: &Converted) -> String {
    json(&model.path.join("metadata.json"))["model_architecture"]["quantization"].to_string()
}

/// Rounding moves the perplexity of 112 tokens by up to a percent, either way: thousands tell more.
#[test]
fn an_int8_cache_costs_little_perplexity() {
    for (name, file) in TRAINED {
        let reference = json(&require_shared!(&format!("refs/{name}/ref.json")));
        let source = require_shared!(file);
        let model = convert_from(&source, Some(Precision::Int8));
        let fixed = vec![numbers(&reference["ppl_fixed_text"]["ids"])];
        let own = own_texts(&f32_of(&source).path, 64, 240);
        for (what, texts) in [("a fixed text", fixed), ("its own texts", own)] {
            let tokens: usize = texts.iter().map(|text| text.len() - 1).sum();
            let [half, int8] = [Kv::F16, Kv::Int8].map(|kv| {
                let setting = Setting { kv: Some(kv), ..Setting::default() };
                perplexity_of_all(&model.path, &texts, &setting)
            });
            let cost = 100.0 * (int8 / half - 1.0);
            println!(
                "{name}, {what}, {tokens} tokens: {half:.5}, {int8:.5} with an int8 cache, {cost:+.3} %"
            );
            let most = if tokens < 1000 { 1.0 } else { 0.5 };
            assert!(cost.abs() < most, "{name}: an int8 cache costs {cost:+.3} % of {what}");
        }
    }
}

#[test]
fn int4_costs_at_most_4_percent_of_perplexity_and_less_than_q4_0() {
    let mut misses = vec![];
    for (name, file) in TRAINED {
        let reference = json(&require_shared!(&format!("refs/{name}/ref.json")));
        let ids = numbers(&reference["ppl_fixed_text"]["ids"]);
        let f32 = reference["ppl_fixed_text_f32"].as_f64().unwrap();
        let model = convert_from(&require_shared!(file), Some(Precision::Int4));
        let found = perplexity(&logits(&model.path, &ids, &Setting::default()), &ids);
        let cost = 100.0 * (found / f32 - 1.0);
        println!("{name}: perplexity {found:.5} at Int4, {cost:+.3} %");
        if cost > 4.0 {
            misses.push(format!("{name} {cost:+.3} %"));
        }
        let q4_0 = require_shared!(&format!("models/{name}-gguf/{name}-q4_0.gguf"));
        let q4_0 = perplexity(&logits(&f32_of(&q4_0).path, &ids, &Setting::default()), &ids);
        println!("{name}: perplexity {q4_0:.5} with the weights of Q4_0");
        assert!(found < q4_0, "{name}: {found}, Q4_0 {q4_0}");
    }
    assert!(misses.is_empty(), "{misses:?}, at most 4 %");
}

/// The model that ships, against what transformers computed of it: what a newcomer has, without any
/// test data.
#[test]
fn the_shipped_model_equals_transformers_and_survives_quantization() {
    let reference = json(&shipped_model().join("generation_check.json"));
    let model = |precision| convert_from(&shipped_model(), Some(precision));
    let f32 = model(Precision::F32);
    let mut texts = vec![];
    for case in reference["generation"].as_array().unwrap() {
        let (prompt, expected) = (numbers(&case["prompt_ids"]), numbers(&case["greedy_ids"]));
        let (ids, _) = greedy_logits(&f32.path, &prompt, expected.len(), &Setting::default());
        assert_eq!(ids, expected, "{}", case["prompt"]);
        texts.push([prompt, expected].concat());
    }
    let story = numbers(&reference["perplexity"]["ids"]);
    let measure =
        |model: &Converted| perplexity(&logits(&model.path, &story, &Setting::default()), &story);
    let found = measure(&f32);
    let expected = reference["perplexity"]["perplexity"].as_f64().unwrap();
    assert!((found / expected - 1.0).abs() < 1e-4, "{found} at f32, reference {expected}");
    texts.push(story.clone());
    let int8 = model(Precision::Int8);
    let (same, all) = agreement(&f32.path, &int8.path, &texts);
    println!("tiny-stories: int8 agrees with f32 at {same} of {all} positions");
    assert!(same as f64 >= 0.98 * all as f64, "{same} of {all}");
    for (model, most) in [(int8, 0.005), (model(Precision::Int4), 0.04)] {
        let cost = measure(&model) / found - 1.0;
        println!(
            "tiny-stories: {} costs {:+.3} % of perplexity",
            model.path.display(),
            100.0 * cost
        );
        assert!(cost <= most, "{cost}");
    }
}

/// The same weights by three ways in: as they are, from a Hugging Face folder, from a llama2.c file.
#[test]
fn shapes_that_are_multiples_of_nothing_agree_whatever_the_source() {
    for model in [Synthetic::odd(), Synthetic::odd_untied()] {
        let folder = tempfile::tempdir().unwrap();
        let hugging_face = folder.path().join("hugging-face");
        let llama2c = folder.path().join("model.bin");
        model.write_hugging_face(&hugging_face);
        model.write_llama2c(&llama2c);
        let ids: Vec<u32> = (0..30).map(|i| i * 37 % 131).collect();
        let direct =
            logits(&Converted::new(&model, Some(Precision::F32)).path, &ids, &Setting::default());
        assert!(
            greedy(&direct).windows(2).any(|pair| pair[0] != pair[1]),
            "a model that says something"
        );
        for source in [hugging_face, llama2c] {
            let found = logits(&f32_of(&source).path, &ids, &Setting::default());
            assert_within(&source.display().to_string(), &found, &direct, 1e-6);
        }
        // Random weights leave no margins: coarser formats only have to stay near.
        for (precision, tolerance) in
            [(Precision::F16, 0.005), (Precision::Int8, 0.05), (Precision::Int4, 0.7)]
        {
            let found =
                logits(&Converted::new(&model, Some(precision)).path, &ids, &Setting::default());
            assert_within(&format!("{precision:?}"), &found, &direct, tolerance);
        }
    }
}

/// The reference dequantizes weights and keeps activations in floats. Converted to f32, the same
/// numbers meet; taken over as they are, our activations are rounded to 8 bits a group, which moves
/// logits by the tolerances below.
#[test]
fn gguf_files_equal_gguf_pys_dequantized_weights() {
    for (name, _) in TRAINED {
        let folder = require_shared!(&format!("models/{name}-gguf"));
        let index = json(&folder.join("index.json"));
        let encodings = [
            ("F32", None),
            ("F16", None),
            ("BF16", None),
            ("Q8_0", Some(0.05)),
            ("Q4_0", Some(0.05)),
        ];
        for (encoding, as_it_is) in encodings {
            let entry = &index[encoding];
            let file = folder.join(entry["file"].as_str().unwrap());
            let logits_file = entry["logits_first12"].as_str().unwrap();
            let expected = read_npy(&folder.join(logits_file)).rows;
            let (prompt, ids) = (numbers(&entry["prompt_ids"]), numbers(&entry["greedy_ids"]));
            let text = [&prompt[..], &ids].concat();
            let model = f32_of(&file);
            let found = logits(&model.path, &text[..expected.len()], &Setting::default());
            assert_within(&format!("{name} {encoding} to f32"), &found, &expected, TOLERANCE);
            let (greedy, _) = greedy_logits(&model.path, &prompt, ids.len(), &Setting::default());
            assert_eq!(greedy, ids, "{name} {encoding}");
            if let Some(tolerance) = as_it_is {
                let kept = convert_from(&file, None);
                let found = logits(&kept.path, &text[..expected.len()], &Setting::default());
                assert_within(&format!("{name} {encoding} as it is"), &found, &expected, tolerance);
            }
        }
    }
}

//! Pairs of texts get the scores that transformers gives them: tests/rerankers has small models of random
//! weights, with their tokenizers, and `make.py`, which wrote them.

use omex::package::{Package, PairPart, RerankSettings, ScoreActivation};
use omex::quantize::Precision;
use omex::rerank::{pair, scores};
use omex::session::{Session, SessionOptions, Tables};
use omex_core::token::EncodeOptions;
use omex_tests::{
    Converted, Finished, convert_from, json, json_of, numbers, omex, run, run_with, tensors,
    worst_error, write_safetensors,
};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const TOLERANCE: f32 = 1e-4;
const MODELS: [&str; 3] = ["bert", "xlm_roberta", "modernbert"];

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rerankers").join(name)
}

/// Copies a model, with other fields in one of its files.
fn changed(name: &str, file: &str, fields: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in fs::read_dir(model(name)).unwrap().map(|entry| entry.unwrap().path()) {
        fs::copy(&name, folder.path().join(name.file_name().unwrap())).unwrap();
    }
    let mut all = json(&folder.path().join(file));
    for (name, value) in fields.as_object().unwrap() {
        all[name] = value.clone();
    }
    fs::write(folder.path().join(file), all.to_string()).unwrap();
    folder
}

fn command(name: &str, package: &Converted, more: &[&str]) -> Finished {
    run(omex([name, package.path.to_str().unwrap()]).args(more))
}

fn settings(package: &Converted) -> RerankSettings {
    Package::open(&package.path).unwrap().rerank.unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn pairs(reference: &Value) -> &[Value] {
    reference["pairs"].as_array().unwrap()
}

fn texts(pair: &Value) -> [&str; 2] {
    ["query", "document"].map(|text| pair[text].as_str().unwrap())
}

/// What `omex rerank --logits` makes of one document.
fn found(package: &Converted, pair: &Value) -> Vec<f32> {
    let [query, document] = texts(pair);
    let said = json_of(&command("rerank", package, &[query, document, "--logits", "--json"]));
    let result = &said["results"][0];
    assert_eq!(result["index"], 0);
    match &result["scores"] {
        Value::Null => vec![result["relevance_score"].as_f64().unwrap() as f32],
        several => floats(several),
    }
}

#[test]
fn scores_are_those_of_the_reference() {
    for name in MODELS {
        let reference = json(&model(name).join("ref.json"));
        let package = convert_from(&model(name), Some(Precision::F32));
        let rows: Vec<_> = pairs(&reference).iter().map(|pair| found(&package, pair)).collect();
        let expected: Vec<_> =
            pairs(&reference).iter().map(|pair| floats(&pair["logits"])).collect();
        let worst = worst_error(&rows, &expected);
        println!("{name}: largest relative error {worst:.2e}");
        assert!(worst <= TOLERANCE, "{name}: {worst:e}");
    }
}

/// ModernBERT as GGUF files have a place for it: with a head that adds nothing before its norm.
fn unbiased() -> tempfile::TempDir {
    let folder = changed("modernbert", "config.json", &json!({"classifier_bias": false}));
    let weights = folder.path().join("model.safetensors");
    let mut tensors = tensors(&weights);
    tensors.retain(|(name, _, _)| name != "head.dense.bias");
    // Nor do they say how many tokens of a text count.
    fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    write_safetensors(&weights, &tensors);
    folder
}

/// Writes a package as a GGUF file.
fn exported(package: &Converted) -> (PathBuf, Finished) {
    let file = package.folder.path().join("model.gguf");
    let args = ["export", package.path.to_str().unwrap(), "--format", "gguf", "-o"];
    let said = run(omex(args).arg(&file));
    (file, said)
}

#[test]
fn scores_are_the_same_where_the_model_comes_from_a_gguf_file() {
    let unbiased = unbiased();
    let models = ["bert", "xlm_roberta"].map(|name| (name, model(name)));
    for (name, folder) in models.into_iter().chain([("modernbert", unbiased.path().to_owned())]) {
        let reference = json(&model(name).join("ref.json"));
        let package = convert_from(&folder, Some(Precision::F32));
        let (file, said) = exported(&package);
        assert_eq!(said.code, Some(0), "{name}: {said:?}");
        let again = convert_from(&file, Some(Precision::F32));
        let template = |package| settings(package).template;
        assert_eq!(template(&again), template(&package), "{name}");
        for pair in pairs(&reference) {
            assert_eq!(found(&again, pair), found(&package, pair), "{name}: {pair}");
        }
    }
}

#[test]
fn heads_that_gguf_files_have_no_place_for_are_refused() {
    // llama.cpp adds nothing, and sorts the mean.
    let from_first = unbiased();
    let settings = from_first.path().join("config.json");
    let mut config = json(&settings);
    config["classifier_pooling"] = "cls".into();
    fs::write(&settings, config.to_string()).unwrap();
    let cases = [
        (model("modernbert"), "head.dense.bias"),
        (from_first.path().to_owned(), "which a GGUF file"),
    ];
    for (folder, word) in cases {
        let (file, said) = exported(&convert_from(&folder, Some(Precision::F32)));
        assert!(said.code == Some(1) && said.err.contains(word), "{said:?}");
        assert!(said.err.contains("--format safetensors") && !file.exists(), "{said:?}");
    }
}

#[test]
fn a_single_score_is_the_sigmoid_where_nothing_else_is_said() {
    let reference = json(&model("xlm_roberta").join("ref.json"));
    let package = convert_from(&model("xlm_roberta"), Some(Precision::F32));
    for case in pairs(&reference) {
        let [query, document] = texts(case);
        let said = json_of(&command("rerank", &package, &[query, document, "--json"]));
        let score = said["results"][0]["relevance_score"].as_f64().unwrap();
        let expected = case["sigmoid"][0].as_f64().unwrap();
        assert!((score - expected).abs() < 1e-6, "{score} instead of {expected}");
    }
}

#[test]
fn modernbert_is_told_from_the_first_token_where_its_config_says_so() {
    let reference = json(&model("modernbert").join("ref.json"));
    let folder = changed("modernbert", "config.json", &json!({"classifier_pooling": "cls"}));
    let package = convert_from(folder.path(), Some(Precision::F32));
    let rows: Vec<_> = pairs(&reference).iter().map(|pair| found(&package, pair)).collect();
    let expected: Vec<_> = reference["cls"].as_array().unwrap().iter().map(floats).collect();
    let worst = worst_error(&rows, &expected);
    assert!(worst <= TOLERANCE, "{worst:e}");
}

#[test]
fn pairs_have_the_references_ids_and_segments() {
    for name in MODELS {
        let reference = json(&model(name).join("ref.json"));
        let package = convert_from(&model(name), Some(Precision::F32));
        let settings = settings(&package);
        let tables = Tables::open(&package.path).unwrap();
        let context = tables.plan(&SessionOptions::default()).unwrap().context;
        let most = settings.max_tokens.unwrap_or(context) as usize;
        for case in pairs(&reference) {
            let options = EncodeOptions { add_special: false, parse_special: false };
            let [query, document] =
                texts(case).map(|text| tables.encode(text, options, u64::MAX).unwrap());
            let (tokens, _) = pair(&settings.template, &query, &document, most).unwrap();
            let (ids, segments): (Vec<_>, Vec<_>) = tokens.into_iter().unzip();
            assert_eq!(ids, numbers(&case["ids"]), "{name}: {case}");
            if case["segments"].is_array() {
                let segments: Vec<_> = segments.into_iter().map(u32::from).collect();
                assert_eq!(segments, numbers(&case["segments"]), "{name}: {case}");
            }
        }
    }
}

#[test]
fn logits_are_those_of_the_classes_and_depend_on_segments() {
    let reference = json(&model("bert").join("ref.json"));
    let package = convert_from(&model("bert"), Some(Precision::F32));
    let case = &pairs(&reference)[0];
    let list = |field: &str| {
        numbers(&case[field]).iter().map(u32::to_string).collect::<Vec<_>>().join(",")
    };
    let (ids, segments) = (list("ids"), list("segments"));
    let logits = |more: &[&str]| {
        let said =
            json_of(&command("logits", &package, &[&["--ids", &ids, "--json"], more].concat()));
        said["logits"].as_array().unwrap().iter().map(floats).collect::<Vec<_>>()
    };
    let rows = logits(&["--segments", &segments]);
    assert!(worst_error(&rows, &[floats(&case["logits"])]) <= TOLERANCE);
    assert_ne!(logits(&[]), rows);
    for (segments, said) in [
        ("0,1", &*format!("expected {}", numbers(&case["ids"]).len())),
        (&*segments.replace('1', "2"), "segment 2"),
    ] {
        let refused = command("logits", &package, &["--ids", &ids, "--segments", segments]);
        assert!(refused.code != Some(0) && refused.err.contains(said), "{refused:?}");
    }
}

#[test]
fn pairs_that_share_a_pass_have_the_bits_that_each_has_alone() {
    for name in MODELS {
        let package = convert_from(&model(name), Some(Precision::Int8));
        let token = |n: u32, i: u32| ((i * 7 + n) % 36, u8::from(name == "bert" && i > n));
        let pair = |n: u32| (0..n * 5 % 29 + 1).map(|i| token(n, i)).collect();
        let pairs: Vec<Vec<(u32, u8)>> = (1..25).map(pair).collect();
        let of = |sequences| {
            let options =
                SessionOptions { sequences, logit_columns: sequences, ..SessionOptions::default() };
            let mut session = Session::open(&package.path, &options).unwrap();
            let (mut passes, mut last) = (0, 0);
            let mut count = |done| (passes, last) = (passes + 1, done);
            let scores = scores(&mut session, &pairs, &mut count).unwrap();
            assert_eq!(last, pairs.len());
            (scores, passes)
        };
        let (alone, passes) = of(1);
        assert_eq!(passes, pairs.len());
        let (together, passes) = of(6);
        assert!(together == alone && passes < pairs.len() * 2 / 3, "{name}: {passes} passes");
    }
}

const DOCUMENTS: [&str; 4] = ["it rains today", "a friend wrote it", "the book", "who is it?"];

#[test]
fn the_best_come_first_with_what_the_model_makes_of_its_scores() {
    let package = convert_from(&model("xlm_roberta"), Some(Precision::F32));
    let ranked = |more: &[&str]| {
        let query = [&["who wrote the book?", "--json"], more].concat();
        let said = json_of(&command("rerank", &package, &query));
        let results = said["results"].as_array().unwrap().clone();
        let number = |name: &str, of: &Value| of[name].as_f64().unwrap();
        let row = |of: &Value| (number("index", of) as usize, number("relevance_score", of));
        results.iter().map(row).collect::<Vec<_>>()
    };
    let scored = ranked(&DOCUMENTS);
    assert!(scored.is_sorted_by(|a, b| a.1 > b.1) && scored.len() == 4, "{scored:?}");
    let of_logits = ranked(&[&DOCUMENTS[..], &["--logits"]].concat());
    assert!(scored.iter().map(|(index, _)| index).eq(of_logits.iter().map(|(index, _)| index)));
    assert_eq!(ranked(&[&DOCUMENTS[..], &["--top", "2"]].concat()), scored[..2]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("documents.jsonl");
    let lines: Vec<_> = DOCUMENTS.iter().map(|text| json!({"text": text}).to_string()).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    assert_eq!(ranked(&["--data", file.to_str().unwrap(), "--parallel", "1"]), scored);
    let shown = command("rerank", &package, &[&["who wrote the book?"], &DOCUMENTS[..]].concat());
    let first = format!("{:.4}  {}: {}\n", scored[0].1, scored[0].0, DOCUMENTS[scored[0].0]);
    assert!(shown.out.starts_with(&first), "{shown:?}");
}

#[test]
fn what_is_cut_is_told_or_refused() {
    let package = convert_from(&model("bert"), Some(Precision::F32));
    let long = "the book was written by a friend of hers ".repeat(4);
    let told = command("rerank", &package, &["who?", "it", &long, "--json"]);
    assert!(told.code == Some(0) && told.err.contains("1 documents have more than 40"), "{told:?}");
    let refused = command("rerank", &package, &["who?", "it", &long, "--strict"]);
    assert!(refused.code == Some(2) && refused.err.contains("--strict"), "{refused:?}");
}

/// What is said of documents in a file, or on standard input where it is `-`.
fn of_data(package: &Converted, file: &str, input: &str, more: &[&str]) -> Finished {
    let mut command = omex(["rerank", package.path.to_str().unwrap(), "who wrote the book?"]);
    run_with(command.args(["--data", file]).args(more), input)
}

/// Documents by their numbers, in this order.
fn scores_by_index(said: &Finished) -> Vec<f64> {
    let mut results = json_of(said)["results"].as_array().unwrap().clone();
    results.sort_by_key(|result| result["index"].as_u64());
    let indexes = results.iter().map(|result| result["index"].as_u64().unwrap());
    assert!(indexes.eq(0..results.len() as u64), "{results:?}");
    results.iter().map(|result| result["relevance_score"].as_f64().unwrap()).collect()
}

#[test]
fn documents_have_the_numbers_of_their_lines() {
    let package = convert_from(&model("bert"), Some(Precision::F32));
    let folder = tempfile::tempdir().unwrap();
    let [file, lines] = ["d.txt", "d.jsonl"].map(|name| folder.path().join(name));
    let [path, objects] = [&file, &lines].map(|path| path.to_str().unwrap());
    let [first, second] = [DOCUMENTS[0], DOCUMENTS[1]];
    let text = format!("{first}\n\n{second}\n \n\n");
    fs::write(&file, &text).unwrap();
    let found = scores_by_index(&of_data(&package, path, "", &["--json"]));
    let given = command("rerank", &package, &["who wrote the book?", first, "", second, "--json"]);
    assert_eq!(
        found,
        scores_by_index(&given),
        "a blank line is a document, those at the end are none"
    );
    assert_eq!(scores_by_index(&of_data(&package, "-", &text, &["--json"])), found);

    let text =
        format!("{}\n{}\n{}\n\n", json!(first), json!({"text": ""}), json!({"text": second}));
    fs::write(&lines, &text).unwrap();
    assert_eq!(scores_by_index(&of_data(&package, objects, "", &["--json"])), found);
    assert_eq!(scores_by_index(&of_data(&package, "-", &text, &["--jsonl", "--json"])), found);
    let missed = of_data(&package, "-", &json!({"text": first}).to_string(), &["--json"]);
    assert!(missed.code == Some(0) && missed.err.contains("--jsonl"), "{missed:?}");
    let blank = of_data(&package, "-", "\"a\"\n\n\"b\"\n", &["--jsonl"]);
    assert!(blank.code == Some(1) && blank.err.contains("standard input: line 2"), "{blank:?}");
}

#[test]
fn documents_that_leave_no_room_are_refused_before_all_are_tokens() {
    let package = convert_from(&model("bert"), Some(Precision::F32));
    let said = |memory: &str, count: usize| {
        let text = format!("{}\n", "the book ".repeat(100)).repeat(count);
        of_data(&package, "-", &text, &["--memory", memory, "--json"])
    };
    assert_eq!(said("20MB", 3).code, Some(0));
    let many = said("20MB", 8000);
    let first = many.err.split("the first ").nth(1).and_then(|rest| rest.split(' ').next());
    let first: usize =
        first.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{many:?}"));
    assert!(many.code == Some(1) && (1..8000).contains(&first), "{many:?}");
    let model = said("10KB", 3);
    assert!(model.code == Some(1) && model.err.contains("bytes too small"), "{model:?}");
}

#[test]
fn settings_are_those_that_sentence_transformers_would_use() {
    let of = |name: &str| settings(&convert_from(&model(name), None));
    assert_eq!((of("bert").activation, of("bert").max_tokens), (ScoreActivation::Identity, None));
    assert_eq!(of("xlm_roberta").activation, ScoreActivation::Sigmoid);
    let several = of("modernbert");
    assert_eq!((several.activation, several.max_tokens), (ScoreActivation::Identity, Some(30)));
    let old = json!({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"});
    let folder = changed("xlm_roberta", "config.json", &old);
    let old = settings(&convert_from(folder.path(), None));
    assert_eq!(old.activation, ScoreActivation::Identity);
    let folder = changed("bert", "tokenizer.json", &json!({"post_processor": null}));
    let template = settings(&convert_from(folder.path(), None)).template;
    let expected = [PairPart::Query { segment: 0 }, PairPart::Document { segment: 1 }];
    assert_eq!(template, expected);
}

#[test]
fn what_can_not_be_compared_is_refused_by_name() {
    let processor = |pair: Value| {
        let tokens = json!({"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}});
        let single = json!([{"Sequence": {"id": "A", "type_id": 0}}]);
        json!({"post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair,
            "special_tokens": tokens}})
    };
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let unknown = json!([{"SpecialToken": {"id": "[X]", "type_id": 0}}]);
    for (file, fields, word) in [
        (
            "config.json",
            json!({"sentence_transformers": {"activation_fn": "os.system"}}),
            "os.system",
        ),
        ("config.json", json!({"id2label": {}}), "id2label"),
        ("config.json", json!({"id2label": {"0": "a", "1": "b"}}), "classifier"),
        ("tokenizer.json", processor(json!([sequence("A")])), "post_processor.pair"),
        ("tokenizer.json", processor(unknown), "post_processor.pair"),
    ] {
        let folder = changed("bert", file, &fields);
        let output = folder.path().join("x.omex");
        let args = ["--model-path", ".", "--output-dir", output.to_str().unwrap()];
        let refused = run(omex(["convert"]).args(args).current_dir(folder.path()));
        assert!(refused.code == Some(1) && refused.err.contains(word), "{file}: {refused:?}");
        assert!(!output.exists());
    }
    let package = convert_from(&model("bert"), None);
    let several = convert_from(&model("modernbert"), None);
    for (package, more, word) in [
        (&package, &["who?"][..], "no documents"),
        (&several, &["who?", "it", "--top", "1"], "several scores"),
    ] {
        let refused = command("rerank", package, more);
        assert!(refused.code == Some(2) && refused.err.contains(word), "{refused:?}");
    }
    let file = package.path.join("postprocessors/rerank.json");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("\"identity\"", "\"sigmoid\""))
        .unwrap();
    let damaged = command("rerank", &package, &["who?", "it"]);
    assert!(damaged.code == Some(1) && damaged.err.contains("crc32c"), "{damaged:?}");
    fs::remove_file(&file).unwrap();
    let missing = command("rerank", &package, &["who?", "it"]);
    assert!(missing.code == Some(1) && missing.err.contains("rerank.json"), "{missing:?}");
}

//! `omex convert` says what it found, what it writes and how close that is, and needs nothing that a user
//! can't know.

use omex::cancel::Cancel;
use omex::convert::{Checked, Comparison, ConvertOptions, check, convert};
use omex::export::{Dtype, gguf};
use omex::import::open;
use omex::package::Package;
use omex::quantize::Precision;
use omex_tests::{Converted, json_of, require_shared, run_in, shared, shipped_model};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a package says of the model in floats, or at int8.
fn compared(source: &Path, precision: Precision) -> Checked {
    let folder = tempfile::tempdir().unwrap();
    let (path, source) = (folder.path().join("m.omex"), Arc::from(open(source, None).unwrap()));
    let options = ConvertOptions { precision: Some(precision), ..Default::default() };
    convert(&*source, "any", "m", &path, &options, &mut |_, _| {}).unwrap();
    check(&source, &path, &options).unwrap()
}

/// The folder that holds the model that ships, as another one.
fn copy_of_shipped(folder: &Path) -> PathBuf {
    let copy = folder.join("source");
    std::fs::create_dir(&copy).unwrap();
    for file in shipped_model().read_dir().unwrap().map(|file| file.unwrap().path()) {
        std::fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    copy
}

fn change(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(file, value.to_string()).unwrap();
}

#[test]
fn a_model_alone_is_enough_to_convert_it() {
    let folder = tempfile::tempdir().unwrap();
    let here = |args: &[&str]| run_in(folder.path(), args);
    let source = shipped_model();
    let model = source.to_str().unwrap();
    let planned = here(&["convert", model, "--dry-run"]);
    assert!(planned.code == Some(0), "{planned:?}");
    for part in ["387936 parameters", "38 F16", "tokenizer.json", "tiny-stories.omex: int8"] {
        assert!(planned.out.contains(part), "{part}: {planned:?}");
    }
    assert!(!folder.path().join("tiny-stories.omex").exists(), "a dry run writes nothing");
    let said = json_of(&here(&["convert", model, "--json"]));
    assert_eq!(
        (&said["path"], &said["quantization"]),
        (&json!("tiny-stories.omex"), &json!("int8"))
    );
    assert_eq!(said["found"]["dtypes"], json!({ "F16": 38 }));
    assert_eq!(said["found"]["source_bytes"], 775_872);
    assert_eq!(said["planned"]["weight_bytes"], said["weight_bytes"]);
    let (seconds, speed) =
        (said["seconds"].as_f64().unwrap(), said["source_bytes_per_second"].as_f64().unwrap());
    assert!(seconds > 0.0 && (seconds * speed - 775_872.0).abs() < 1.0, "{said}");
    let errors = said["rounded"].as_array().unwrap().iter().map(|t| t["error"].as_f64().unwrap());
    assert!(errors.clone().count() > 10 && errors.clone().all(|e| e > 0.001 && e < 0.01), "{said}");
    let compared = &said["check"]["compared"];
    assert!(compared["kl_divergence"].as_f64().unwrap() < 0.02, "{compared}");
    assert!(compared["top1_agreement"].as_f64().unwrap() > 0.8, "{compared}");
    let again = here(&["convert", model]);
    assert!(again.code != Some(0) && again.err.contains("use --force to replace it"), "{again:?}");
    let forced = here(&["convert", model, "--force", "--no-check"]);
    assert!(forced.code == Some(0) && !forced.out.contains("compared"), "{forced:?}");
}

#[test]
fn all_that_is_not_supported_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let source = copy_of_shipped(folder.path());
    change(&source.join("config.json"), |config| {
        config["clip_qkv"] = json!(3);
        config["logits_scaling"] = json!(7);
    });
    change(&source.join("tokenizer.json"), |tokenizer| {
        tokenizer["normalizer"] = json!({ "type": "Rot13" });
    });
    let dry = run_in(folder.path(), &["convert", "source", "--dry-run", "--json"]);
    let said: Value = serde_json::from_str(dry.out.lines().next().unwrap()).unwrap();
    let problems = said["found"]["problems"].as_array().unwrap();
    for name in ["clip_qkv", "logits_scaling", "Rot13"] {
        let named = |problem: &Value| problem.as_str().unwrap().contains(name);
        assert!(problems.iter().any(named), "{name}: {said}");
    }
    assert_eq!((problems.len(), dry.code), (3, Some(1)), "{dry:?}");
    let real = run_in(folder.path(), &["convert", "source"]);
    assert!(real.code == Some(1) && real.err.contains("clip_qkv"), "{real:?}");
    assert!(!folder.path().join("source.omex").exists());
}

#[test]
fn tensors_that_are_missing_or_too_many_are_all_named() {
    let folder = tempfile::tempdir().unwrap();
    let source = copy_of_shipped(folder.path());
    change(&source.join("config.json"), |config| {
        config["num_hidden_layers"] = json!(config["num_hidden_layers"].as_u64().unwrap() - 1);
    });
    let dry = run_in(folder.path(), &["convert", "source", "--dry-run"]);
    assert!(dry.code == Some(1) && dry.err.matches("layers.3.").count() >= 9, "{dry:?}");
}

/// Puts another name of the same length into a file.
fn rename(file: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let at = file.windows(from.len()).position(|bytes| bytes == from.as_bytes());
    let at = at.unwrap_or_else(|| panic!("no {from} in the file"));
    file[at..at + to.len()].copy_from_slice(to.as_bytes());
}

#[test]
fn keys_that_a_gguf_file_lacks_are_all_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let shipped = open(&shipped_model(), None).unwrap();
    let converted = Converted::new(&*shipped, None);
    let package = Package::open(&converted.path).unwrap();
    gguf::write(&package, &path, Dtype::F32, &Cancel::default(), &mut |_, _| {}).unwrap();
    let mut file = std::fs::read(&path).unwrap();
    rename(&mut file, "llama.block_count", "llama.block_c0unt");
    rename(&mut file, "llama.embedding_length", "llama.embedding_1ength");
    std::fs::write(&path, file).unwrap();
    let dry = run_in(folder.path(), &["convert", "m.gguf", "--dry-run"]);
    assert_eq!(dry.code, Some(1), "{dry:?}");
    for key in ["llama.block_count: ", "llama.embedding_length: "] {
        assert_eq!(dry.err.matches(key).count(), 1, "{key}: {dry:?}");
    }
}

/// Where nothing is rounded, nothing differs: the model runs from its own files, whatever lies in them
/// transposed, interleaved, fused, in experts or in blocks.
#[test]
fn a_package_in_floats_computes_what_its_source_does() {
    let mut models = vec![shipped_model()];
    let golden = ["bert", "gpt2", "gpt_neox", "mixtral", "lfm2", "modernbert"].iter();
    models.extend(golden.filter_map(|name| shared(&format!("golden/{name}"))));
    for model in models {
        let Checked::Compared { comparison, .. } = compared(&model, Precision::F32) else {
            panic!("{}: not compared", model.display())
        };
        match comparison {
            Comparison::Logits { kl_divergence, top1_agreement } => {
                assert_eq!((kl_divergence, top1_agreement), (0.0, 1.0), "{}", model.display());
            }
            Comparison::Vectors { cosine } => assert!(cosine > 0.999_999, "{}", model.display()),
        }
    }
}

#[test]
fn integer_graphs_are_taken_over_and_not_compared() {
    let models = require_shared!("models/mlperf_tiny");
    let folder = tempfile::tempdir().unwrap();
    let model = models.join("kws_ref_model.tflite");
    let model = model.to_str().unwrap();
    let said = json_of(&run_in(folder.path(), &["convert", model, "--json"]));
    assert_eq!(said["check"], json!({ "skipped": "the package has the source's integers" }));
}

#[test]
fn operators_that_are_not_known_are_all_named_at_once() {
    let models = require_shared!("models/tflm");
    let folder = tempfile::tempdir().unwrap();
    let model = models.join("audio_preprocessor_int8.tflite");
    let said = run_in(folder.path(), &["convert", model.to_str().unwrap(), "--dry-run"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    for name in ["CUSTOM SignalWindow", "CUSTOM SignalFilterBankLog", "CAST"] {
        assert!(said.err.contains(&format!("({name})")), "{name}: {said:?}");
    }
}

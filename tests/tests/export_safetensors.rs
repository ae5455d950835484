//! What is written as safetensors is the checkpoint that the package was converted from.

use omex::cancel::Cancel;
use omex::export::{Dtype, safetensors};
use omex::import::{Container, open};
use omex::package::{Package, renew_checksums};
use omex::quantize::Precision;
use omex::synth::RandomModel;
use omex_tests::{Converted, Synthetic, convert_from, json, logits, run_in, shared, shipped_model};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Writes a package as a folder beside it.
fn export(package: &Converted, dtype: Dtype) -> PathBuf {
    let folder = package.folder.path().join(format!("{dtype:?}"));
    let mut last = (0, 1);
    let opened = Package::open(&package.path).unwrap();
    let progress = &mut |done, all| last = (done, all);
    safetensors::write(&opened, &folder, dtype, &Cancel::default(), progress).unwrap();
    assert_eq!(last.0, last.1, "all bytes are foreseen");
    folder
}

/// The files that decide what a package says.
fn contents(package: &Path) -> BTreeMap<String, Vec<u8>> {
    let weights = package.join("weights").read_dir().unwrap();
    let names = weights.map(|file| format!("weights/{}", file.unwrap().file_name().display()));
    let names = names.chain(["graph.json".to_owned()]);
    names.map(|name| (name.clone(), std::fs::read(package.join(&name)).unwrap())).collect()
}

/// What the header of a safetensors file says of each tensor's shape.
fn shapes(file: &Path) -> BTreeMap<String, Value> {
    let bytes = std::fs::read(file).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    tensors.map(|(name, of)| (name, of["shape"].clone())).collect()
}

fn rows(container: &dyn Container, name: &str) -> Vec<Vec<f32>> {
    let info = container.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    let row = |row| {
        let mut numbers = vec![0.0; info.columns as usize];
        container.read_row(name, row, &mut numbers).unwrap();
        numbers
    };
    (0..info.rows).map(row).collect()
}

/// Converts a model, writes it again and converts that: twice the same package.
fn comes_back(what: &str, source: &dyn Container) -> (Converted, PathBuf) {
    let package = Converted::new(source, Some(Precision::F32));
    let folder = export(&package, Dtype::F32);
    let again = convert_from(&folder, Some(Precision::F32));
    assert!(contents(&package.path) == contents(&again.path), "{what}: another package");
    (package, folder)
}

/// Tensors that nothing reads, which packages don't have.
const UNREAD: [&str; 7] = [
    ".inv_freq",
    "pooler.dense.weight",
    "pooler.dense.bias",
    "position_ids",
    "decoder.weight",
    "decoder.bias",
    ".attn.bias",
];

#[test]
fn every_architecture_comes_back_under_its_own_names_and_shapes() {
    let Some(golden) = shared("golden") else { return };
    let mut folders: Vec<_> = golden.read_dir().unwrap().map(|f| f.unwrap().path()).collect();
    folders.sort();
    let mut models = 0;
    for model in folders.iter().filter(|folder| folder.join("logits.npy").exists()) {
        if !model.join("config.json").exists() {
            continue;
        }
        let what = model.file_name().unwrap().display().to_string();
        let source = open(model, None).unwrap();
        let (_package, folder) = comes_back(&what, &*source);
        let file = folder.join("model.safetensors");
        let (found, again) = (shapes(&file), open(&folder, None).unwrap());
        let mut expected = BTreeMap::new();
        for entry in model.read_dir().unwrap().map(|f| f.unwrap().path()) {
            if entry.extension().is_some_and(|end| end == "safetensors") {
                expected.extend(shapes(&entry));
            }
        }
        let unread = |name: &String| UNREAD.iter().any(|end| name.ends_with(end));
        expected.retain(|name, _| found.contains_key(name) || !unread(name));
        assert_eq!(found, expected, "{what}");
        for name in found.keys() {
            // Weights of norms lose their last bits where something was added to them.
            let [found, stored] = [&*again, &*source].map(|model| rows(model, name).concat());
            let same = found.iter().zip(&stored).all(|(a, b)| a == b || (a - b).abs() < 1.2e-7);
            assert!(same && found.len() == stored.len(), "{what}: {name}");
        }
        models += 1;
    }
    assert!(models >= 40, "{models} models");
}

/// Of a model with this description, in random weights.
fn random(config: Value) -> RandomModel {
    RandomModel::with_config(Path::new("config.json"), config.as_object().unwrap().clone()).unwrap()
}

#[test]
fn fused_transposed_sliced_and_shifted_tensors_come_back() {
    comes_back("the shipped model", &*open(&shipped_model(), None).unwrap());
    comes_back("odd", &Synthetic::odd());
    comes_back("odd, untied", &Synthetic::odd_untied());
    let small = json!({
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 72, "bos_token_id": null,
        "eos_token_id": null,
    });
    for more in [
        json!({ "model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4 }),
        json!({ "model_type": "gpt_neox", "num_key_value_heads": 4 }),
        json!({ "model_type": "gemma3_text" }),
        json!({ "model_type": "mixtral", "num_local_experts": 4 }),
        json!({ "model_type": "lfm2", "layer_types": ["conv", "full_attention"] }),
        json!({ "model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2 }),
    ] {
        let mut config = small.clone();
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        comes_back(&config["model_type"].to_string(), &random(config));
    }
}

#[test]
fn integers_come_back_as_the_floats_that_they_stand_for() {
    let source = open(&shipped_model(), None).unwrap();
    let package = Converted::new(&*source, Some(Precision::Int8));
    let again = convert_from(&export(&package, Dtype::F32), Some(Precision::F32));
    let ids: Vec<u32> = (0..24).map(|i| (i * 7 + 1) % 512).collect();
    let [found, expected] = [&again, &package]
        .map(|model| logits(&model.path, &ids, &omex_tests::Setting::default()).concat());
    let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    // Activations are rounded to int8 in one of them.
    assert!(worst < 0.1 * most, "{worst} of {most}");
    // Rounding again changes nothing.
    let twice = convert_from(&export(&again, Dtype::F32), Some(Precision::F32));
    assert!(contents(&again.path) == contents(&twice.path));
}

#[test]
fn both_planes_are_written_as_one() {
    let source = Synthetic::new(64, 96, 2, 4, 2, 96, 64);
    let exact = Converted::new(&source, Some(Precision::F32));
    let (planes, int4) =
        (Converted::in_planes(&source), Converted::new(&source, Some(Precision::Int4)));
    let [planes, int4, original] = [&planes, &int4, &exact].map(|model| export(model, Dtype::F32));
    let name = "model.layers.0.mlp.down_proj.weight";
    let numbers = |folder: &Path| rows(&*open(folder, None).unwrap(), name).concat();
    let error = |folder: &Path| -> f32 {
        let pairs = numbers(folder).into_iter().zip(numbers(&original));
        pairs.map(|(a, b)| (a - b).powi(2)).sum()
    };
    assert!(error(&planes) < error(&int4) / 50.0, "{} {}", error(&planes), error(&int4));
}

#[test]
fn what_stands_beside_the_weights_comes_back() {
    let package = convert_from(&shipped_model(), Some(Precision::F32));
    let folder = export(&package, Dtype::Bf16);
    let written = json(&folder.join("config.json"));
    let mut expected = json(&shipped_model().join("config.json"));
    expected["torch_dtype"] = "bfloat16".into();
    expected.as_object_mut().unwrap().remove("dtype");
    assert_eq!(written, expected);
    let tokenizer = std::fs::read(folder.join("tokenizer.json")).unwrap();
    assert!(tokenizer == std::fs::read(shipped_model().join("tokenizer.json")).unwrap());
    assert!(json(&folder.join("tokenizer_config.json"))["eos_token"].is_string());
}

#[test]
fn the_command_says_what_it_wrote_and_refuses_what_is_there() {
    let package = convert_from(&shipped_model(), Some(Precision::Int8));
    let folder = package.folder.path();
    let args = ["export", "model.omex", "--format", "safetensors", "-o", "hf"];
    let written = run_in(folder, &args);
    assert_eq!(written.code, Some(0), "{written:?}");
    assert!(
        written.out.contains("int8") && written.out.contains("the same numbers"),
        "{written:?}"
    );
    let refused = run_in(folder, &args);
    assert!(refused.code == Some(2) && refused.err.contains("name a new folder"), "{refused:?}");
    let default = run_in(folder, &["export", "model.omex", "--format", "safetensors", "--json"]);
    let said: Value = serde_json::from_str(&default.out).unwrap();
    assert_eq!(said["architecture"], "llama");
    assert!(folder.join("model/config.json").exists());
}

#[test]
fn a_package_without_hyperparameters_and_one_with_others_are_refused() {
    let package = convert_from(&shipped_model(), Some(Precision::F32));
    let place = package.path.join("hyperparameters.json");
    let refused = |remedy: &str| {
        let folder = package.folder.path().join("refused");
        let opened = Package::open(&package.path).unwrap();
        let error =
            safetensors::write(&opened, &folder, Dtype::F32, &Cancel::default(), &mut |_, _| {});
        let message = error.unwrap_err().to_string();
        assert!(message.contains(remedy) && !folder.exists(), "{message}");
    };
    let mut fields = json(&place);
    fields["intermediate_size"] = 96.into();
    std::fs::write(&place, fields.to_string()).unwrap();
    renew_checksums(&package.path).unwrap();
    refused("only packages that omex convert wrote");
    std::fs::remove_file(&place).unwrap();
    let metadata = package.path.join("metadata.json");
    let mut fields = json(&metadata);
    fields["files"].as_object_mut().unwrap().remove("hyperparameters.json");
    std::fs::write(&metadata, fields.to_string()).unwrap();
    renew_checksums(&package.path).unwrap();
    refused("packages of earlier versions");
}

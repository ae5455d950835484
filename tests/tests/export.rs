//! What is written as GGUF is the very same model.

use omex::cancel::Cancel;
use omex::export::{Dtype, gguf};
use omex::import::{Container, open};
use omex::package::Package;
use omex::quantize::Precision;
use omex::synth::{RandomModel, SHAPES};
use omex_tests::{
    Converted, Setting, Synthetic, convert_from, logits, made_models, mix, shared, shipped_model,
    worst_error,
};
use std::path::Path;

/// Exports a package, imports that again, and compares every logit.
fn assert_same_model(what: &str, original: &Converted, precision: Option<Precision>) {
    let package = Package::open(&original.path).unwrap();
    let path = original.folder.path().join("model.gguf");
    assert!(!gguf::is_of(&package, &path).unwrap());
    let mut last = (0, 0);
    gguf::write(&package, &path, Dtype::F32, &Cancel::default(), &mut |done, all| {
        last = (done, all)
    })
    .unwrap();
    assert_eq!(last.0, last.1, "{what}: all bytes are foreseen");
    assert!(std::fs::metadata(&path).unwrap().len() > last.1, "{what}");
    assert!(gguf::is_of(&package, &path).unwrap(), "{what}");
    let source = open(&path, None).unwrap_or_else(|e| panic!("{what}: {e}"));
    let again = Converted::new(&*source, precision);
    let vocabulary = package.graph.vocab_size;
    let ids: Vec<_> = (0..40).map(|i| (i * i * 7 + i * 3 + 1) % vocabulary).collect();
    let setting = Setting::default();
    assert_eq!(
        logits(&again.path, &ids, &setting),
        logits(&original.path, &ids, &setting),
        "{what}"
    );
}

#[test]
fn quantized_blocks_come_back_as_they_were() {
    let source = open(&shipped_model(), None).unwrap();
    for precision in [Precision::Int8, Precision::Int4] {
        let package = Converted::new(&*source, Some(precision));
        assert_same_model(&format!("the shipped model, {precision:?}"), &package, None);
        let random = RandomModel::new(&SHAPES[0], precision, 7).unwrap();
        let package = Converted::new(&random, Some(precision));
        assert_same_model(&format!("random, {precision:?}"), &package, None);
    }
    let mixed = mix(&*source, &[Precision::Int8, Precision::Int4]);
    assert_same_model("layers of int8 and int4 in turn", &mixed, None);
}

#[test]
fn blocks_of_heads_that_lie_in_another_order_come_back() {
    let config = serde_json::json!({
        "model_type": "qwen3_5_text", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 72,
        "linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 32,
        "linear_value_head_dim": 32, "layer_types": ["linear_attention", "full_attention"],
    });
    let config = config.as_object().unwrap().clone();
    let random = RandomModel::with_config(Path::new("config.json"), config).unwrap();
    for precision in [Precision::Int8, Precision::Int4] {
        let package = Converted::new(&random, Some(precision));
        assert_same_model(&format!("heads of values, {precision:?}"), &package, None);
    }
}

#[test]
fn floats_come_back_as_they_were_whatever_the_shape() {
    for (what, source) in [("odd", Synthetic::odd()), ("odd, untied", Synthetic::odd_untied())] {
        for precision in [Precision::F16, Precision::F32] {
            let package = Converted::new(&source, Some(precision));
            assert_same_model(&format!("{what}, {precision:?}"), &package, Some(precision));
        }
    }
}

#[test]
fn a_file_of_other_weights_is_told_apart() {
    let [first, second] = [0, 1].map(|seed| {
        let random = RandomModel::new(&SHAPES[0], Precision::Int8, seed).unwrap();
        Converted::new(&random, Some(Precision::Int8))
    });
    let path = first.folder.path().join("model.gguf");
    gguf::write(
        &Package::open(&first.path).unwrap(),
        &path,
        Dtype::F32,
        &Cancel::default(),
        &mut |_, _| {},
    )
    .unwrap();
    assert!(gguf::is_of(&Package::open(&first.path).unwrap(), &path).unwrap());
    assert!(!gguf::is_of(&Package::open(&second.path).unwrap(), &path).unwrap());
}

#[test]
fn rows_of_part_of_a_block_are_written_as_the_floats_that_they_stand_for() {
    let package = Converted::new(&Synthetic::odd(), Some(Precision::Int8));
    let path = package.folder.path().join("model.gguf");
    let opened = Package::open(&package.path).unwrap();
    let written =
        gguf::write(&opened, &path, Dtype::F32, &Cancel::default(), &mut |_, _| {}).unwrap();
    let decoded = written.groups.iter().find(|group| group.from == "int8" && group.to == "f32");
    assert!(decoded.is_some_and(|group| group.exact && group.tensors > 0), "{written:?}");
    let [found, expected] = [&*open(&path, None).unwrap(), &Synthetic::odd() as &dyn Container]
        .map(|model| {
            let mut row = vec![0.0; 36];
            let name = ["blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"];
            let name = name.into_iter().find(|name| model.tensor(name).is_some()).unwrap();
            model.read_row(name, 0, &mut row).unwrap();
            row
        });
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    assert!(worst <= most / 127.0, "{worst} of {most}");
}

/// Models of the goldens that llama.cpp has words for.
const IN_GGUF: [&str; 32] = [
    "deepseek_v3",
    "deepseek_v3_yarn",
    "gemma3_text",
    "gemma4_e",
    "gemma4_moe",
    "gpt2",
    "gpt_neox",
    "gpt_oss_clamp",
    "granite",
    "granitehybrid_dense",
    "granitemoehybrid",
    "lfm2",
    "llama3_rope",
    "llama_bias",
    "llama_linear",
    "llama_tied",
    "llama_untied",
    "llama_yarn",
    "mistral_sw",
    "mixtral",
    "olmo2",
    "olmoe",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_5_text",
    "qwen3_moe",
    "qwen3_next",
    "smollm3",
    "stablelm",
    "starcoder2",
];

/// Made models that llama.cpp has words for.
const MADE_IN_GGUF: [&str; 5] =
    ["bloom", "deepseek_v2", "deepseek_v2_groups", "granitemoehybrid", "qwen3_5_moe_text"];

#[test]
fn every_architecture_that_llama_cpp_has_words_for_comes_back() {
    let Some(golden) = shared("golden") else { return };
    for name in IN_GGUF {
        comes_back(name, &golden.join(name));
    }
}

#[test]
fn so_do_made_models() {
    let models: Vec<_> = made_models().collect();
    for model in models.iter().filter(|model| MADE_IN_GGUF.contains(&model.name.as_str())) {
        comes_back(&model.name, model.folder.path());
    }
}

/// Exports a model, and imports that again: as many files of weights, and the same logits.
fn comes_back(name: &str, model: &Path) {
    let package = convert_from(model, Some(Precision::F32));
    let path = package.folder.path().join("model.gguf");
    let opened = Package::open(&package.path).unwrap();
    let written = gguf::write(&opened, &path, Dtype::F32, &Cancel::default(), &mut |_, _| {});
    let written = written.unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(written.groups.iter().all(|group| group.exact), "{name}: {written:?}");
    let again = convert_from(&path, Some(Precision::F32));
    let weights = |package: &Converted| {
        let files = package.path.join("weights").read_dir().unwrap().map(|f| f.unwrap().path());
        let mut files: Vec<_> = files.filter(|f| f.extension().unwrap() == "bin").collect();
        files.sort();
        files.iter().map(|file| std::fs::read(file).unwrap()).collect::<Vec<_>>()
    };
    let same = weights(&again).len() == weights(&package).len();
    let ids: Vec<_> = (0..20).map(|i| (i * i * 7 + i * 3 + 1) % opened.graph.vocab_size).collect();
    let [found, expected] =
        [&again, &package].map(|model| logits(&model.path, &ids, &Setting::default()));
    assert!(same && found == expected, "{name}: {}", worst_error(&found, &expected));
}

#[test]
fn what_gguf_has_no_words_for_is_refused_and_named() {
    let Some(golden) = shared("golden") else { return };
    for (name, field) in [
        // Scores are divided by what the width of heads is not.
        ("gemma2", "scale"),
        ("mpnet", "model_type"),
        // Heads that guess tokens.
        ("bert", "cls.predictions"),
        ("xlm_roberta", "lm_head.dense"),
        // Keys of other layers than llama.cpp takes.
        ("gemma4_text", "num_kv_shared_layers"),
    ] {
        let package = convert_from(&golden.join(name), Some(Precision::F32));
        let path = package.folder.path().join("model.gguf");
        let opened = Package::open(&package.path).unwrap();
        let refused = gguf::write(&opened, &path, Dtype::F32, &Cancel::default(), &mut |_, _| {});
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(field) && message.contains("safetensors"), "{name}: {message}");
        assert!(!path.exists(), "{name}");
    }
}

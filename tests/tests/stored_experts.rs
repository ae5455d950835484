//! However the experts of a model are stored, it becomes the same package.

use omex::quantize::Precision;
use omex_tests::{
    Converted, Setting, Tensor, all_tensors, convert_from, json, logits, numbers, require_shared,
    write_safetensors,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Writes a model's folder with other hyperparameters and tensors.
fn folder(config: &Value, tensors: &[Tensor]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    write_safetensors(&folder.path().join("model.safetensors"), tensors);
    folder
}

/// The gate and the up matrix of each expert of a layer in one tensor, and all down matrices in another.
fn joint(stored: Vec<Tensor>) -> Vec<Tensor> {
    let mut experts: BTreeMap<String, BTreeMap<(usize, String), Tensor>> = BTreeMap::new();
    let mut others = vec![];
    for tensor in stored {
        let Some((before, after)) = tensor.0.split_once(".experts.") else {
            others.push(tensor);
            continue;
        };
        let (number, part) = after.split_once('.').unwrap();
        let part = part.trim_end_matches(".weight");
        let joint = if part == "down_proj" { "down_proj" } else { "gate_up_proj" };
        let place = (number.parse().unwrap(), part.to_owned());
        experts.entry(format!("{before}.experts.{joint}")).or_default().insert(place, tensor);
    }
    let joined = experts.into_iter().map(|(name, parts)| {
        let count = parts.last_key_value().unwrap().0.0 + 1;
        let columns = parts.first_key_value().unwrap().1.1[1];
        let rows: u64 = parts.values().map(|(_, shape, _)| shape[0]).sum();
        let bytes = parts.into_values().flat_map(|(.., bytes)| bytes).collect();
        (name, vec![count as u64, rows / count as u64, columns], bytes)
    });
    others.into_iter().chain(joined).collect()
}

/// Asserts that two folders become the same package.
fn become_one(model: &Path, other: &Path) {
    let [a, b] = [model, other].map(|path| convert_from(path, Some(Precision::Int8)));
    let weights = |package: &Converted| {
        let files = std::fs::read_dir(package.path.join("weights")).unwrap();
        let file = |file: std::io::Result<std::fs::DirEntry>| {
            let file = file.unwrap();
            (file.file_name(), std::fs::read(file.path()).unwrap())
        };
        files.map(file).collect::<BTreeMap<_, _>>()
    };
    let (of_a, of_b) = (weights(&a), weights(&b));
    assert!(of_a.keys().any(|name| name.to_str().unwrap().ends_with(".experts.bin")));
    assert!(of_a == of_b, "{}", model.display());
}

#[test]
fn in_two_tensors_as_transformers_5_holds_them() {
    for name in ["qwen3_moe", "olmoe", "qwen3_next", "deepseek_v3"] {
        let model = require_shared!(&format!("golden/{name}"));
        let tensors = joint(all_tensors(&model));
        assert!(tensors.iter().any(|(_, shape, _)| shape.len() == 3));
        become_one(&model, folder(&json(&model.join("config.json")), &tensors).path());
    }
}

/// Some rows of a tensor of floats, under another name.
fn rows((_, shape, bytes): &Tensor, name: String, rows: Vec<usize>) -> Tensor {
    let columns = shape[1] as usize;
    let picked = rows.iter().flat_map(|row| &bytes[4 * columns * row..4 * columns * (row + 1)]);
    (name, vec![rows.len() as u64, shape[1]], picked.copied().collect())
}

/// Parts that alternate by head, of these widths, apart: the heads of the first part, then those of the
/// second.
fn apart(tensor: &Tensor, stem: &str, parts: &[(&str, &[usize])], heads: usize) -> Vec<Tensor> {
    let of_head = tensor.1[0] as usize / heads;
    let mut start = 0;
    let mut part = |(name, widths): &(&str, &[usize])| {
        let mut picked = vec![];
        for width in *widths {
            let rows = |head| (start..start + width).map(move |row| head * of_head + row);
            picked.extend((0..heads).flat_map(rows));
            start += width;
        }
        rows(tensor, format!("{stem}.{name}.weight"), picked)
    };
    parts.iter().map(&mut part).collect()
}

#[test]
fn qwen3_5_with_experts_computes_what_a_qwen3_next_of_the_same_weights_does() {
    let model = require_shared!("golden/qwen3_next");
    let mut config = json(&model.join("config.json"));
    let of = |name: &str| config[name].as_u64().unwrap() as usize;
    let (heads, keys) = (of("linear_num_key_heads"), of("linear_key_head_dim"));
    let shared = of("linear_num_value_heads") / heads;
    let values = shared * of("linear_value_head_dim");
    let mut tensors = vec![];
    for tensor in joint(all_tensors(&model)) {
        let stem = tensor.0.rsplit_once(".in_proj_").map(|(stem, _)| stem.to_owned());
        let (stem, parts): (_, [(_, &[usize]); 2]) = match stem {
            Some(stem) if tensor.0.ends_with("qkvz.weight") => {
                (stem, [("in_proj_qkv", &[keys, keys, values]), ("in_proj_z", &[values])])
            }
            Some(stem) => (stem, [("in_proj_b", &[shared]), ("in_proj_a", &[shared])]),
            None => {
                tensors.push(tensor);
                continue;
            }
        };
        tensors.extend(apart(&tensor, &stem, &parts, heads));
    }
    config["model_type"] = "qwen3_5_moe_text".into();
    config["architectures"] = serde_json::json!(["Qwen3_5MoeForCausalLM"]);
    let reference = numbers(&json(&model.join("ref.json"))["input_ids"]);
    let of = |folder: &Path| {
        let package = convert_from(folder, Some(Precision::F32));
        logits(&package.path, &reference, &Setting::default())
    };
    assert!(of(folder(&config, &tensors).path()) == of(&model));

    // The same as the part of a model that sees pictures, too.
    let whole = serde_json::json!({
        "model_type": "qwen3_5_moe", "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "text_config": config, "vision_config": {},
    });
    for (name, ..) in &mut tensors {
        *name = name.replacen("model.", "model.language_model.", 1);
    }
    tensors.push(("model.visual.blocks.0.norm.weight".into(), vec![4], vec![0; 16]));
    assert!(of(folder(&whole, &tensors).path()) == of(&model));
}

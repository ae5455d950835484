//! Architectures compute what transformers does, with weights that follow from their tensors' names.

use flate2::Crc;
use omex::quantize::Precision;
use omex_tests::{Setting, Tensor, convert_from, logits, numbers, worst_error, write_safetensors};
use serde_json::Value;

/// What transformers computes: see `made_models.py`.
const REFERENCE: &str = include_str!("../made_models.json");

/// Multiples of 2^-25 within 1/4 of 0, or of 1 for vectors.
fn weights(name: &str, shape: &[u64]) -> Vec<u8> {
    let mut seed = Crc::new();
    seed.update(name.as_bytes());
    let seed = u64::from(seed.sum());
    let middle = if shape.len() == 1 { 1.0 } else { 0.0 };
    let weight = |number: u64| {
        let z = (seed + number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = z ^ z >> 31;
        middle + ((z >> 40) as f32 / (1 << 23) as f32 - 1.0) / 4.0
    };
    (1..=shape.iter().product()).flat_map(|number| weight(number).to_le_bytes()).collect()
}

#[test]
fn logits_are_those_of_transformers() {
    let reference: Value = serde_json::from_str(REFERENCE).unwrap();
    let mut models = reference.as_object().unwrap().clone();
    let ids: Vec<u32> = numbers(&models.remove("ids").unwrap());
    for (kind, model) in models {
        let tensor = |(name, shape): (&String, &Value)| -> Tensor {
            let shape: Vec<u64> = serde_json::from_value(shape.clone()).unwrap();
            let bytes = weights(name, &shape);
            (name.clone(), shape, bytes)
        };
        let tensors: Vec<_> = model["tensors"].as_object().unwrap().iter().map(tensor).collect();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), model["config"].to_string()).unwrap();
        write_safetensors(&folder.path().join("model.safetensors"), &tensors);
        let package = convert_from(folder.path(), Some(Precision::F32));
        let expected: Vec<Vec<f32>> = serde_json::from_value(model["logits"].clone()).unwrap();
        let whole = logits(&package.path, &ids, &Setting::default());
        let worst = worst_error(&whole, &expected);
        println!("{kind}: largest relative error {worst:.2e}");
        assert!(worst < 1e-4, "{kind}: {worst:e}");
        for chunks in [&[1][..], &[4, 2]] {
            let setting = Setting { chunks, ..Setting::default() };
            assert!(
                logits(&package.path, &ids, &setting) == whole,
                "{kind} in passes of {chunks:?}"
            );
        }
    }
}

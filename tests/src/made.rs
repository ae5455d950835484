//! Tiny models of architectures, whose weights follow from their tensors' names: see `made_models.py`.

use crate::{Tensor, numbers, write_safetensors};
use flate2::Crc;
use serde_json::Value;
use tempfile::TempDir;

/// What transformers computes.
const REFERENCE: &str = include_str!("../made_models.json");

/// A model, as a folder that vanishes with it.
#[derive(Debug)]
pub struct MadeModel {
    /// Its name among them.
    pub name: String,
    /// Where it lies.
    pub folder: TempDir,
    /// Tokens.
    pub ids: Vec<u32>,
    /// What transformers makes of them.
    pub logits: Vec<Vec<f32>>,
    /// What it makes of as many of them as the original context holds, where this is longer.
    pub short: Option<Vec<Vec<f32>>>,
}

/// Makes the models of which there are references, one after another.
pub fn made_models() -> impl Iterator<Item = MadeModel> {
    let reference: Value = serde_json::from_str(REFERENCE).expect("JSON");
    let mut models = reference.as_object().cloned().expect("an object");
    let ids: Vec<u32> = numbers(&models.remove("ids").expect("ids"));
    models.into_iter().map(move |(name, model)| made(name, &model, &ids))
}

fn made(name: String, model: &Value, ids: &[u32]) -> MadeModel {
    let tensor = |(name, shape): (&String, &Value)| -> Tensor {
        let shape: Vec<u64> = serde_json::from_value(shape.clone()).expect("a shape");
        let bytes = weights(name, &shape);
        (name.clone(), shape, bytes)
    };
    let tensors = model["tensors"].as_object().expect("tensors");
    let tensors: Vec<_> = tensors.iter().map(tensor).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = model["config"].to_string();
    std::fs::write(folder.path().join("config.json"), config).expect("a file");
    write_safetensors(&folder.path().join("model.safetensors"), &tensors);
    let rows = |name: &str| serde_json::from_value(model[name].clone()).expect("rows of logits");
    let short = model.get("short").map(|_| rows("short"));
    MadeModel { name, folder, ids: ids.to_vec(), logits: rows("logits"), short }
}

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

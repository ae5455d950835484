//! Readers and architectures on real models, on models that are stored in several ways, and on
//! damaged files.

mod damaged;
mod hostile;
mod models;
mod sensitivity;

use super::{Blueprint, Data, FREQUENCIES, Role, blueprint, of_config};
use crate::Result;
use crate::convert::read_vector;
use crate::graph::Node;
use crate::import::{self, Container, SourceFormat};
use std::path::Path;

/// A stored model, and what its architecture makes of it.
struct Model {
    container: Box<dyn Container>,
    blueprint: Blueprint,
}

fn open(path: &Path, format: Option<SourceFormat>) -> Result<Model> {
    let container = import::open(path, format)?;
    let blueprint = blueprint(&*container)?;
    Ok(Model { container, blueprint })
}

impl Model {
    /// The rows of one of the blueprint's tensors, in the order of use.
    fn rows(&self, name: &str) -> Vec<Vec<f32>> {
        let plan = self.blueprint.tensors().find(|plan| plan.name == name).unwrap();
        if plan.role == Role::Vector {
            return vec![read_vector(&*self.container, plan).unwrap()];
        }
        let rows = plan.sources().iter().flat_map(|source| {
            (0..source.shape[0]).map(|row| {
                let mut out = vec![0.0; plan.columns as usize];
                let row = source.stored_row(row);
                self.container.read_row(&source.tensor, row, &mut out).unwrap();
                out
            })
        });
        rows.collect()
    }
}

#[test]
fn fields_that_are_absent_have_each_architectures_own_defaults() {
    for (kind, theta, epsilon) in
        [("llama", 1e4f64, 1e-6), ("gemma3_text", 1e6, 1e-6), ("lfm2", 1e6, 1e-5)]
    {
        let config = serde_json::json!({
            "model_type": kind, "hidden_size": 64, "num_hidden_layers": 1, "head_dim": 32,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 8,
            "bos_token_id": null, "eos_token_id": null,
        });
        let blueprint = of_config(Path::new("config.json"), config.as_object().unwrap()).unwrap();
        let plan = blueprint.tensors().find(|plan| plan.name == FREQUENCIES).unwrap();
        let Data::Computed(frequencies) = &plan.data else { panic!("{plan:?}") };
        assert_eq!(frequencies[8], libm::pow(theta, -0.5) as f32, "{kind}");
        let norm = blueprint.graph.nodes.iter().find_map(|node| match node {
            Node::Norm(op) => Some(op.epsilon),
            _ => None,
        });
        assert_eq!(norm, Some(epsilon as f32), "{kind}");
    }
}

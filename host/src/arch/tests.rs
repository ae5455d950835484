//! Readers and architectures on real models, on models that are stored in several ways, and on
//! damaged files.

mod damaged;
mod models;

use super::{Blueprint, blueprint};
use crate::Result;
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
        let rows = plan.stored_rows().map(|(stored, row)| {
            let mut out = vec![0.0; plan.columns as usize];
            self.container.read_row(stored, row, &mut out).unwrap();
            out
        });
        rows.collect()
    }
}

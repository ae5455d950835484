//! Readers and architectures on real models, on models that are stored in several ways, and on
//! damaged files.

mod damaged;
mod models;

use super::{Blueprint, Role, blueprint};
use crate::Result;
use crate::convert::read_vector;
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

//! Which tensors another program stores a model as, and where their numbers lie in a package: what
//! `arch` says of the package's tensors, read backwards.

use super::rows;
use crate::arch::{Blueprint, Source, TensorPlan};
use crate::convert;
use crate::package::{CONVERT_AGAIN, Package, TensorEntry};
use crate::quantize::Precision;
use crate::{Error, Result};
use std::collections::BTreeMap;

/// The tensors of another program's file, and what they are made of.
pub(super) struct Inverse {
    pub(super) tensors: Vec<Stored>,
    /// In the order of the package's tensors, and of their rows.
    pub(super) parts: Vec<Part>,
}

/// A tensor as another program stores it.
pub(super) struct Stored {
    pub(super) name: String,
    /// The outermost first.
    pub(super) dimensions: Vec<u32>,
    pub(super) rows: u32,
    pub(super) columns: u32,
    /// The format that all of its rows have in the package; none where they are not whole there.
    pub(super) format: Option<Precision>,
    /// What it is in the package, for people: its format, and how many planes it has.
    pub(super) from: String,
}

/// Rows of a tensor of the package, or numbers of a vector, that go into a stored tensor.
pub(super) struct Part {
    /// The package's tensor, by its place in the index.
    pub(super) entry: usize,
    /// The first of its rows, or numbers.
    pub(super) first: u32,
    /// Where they go.
    pub(super) tensor: usize,
    pub(super) source: Source,
}

impl Inverse {
    /// What a package is in the words of a blueprint that was drawn of its hyperparameters.
    ///
    /// # Errors
    /// Tensors that are not those of the blueprint, or not all of a stored tensor.
    pub(super) fn new(package: &Package, blueprint: &Blueprint) -> Result<Self> {
        let plans = convert::plans(blueprint);
        let mut inverse = Self { tensors: vec![], parts: vec![] };
        let mut places = BTreeMap::new();
        let index = &package.index.tensors;
        for (number, entry) in index.iter().enumerate().filter(|(_, entry)| entry.plane == 0) {
            let shape = |plan: &TensorPlan| [plan.rows + plan.skipped, plan.columns];
            let plan = plans.get(&entry.name).filter(|plan| shape(plan) == entry.shape);
            let plan = plan.ok_or_else(|| stranger(package, entry))?;
            let planes = index.iter().filter(|other| other.name == entry.name).count();
            inverse.add(plan, number, entry, planes, &mut places);
        }
        inverse.check(package)?;
        Ok(inverse)
    }

    fn add(
        &mut self,
        plan: &TensorPlan,
        number: usize,
        entry: &TensorEntry,
        planes: usize,
        places: &mut BTreeMap<String, usize>,
    ) {
        let mut first = plan.skipped;
        for source in plan.sources() {
            let blocks = rows::encoding(entry.format).block_values();
            let whole = planes == 1 && !source.transposed && source.columns.keeps(blocks);
            let format = whole.then_some(entry.format);
            let place = *places.entry(source.tensor.clone()).or_insert(self.tensors.len());
            match self.tensors.get_mut(place) {
                Some(stored) => {
                    stored.format = stored.format.filter(|other| Some(*other) == format)
                }
                None => {
                    let [rows, columns] = source.stored_shape();
                    let (name, dimensions) = (source.tensor.clone(), plan.dimensions(source));
                    let from = format!("{:?}", entry.format).to_lowercase();
                    let from = if planes > 1 { format!("{from}+4") } else { from };
                    self.tensors.push(Stored { name, dimensions, rows, columns, format, from });
                }
            }
            self.parts.push(Part { entry: number, first, tensor: place, source: source.clone() });
            first += match entry.format {
                Precision::Vector => source.shape[0] * source.shape[1],
                _ => source.shape[0],
            };
        }
    }

    /// Checks that every row of every stored tensor is there.
    fn check(&self, package: &Package) -> Result<()> {
        let mut ranges = vec![vec![]; self.tensors.len()];
        for part in &self.parts {
            let first = part.source.first_row();
            ranges[part.tensor].push((first, first + part.source.read_shape()[0]));
        }
        for (stored, mut ranges) in self.tensors.iter().zip(ranges) {
            ranges.sort_unstable();
            let covered = ranges.iter().fold(0, |covered, (first, end)| match *first <= covered {
                true => covered.max(*end),
                false => covered,
            });
            if covered != stored.rows {
                let found = format!("{covered} of {} rows", stored.rows);
                let path = package.path.join("weights/quantization.json");
                return Err(Error::malformed(
                    &path,
                    &stored.name,
                    found,
                    "all of them",
                    CONVERT_AGAIN,
                ));
            }
        }
        Ok(())
    }
}

fn stranger(package: &Package, entry: &TensorEntry) -> Error {
    let [rows, columns] = entry.shape;
    Error::malformed(
        &package.path.join("weights/quantization.json"),
        format!("tensor \"{}\"", entry.name),
        format!("{rows} × {columns}"),
        "the tensors of a model with these hyperparameters.json",
        "convert the model again: only packages that omex convert wrote are exported",
    )
}

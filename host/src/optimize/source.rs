//! A package of a graph of floats: what it computes, and its numbers.

use crate::arch::{Blueprint, Data, Role, Sizes, TensorPlan};
use crate::graph::Graph;
use crate::import::{Container, Fields, SourceFormat, TensorInfo, TokenizerSource};
use crate::package::Package;
use crate::{Error, Result};
use omex_core::program::Dtype;
use omex_core::quant::{Format, GROUP, PANEL, dequantize_row};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A graph with its numbers.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    fields: Fields,
    pub(super) graph: Graph,
    pub(super) tensors: Vec<TensorPlan>,
    /// The architecture's name.
    family: &'static str,
}

impl Source {
    pub(super) fn read(package: &Package) -> Result<Self> {
        let graph = package.graph.clone();
        let wrong = |found: &str, expected: &str| {
            let remedy =
                "give a package of a graph over one array, converted from .tflite or .onnx";
            Error::malformed(&package.path.join("graph.json"), "inputs", found, expected, remedy)
        };
        if graph.vocab_size > 0 || !graph.states.is_empty() || !graph.subgraphs.is_empty() {
            return Err(wrong("a model of texts", "a graph over arrays"));
        }
        let [input] = &graph.inputs[..] else {
            let found = format!("{} inputs", graph.inputs.len());
            return Err(wrong(&found, "one"));
        };
        if graph.values.get(&input.value.name).is_none_or(|value| value.dtype != Dtype::F32) {
            return Err(wrong("an input of integers", "floats"));
        }
        let mut tensors = vec![];
        for entry in package.index.tensors.iter().filter(|entry| entry.plane == 0) {
            tensors.push(floats(package, &entry.name)?);
        }
        let family = match package.metadata.model_architecture.family.as_str() {
            "onnx" => "onnx",
            _ => "tflite",
        };
        Ok(Self { path: package.path.clone(), fields: Fields::new(), graph, tensors, family })
    }

    /// A drawing of a graph with its tensors.
    pub(super) fn blueprint(&self, graph: Graph, tensors: Vec<TensorPlan>) -> Blueprint {
        Blueprint {
            family: self.family,
            sizes: Sizes::default(),
            graph,
            files: vec![tensors],
            bos: None,
            eos: vec![],
            derived: vec![],
            aside: vec![],
            hyperparameters: Fields::new(),
            longer: None,
        }
    }
}

/// The numbers of a tensor.
fn floats(package: &Package, name: &str) -> Result<TensorPlan> {
    let tensors = package.index.by_name();
    let (tensor, entry) = tensors
        .get(&(name, 0))
        .copied()
        .zip(package.index.tensors.iter().find(|entry| entry.name == name))
        .ok_or_else(|| Error::Usage(format!("no tensor \"{name}\"")))?;
    let mut bytes = vec![0; entry.length as usize];
    let path = package.path.join("weights").join(&entry.file);
    let file = package.file(&entry.file)?;
    file.read_exact_at(&mut bytes, entry.offset).map_err(|e| Error::io(&path, "read", e))?;
    let (rows, columns) = (tensor.rows as usize, tensor.columns as usize);
    let (role, numbers) = match tensor.format {
        Format::Channels => {
            let remedy = "optimize a package of floats";
            return Err(Error::malformed(&path, name, "integers", "floats", remedy));
        }
        Format::Vector => {
            (Role::Vector, bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
        }
        format => (Role::Kernel, matrix(format, &bytes, tensor.unit_bytes(), [rows, columns])),
    };
    Ok(TensorPlan {
        name: name.to_owned(),
        role,
        rows: tensor.rows,
        columns: tensor.columns,
        data: Data::Computed(numbers),
        skipped: 0,
    })
}

/// The rows of a matrix that is stored in panels.
fn matrix(format: Format, bytes: &[u8], block: usize, [rows, columns]: [usize; 2]) -> Vec<f32> {
    let groups = columns.div_ceil(GROUP);
    let mut numbers = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        let panel = &bytes[row / PANEL * groups * block..][..groups * block];
        let mut left = columns;
        for block in panel.chunks(block) {
            let mut group = [0.0; GROUP];
            dequantize_row(format, block, row % PANEL, &mut group);
            numbers.extend_from_slice(&group[..left.min(GROUP)]);
            left -= left.min(GROUP);
        }
    }
    numbers
}

/// Nothing is stored in it: all numbers come with the drawing.
impl Container for Source {
    fn format(&self) -> SourceFormat {
        SourceFormat::Tflite
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn config(&self) -> &Fields {
        &self.fields
    }

    fn names(&self) -> Vec<String> {
        vec![]
    }

    fn tensor_path(&self, _: &str) -> &Path {
        &self.path
    }

    fn tensor(&self, _: &str) -> Option<TensorInfo> {
        None
    }

    fn read_row(&self, name: &str, _: u32, _: &mut [f32]) -> Result<()> {
        Err(no_row(&self.path, name))
    }

    fn read_row_bytes(&self, name: &str, _: u32, _: &mut Vec<u8>) -> Result<()> {
        Err(no_row(&self.path, name))
    }

    fn tokenizer(&self) -> Option<&TokenizerSource> {
        None
    }
}

fn no_row(path: &Path, name: &str) -> Error {
    Error::malformed(path, name, "no rows", "a tensor of rows", "report this")
}

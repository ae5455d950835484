//! Weights as the tensors and the quantized matrices that a model is read as.

use super::graph::{Constant, Graph, Node};
use super::place::Files;
use super::weights::{Numbers, Scaled, Weight, kind, weights};
use crate::import::TensorInfo;
use crate::import::quantized::{Grouped, Grouping, Linear};
use crate::import::source_file::SourceFile;
use crate::import::stored::{StoredTensor, Uses};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// What a graph's constants are read as.
pub(super) struct Tensors<'g> {
    graph: &'g Graph,
    pub(super) files: Files,
    /// Weights by their names, and parts of quantized ones by the constants'.
    pub(super) tensors: BTreeMap<String, StoredTensor>,
    pub(super) linear: BTreeMap<String, Linear>,
    pub(super) grouped: BTreeMap<String, Grouped>,
    /// Names of the parts.
    pub(super) parts: BTreeSet<String>,
    pub(super) uses: Uses,
}

impl<'g> Tensors<'g> {
    /// The weights of a graph that lies in this file.
    pub(super) fn of(graph: &'g Graph, file: SourceFile) -> Result<Self> {
        let mut all = Self {
            graph,
            files: Files::new(file),
            tensors: BTreeMap::new(),
            linear: BTreeMap::new(),
            grouped: BTreeMap::new(),
            parts: BTreeSet::new(),
            uses: Uses::default(),
        };
        for weight in weights(graph) {
            all.add(weight)?;
        }
        Ok(all)
    }

    fn add(&mut self, weight: Weight<'g>) -> Result<()> {
        let Weight { names, numbers, as_used, is_needed } = weight;
        let mut names = names.into_iter();
        let Some(name) = names.next() else { return Ok(()) };
        match &numbers.scaled {
            Scaled::No => {
                let tensor = self.tensor(&numbers)?;
                self.insert(&name, tensor)?;
            }
            Scaled::Along { scale, zero, side } => {
                let matrix = self.linear(&numbers, (scale, *zero), *side)?;
                self.linear.insert(name.clone(), matrix);
            }
            Scaled::Blocks(node) => {
                let matrix = self.grouped(numbers.constant, node)?;
                self.grouped.insert(name.clone(), matrix);
            }
        }
        self.uses.aliases.extend(names.map(|alias| (alias, name.clone())));
        if !is_needed {
            self.uses.unlisted.insert(name.clone());
        }
        if as_used {
            self.uses.as_used.insert(name);
        }
        Ok(())
    }

    fn constant(&self, name: &str) -> Result<&'g Constant> {
        let found = self.graph.constants.get(name);
        found.ok_or_else(|| self.files.refused(name, "no constant", "one, as a node takes it"))
    }

    /// A constant as it is used.
    fn tensor(&mut self, numbers: &Numbers<'_>) -> Result<StoredTensor> {
        let (name, constant) = (numbers.constant, self.constant(numbers.constant)?);
        // A number without sides is a vector of one.
        let sides = if constant.sides.is_empty() { &[1] } else { constant.sides.as_slice() };
        let tensor = self.files.tensor(name, constant, sides)?;
        match numbers.turned {
            true => tensor.turned().ok_or_else(|| self.unshaped(name, constant, "a matrix")),
            false => Ok(tensor),
        }
    }

    fn unshaped(&self, name: &str, constant: &Constant, expected: &str) -> Error {
        self.files.refused(format!("dims of {name}"), format!("{:?}", constant.sides), expected)
    }

    fn insert(&mut self, name: &str, tensor: StoredTensor) -> Result<TensorInfo> {
        let info = tensor.info;
        match self.tensors.insert(name.to_owned(), tensor) {
            None => Ok(info),
            Some(_) => Err(self.files.refused(name, "another tensor of this name", "it once")),
        }
    }

    /// A tensor that others are made of.
    fn part(&mut self, name: &str, tensor: StoredTensor) -> Result<TensorInfo> {
        self.parts.insert(name.to_owned());
        self.insert(name, tensor)
    }

    /// A matrix of integers with a scale for all, or for each step along a side.
    fn linear(
        &mut self,
        numbers: &Numbers<'_>,
        (scale, zero): (&str, Option<&str>),
        side: i64,
    ) -> Result<Linear> {
        let name = numbers.constant;
        let constant = self.constant(name)?;
        let signed = match constant.kind {
            kind::I8 => true,
            kind::U8 => false,
            other => {
                let field = format!("data_type of {name}");
                let expected = "2 or 3: integers of 8 bits are read";
                return Err(self.files.refused(field, other.to_string(), expected));
            }
        };
        let tensor = self.tensor(numbers)?;
        let info = self.part(name, tensor)?;
        let scales = self.files.list(scale, self.constant(scale)?)?;
        let zeros = match zero {
            Some(zero) => Some(self.files.list(zero, self.constant(zero)?)?),
            None => None,
        };
        let by_row = (side.rem_euclid(2) == 0) != numbers.turned;
        let found = format!("{} scales", scales.len());
        Linear::new((name, info), signed, (&scales, zeros.as_deref()), by_row).ok_or_else(|| {
            let expected =
                format!("one, or one for each step along a side of {:?}", constant.sides);
            self.files.refused(format!("scale of {name}"), found, &expected)
        })
    }

    /// A matrix of blocks, with the sides that a node says.
    fn grouped(&mut self, name: &str, node: &Node) -> Result<Grouped> {
        let side = |name: &str, default: Option<i64>| {
            let found = node.integer(name).or(default);
            let side = found.and_then(|side| u32::try_from(side).ok()).filter(|side| *side > 0);
            side.ok_or_else(|| {
                let found = found.map_or("none".to_owned(), |found| found.to_string());
                self.files.refused(format!("{name} of a MatMulNBits"), found, "a positive number")
            })
        };
        let (rows, columns) = (side("N", None)?, side("K", None)?);
        let (bits, size) = (side("bits", Some(4))?, side("block_size", None)?);
        if ![2, 4, 8].contains(&bits) || size % 4 != 0 {
            let found = format!("{bits} bits in blocks of {size}");
            let expected = "2, 4 or 8 bits in blocks of whole bytes";
            return Err(self.files.refused(format!("blocks of {name}"), found, expected));
        }
        let grouping = Grouping { rows, columns, bits, size };
        let (blocks, [of_block, of_zeros]) = (u64::from(grouping.blocks()), grouping.bytes());
        let input = |at: usize| node.inputs.get(at).filter(|name| !name.is_empty());
        if let Some(groups) = input(4) {
            let (found, expected) = ("columns in groups of their own order", "columns in order");
            return Err(self.files.refused(groups, found, expected));
        }
        self.rows_of(name, rows, blocks.saturating_mul(of_block), false)?;
        let scales = input(2).cloned().unwrap_or_default();
        self.rows_of(&scales, rows, blocks, true)?;
        if let Some(zeros) = input(3) {
            let integers = self.constant(zeros)?.kind == kind::U8;
            self.rows_of(zeros, rows, if integers { of_zeros } else { blocks }, !integers)?;
        }
        let zeros = input(3).cloned();
        Ok(Grouped { grouping, integers: name.to_owned(), scales, zeros })
    }

    /// Takes a constant as so many rows, of floats or of bytes.
    fn rows_of(&mut self, name: &str, rows: u32, columns: u64, floats: bool) -> Result<()> {
        let constant = self.constant(name)?;
        let sides = [u64::from(rows), columns];
        if constant.count() != columns.checked_mul(rows.into()) {
            let expected =
                format!("{} numbers, as the node says", u128::from(sides[0]) * u128::from(columns));
            return Err(self.unshaped(name, constant, &expected));
        }
        let tensor = self.files.tensor(name, constant, &sides)?;
        if tensor.info.encoding.is_float() != floats || (!floats && constant.kind != kind::U8) {
            let expected = if floats { "floats" } else { "2: bytes" };
            let found = constant.kind.to_string();
            return Err(self.files.refused(format!("data_type of {name}"), found, expected));
        }
        self.part(name, tensor).map(|_| ())
    }
}

//! What a model computes, and where the numbers of each of its tensors come from.

use crate::graph::{Graph, LOGITS, Node};
use crate::import::{Container, Encoding, Fields};
use crate::{Error, Result};
use omex_core::ops::Mask;
use std::collections::{BTreeMap, BTreeSet};

/// A model before its weights are written: what `convert` makes a package of.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// The architecture's name.
    pub family: &'static str,
    /// Its sizes, for people.
    pub sizes: Sizes,
    /// What it computes.
    pub graph: Graph,
    /// The tensors that the graph names, file by file, in the order of use.
    pub files: Vec<Vec<TensorPlan>>,
    /// Token that begins a text, if the model has one.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// How names of stored tensors end that the hyperparameters determine, and nothing reads.
    pub derived: Vec<&'static str>,
    /// How names of stored tensors begin that belong to parts of the model that are left aside.
    pub aside: Vec<String>,
    /// The hyperparameters as a `config.json` has them that another such blueprint can be made of; none
    /// of models that no `config.json` describes.
    pub hyperparameters: Fields,
    /// What is different of a model that takes longer texts, where there is one.
    pub longer: Option<Longer>,
}

/// A model for texts longer than those that it was trained on at first: RoPE has other frequencies there,
/// for all positions of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Longer {
    /// How many positions a text may have at most.
    pub context_length: u32,
    /// The frequencies, by their tensors' names.
    pub(super) frequencies: BTreeMap<String, Vec<f32>>,
}

/// A model's sizes, as far as it has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of the feed-forward layers.
    pub intermediate: u32,
    /// Number of blocks.
    pub layers: u32,
    /// Number of query heads.
    pub heads: u32,
    /// Number of key and value heads.
    pub kv_heads: u32,
    /// Width of a head.
    pub head_width: u32,
}

/// A tensor of the package.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorPlan {
    /// Its name, as the graph has it.
    pub name: String,
    /// What it is used for.
    pub role: Role,
    /// Rows: outputs of a matrix, 1 for a vector.
    pub rows: u32,
    /// Columns: inputs of a matrix, length of a vector.
    pub columns: u32,
    /// The numbers.
    pub data: Data,
    /// Rows of the package's tensor that lie before these, and that files of the kind it is written as do
    /// not have.
    pub skipped: u32,
}

/// What a tensor is used for, which decides how it may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Added or multiplied number by number: always floats.
    Vector,
    /// Multiplied with activations.
    Matrix,
    /// Multiplied with the numbers of a graph over tensors: floats unless a precision is asked for.
    Kernel,
    /// Rows of an integer operation, which are stored as they are.
    Channels,
    /// Matrices one below the other, of which tokens choose some.
    Experts,
    /// One of the first and last matrices of a model, with a row for each token or position:
    /// rounding it costs most.
    Outer,
}

/// The numbers of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// The rows of stored tensors, one after another.
    Stored(Vec<Source>),
    /// Numbers that follow from the hyperparameters.
    Computed(Vec<f32>),
    /// The tensor's bytes.
    Raw(Vec<u8>),
}

/// A stored tensor whose numbers go into a tensor of the package.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Its name in the container.
    pub tensor: String,
    /// Rows and columns that it gives.
    pub shape: [u32; 2],
    /// Which of its rows these are; none for all.
    pub slice: Option<Slice>,
    /// The order in which they are stored.
    pub order: Order,
    /// The order in which the numbers of each row are stored; of a tensor that is stored transposed, its
    /// rows.
    pub columns: Order,
    /// Rows are stored as columns.
    pub transposed: bool,
    /// What is added to each number.
    pub plus: f32,
    /// What is stored is minus the exponential of each number.
    pub negated_exponential: bool,
    /// Of a tensor of three dimensions, the size of the first, whose rows lie one below the other; 0 of
    /// others.
    pub depth: u32,
}

/// Some of the rows of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The first of them.
    pub first: u32,
    /// How many rows the tensor has.
    pub of: u32,
}

/// The order in which a tensor's rows, or a vector's numbers, are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they are used.
    Plain,
    /// For a RoPE that turns neighbours: within each head of this width, the halves' rows alternate.
    Interleaved(u32),
    /// The rows of each of so many heads together, in parts of these widths: its query's, its key's, its
    /// value's, ...
    ByHead {
        /// Number of heads.
        heads: u32,
        /// Rows of each part; 0 for no part.
        parts: [u32; 4],
    },
    /// From `first` on, the first of the heads of values of each head of keys, then all their second ones, ...
    Tiled {
        /// What lies before them as it is used.
        first: u32,
        /// Number of heads of keys, and of heads of values of each.
        heads: [u32; 2],
        /// Rows of a head of values.
        width: u32,
    },
}

impl Order {
    /// Where what is used as number `row` is stored.
    ///
    /// Programs here turn row `i` of a head with row `i + width / 2`, llama2.c and GGUF's Llamas row
    /// `2 * i` with row `2 * i + 1`.
    #[must_use]
    pub fn place(self, row: u32) -> u32 {
        match self {
            Self::Plain => row,
            Self::ByHead { heads, parts } => {
                let (mut row, mut before) = (row, 0);
                for width in parts {
                    if row < heads * width {
                        let of_head = parts.iter().sum::<u32>();
                        return row / width * of_head + before + row % width;
                    }
                    row -= heads * width;
                    before += width;
                }
                row
            }
            Self::Interleaved(width) => {
                let (within, half) = (row % width, width / 2);
                let pair = within % half;
                row - within + 2 * pair + within / half
            }
            Self::Tiled { first, heads: [keys, values], width } => {
                let Some(behind) = row.checked_sub(first) else { return row };
                let (head, within) = (behind / width, behind % width);
                first + (head % values * keys + head / values) * width + within
            }
        }
    }

    /// True if as many as are stored as a block stay side by side.
    #[must_use]
    pub fn keeps(self, block: u32) -> bool {
        match self {
            Self::Plain => true,
            Self::Tiled { first, width, .. } => {
                first.is_multiple_of(block) && width.is_multiple_of(block)
            }
            Self::Interleaved(_) | Self::ByHead { .. } => block == 1,
        }
    }
}

impl Source {
    /// All rows of a tensor, in their order.
    pub(super) fn whole(tensor: impl Into<String>, shape: [u32; 2]) -> Self {
        Self {
            tensor: tensor.into(),
            shape,
            slice: None,
            order: Order::Plain,
            columns: Order::Plain,
            transposed: false,
            plus: 0.0,
            negated_exponential: false,
            depth: 0,
        }
    }

    /// One of so many parts of a tensor that lie one below the other and are of one shape.
    pub(super) fn one_of(self, number: u32, parts: u32) -> Self {
        let rows = self.read_shape()[0];
        let depth = if rows > 1 { parts } else { 0 };
        Self { slice: Some(Slice { first: number * rows, of: parts * rows }), depth, ..self }
    }

    /// All of so many parts.
    pub(super) fn all_of(tensor: impl Into<String>, shape: [u32; 2], parts: u32) -> Self {
        Self { depth: parts, ..Self::whole(tensor, shape) }
    }

    /// Where the row, or a vector's number, that is used as number `row` is stored among those that are
    /// read here. Of a tensor that is stored transposed, it is a column.
    #[must_use]
    pub fn stored_row(&self, row: u32) -> u32 {
        self.order.place(row)
    }

    /// Where the number of a row that is used as number `column` is stored there. Of a tensor that is stored
    /// transposed, it is a row.
    #[must_use]
    pub fn stored_column(&self, column: u32) -> u32 {
        self.columns.place(column)
    }

    /// The first row of the stored tensor that is read.
    #[must_use]
    pub fn first_row(&self) -> u32 {
        self.slice.map_or(0, |slice| slice.first)
    }

    /// Rows and columns of the stored tensor that are read.
    #[must_use]
    pub fn read_shape(&self) -> [u32; 2] {
        let [rows, columns] = self.shape;
        if self.transposed { [columns, rows] } else { [rows, columns] }
    }

    /// Rows and columns that the stored tensor must have.
    #[must_use]
    pub fn stored_shape(&self) -> [u32; 2] {
        let [rows, columns] = self.read_shape();
        [self.slice.map_or(rows, |slice| slice.of), columns]
    }
}

impl TensorPlan {
    /// The sizes that a tensor has where this is stored, the outermost first.
    #[must_use]
    pub fn dimensions(&self, source: &Source) -> Vec<u32> {
        let [rows, columns] = source.stored_shape();
        match source.depth {
            0 if self.role == Role::Vector && rows == 1 => vec![columns],
            0 => vec![rows, columns],
            depth => vec![depth, rows / depth, columns],
        }
    }

    /// The stored tensors that its rows come from.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        match &self.data {
            Data::Stored(sources) => sources,
            Data::Computed(_) | Data::Raw(_) => &[],
        }
    }

    /// Numbers that the model had to learn.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let numbers = |source: &Source| source.shape.map(u64::from).into_iter().product::<u64>();
        self.sources().iter().map(numbers).sum()
    }
}

/// What makes keys and values of latents, where converters keep it as one: keys are read as columns of it.
const KEPT_JOINT: &str = ".kv_b_proj.weight";

impl Blueprint {
    /// The tensors that the graph names.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorPlan> {
        self.files.iter().flatten()
    }

    /// Numbers that the model had to learn; shared ones count once.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.tensors().map(TensorPlan::parameters).sum()
    }

    /// True if the model goes on with a text token by token.
    #[must_use]
    pub fn writes_texts(&self) -> bool {
        let mut nodes = self.graph.subgraphs.values().flatten().chain(&self.graph.nodes);
        let sees_all = nodes.any(|node| matches!(node, Node::Attend(op) if op.mask == Mask::Full));
        !sees_all && self.graph.outputs.iter().any(|output| output.name == LOGITS)
    }

    /// The model for longer texts, if there is one.
    #[must_use]
    pub fn lengthened(mut self) -> Option<Self> {
        let Longer { context_length, mut frequencies } = self.longer.take()?;
        self.graph.context_length = context_length;
        for plan in self.files.iter_mut().flatten() {
            if let Some(frequencies) = frequencies.remove(&plan.name) {
                plan.data = Data::Computed(frequencies);
            }
        }
        Some(self)
    }

    /// Gives the stored tensors the names that another container has for them.
    ///
    /// # Errors
    /// What `name` says of a tensor that has none.
    pub(super) fn rename(&mut self, name: impl Fn(&str) -> Result<String>) -> Result<()> {
        for source in self.sources_mut() {
            source.tensor = name(&source.tensor)?;
        }
        Ok(())
    }

    /// Takes stored tensors as converters to GGUF leave them: nothing transposed, and what is to be added
    /// to them added.
    pub(super) fn as_converted(&mut self) {
        for source in self.sources_mut() {
            source.plus = 0.0;
            // Decay is stored as it is used; a Mamba's heads are rows of one number.
            source.negated_exponential = source.tensor.ends_with(".A_log");
            if [".mamba.A_log", ".mamba.D"].iter().any(|end| source.tensor.ends_with(end)) {
                source.shape = [source.shape[1], 1];
            }
            // Convolutions lose the dimension that is 1, and nothing else.
            if source.depth > 0 && source.depth == source.stored_shape()[0] {
                source.depth = 0;
            } else if !source.tensor.ends_with(KEPT_JOINT) {
                source.transposed = false;
            }
        }
    }

    /// The stored tensors that it is made of.
    pub(super) fn sources_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        let plans = self.files.iter_mut().flatten();
        plans.flat_map(|plan| match &mut plan.data {
            Data::Stored(sources) => sources.as_mut_slice(),
            Data::Computed(_) | Data::Raw(_) => &mut [],
        })
    }

    /// What is wrong with a container that is to have the tensors that this model is made of, and no
    /// others.
    pub(super) fn problems(&self, container: &dyn Container) -> Vec<Error> {
        let sources = || self.tensors().flat_map(TensorPlan::sources);
        // Before what is missing: a type says more about what is wrong.
        let types = sources().map(|source| check_type(container, source));
        let shapes = sources().map(|source| check_source(container, source));
        let used: BTreeSet<_> = sources().map(|source| source.tensor.as_str()).collect();
        let known = |name: &str| {
            used.contains(name)
                || self.derived.iter().any(|end| name.ends_with(end))
                || self.aside.iter().any(|start| name.starts_with(start.as_str()))
        };
        let names = container.names();
        let unknown = names.iter().filter(|name| !known(name));
        let unknown = unknown.map(|name| self.surplus(container, name));
        types.chain(shapes).filter_map(Result::err).chain(unknown).collect()
    }

    fn surplus(&self, container: &dyn Container, name: &str) -> Error {
        Error::malformed(
            container.tensor_path(name),
            name,
            format!("a tensor that a {} with these hyperparameters does not have", self.family),
            "only those that it has: no other biases, no adapters, no other experts",
            "merge adapters first; other variants of the architecture are not supported",
        )
    }
}

fn check_source(container: &dyn Container, source: &Source) -> Result<()> {
    let [rows, columns] = source.stored_shape();
    let (name, expected) = (source.tensor.as_str(), format!("shape [{rows}, {columns}]"));
    let Some(found) = container.tensor(name) else {
        let remedy = "a file is missing, or the hyperparameters are another model's";
        return Err(Error::malformed(container.path(), name, "no tensor", expected, remedy));
    };
    if (found.rows, found.columns) == (rows, columns) {
        return Ok(());
    }
    let found = format!("shape [{}, {}]", found.rows, found.columns);
    let remedy = "the hyperparameters are another model's: get the files again";
    Err(Error::malformed(container.tensor_path(name), name, found, expected, remedy))
}

/// Refuses a tensor whose numbers are of a type that is not read.
fn check_type(container: &dyn Container, source: &Source) -> Result<()> {
    let name = source.tensor.as_str();
    let Some(Encoding::Other(kind, _)) = container.tensor(name).map(|info| info.encoding) else {
        return Ok(());
    };
    let (field, expected) = (format!("dtype of {name}"), "F32, F16, BF16 or F8");
    let remedy = "convert the model to one of these types";
    Err(Error::malformed(container.tensor_path(name), field, kind, expected, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_rows_are_found_within_their_head() {
        let order = Order::Interleaved(6);
        let source = Source { order, ..Source::whole("q", [12, 1]) };
        let stored: Vec<u32> = (0..12).map(|row| source.stored_row(row)).collect();
        assert_eq!(stored, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }

    #[test]
    fn rows_of_heads_that_are_tiled_are_found_behind_those_that_are_not() {
        let order = Order::Tiled { first: 1, heads: [2, 3], width: 2 };
        let stored: Vec<u32> = (0..13).map(|row| order.place(row)).collect();
        assert_eq!(stored, [0, 1, 2, 5, 6, 9, 10, 3, 4, 7, 8, 11, 12]);
        assert!(!order.keeps(2) && Order::Tiled { first: 64, heads: [2, 3], width: 32 }.keeps(32));
    }

    #[test]
    fn rows_by_head_are_found_among_those_of_the_head() {
        let order = Order::ByHead { heads: 2, parts: [2, 2, 2, 0] };
        let source = Source { order, ..Source::whole("q", [12, 1]) };
        let stored: Vec<u32> = (0..12).map(|row| source.stored_row(row)).collect();
        assert_eq!(stored, [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
        let source = Source { order: Order::ByHead { heads: 2, parts: [1, 3, 0, 2] }, ..source };
        let stored: Vec<u32> = (0..12).map(|row| source.stored_row(row)).collect();
        assert_eq!(stored, [0, 6, 1, 2, 3, 7, 8, 9, 4, 5, 10, 11]);
    }
}

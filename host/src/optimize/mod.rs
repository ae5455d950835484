//! Graphs of floats made graphs of signed bytes, by what their values are for some inputs (post-training
//! quantization).
//!
//! `source` reads a package, `observe` runs it over the inputs and notes the ranges of all values, and with these
//! [`crate::arch`] draws the graph again with operations of bytes where there are some.

mod observe;
mod options;
mod samples;
mod source;

use crate::arch::{Step, Steps, apart, in_bytes};
use crate::convert::{check_output, convert_drawn};
use crate::npy::Array;
use crate::package::Package;
use crate::{Error, Result};
use observe::{compare, observe, run};
pub use options::{Apart, OptimizeOptions, Optimized};
pub use samples::samples;
use source::Source;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Quantizes the package at `model` by the samples, each an array for its only input, into a package at `output`.
///
/// # Errors
/// A package that can't be read, or that is no graph of floats over one array; samples that do not fit; an output
/// that can't be written; [`Error::Interrupted`].
pub fn optimize(
    model: &Path,
    samples: &[(PathBuf, Array)],
    output: &Path,
    options: &OptimizeOptions<'_>,
) -> Result<Optimized> {
    check_output(output, options.convert.force)?;
    let package = Package::open(model)?;
    let mut source = Source::read(&package)?;
    apart(&mut source.graph);
    let (floats, ranges) = observe(&source, samples, options)?;
    let steps: BTreeMap<_, _> =
        ranges.into_iter().map(|(name, range)| (name, Step::of(range))).collect();
    let steps = Steps { results: steps.clone(), operands: steps, exact: false };
    let drawn = in_bytes(&source.graph, &source.tensors, &steps);
    if drawn.operations[0] == 0 {
        let expected = "convolutions, matrices, poolings or sums of floats";
        let remedy = "leave this model as it is";
        let found = "no operation that has a form in signed bytes";
        return Err(Error::malformed(model, "graph.json", found, expected, remedy));
    }
    let name = &package.metadata.name;
    let format = &package.metadata.source_format;
    let blueprint = source.blueprint(drawn.graph, drawn.tensors);
    let written =
        convert_drawn(&source, blueprint, format, name, output, &options.convert, &mut |_, _| {})?;
    let found = run(output, samples, options)?;
    Ok(Optimized {
        bytes: [package.index.space(), written.index.space()],
        operations: drawn.operations,
        outputs: compare(&floats, &found),
    })
}

//! What a graph's values are, over samples.

use super::options::{Apart, OptimizeOptions};
use super::source::Source;
use crate::arch::Blueprint;
use crate::convert::{ConvertOptions, convert_drawn};
use crate::graph::{Port, ValueShape};
use crate::infer::{Input, infer};
use crate::npy::Array;
use crate::quantize::Precision;
use crate::session::{Session, SessionOptions};
use crate::{Error, Result};
use omex_core::program::Dtype;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The least and the largest number of each value, by its name.
pub(super) type Ranges = BTreeMap<String, [f32; 2]>;
/// The outputs of each sample by name.
pub(super) type Outputs = Vec<BTreeMap<String, Vec<f32>>>;

/// What the names of outputs begin with that show a value.
const SHOWN: &str = "value ";

/// The outputs over all samples, and the ranges of all values.
pub(super) fn observe(
    source: &Source,
    samples: &[(PathBuf, Array)],
    options: &OptimizeOptions<'_>,
) -> Result<(Outputs, Ranges)> {
    let failed = |error| Error::io(Path::new("a temporary folder"), "create", error);
    let folder = tempfile::tempdir().map_err(failed)?;
    let package = folder.path().join("observed.omex");
    let convert = ConvertOptions {
        precision: Some(Precision::F32),
        cancel: options.convert.cancel.clone(),
        ..ConvertOptions::default()
    };
    let drawn = observed(source);
    convert_drawn(source, drawn, "tflite", "observed", &package, &convert, &mut |_, _| {})?;
    let all = run(&package, samples, options)?;
    let mut ranges = Ranges::new();
    let mut note = |name: &str, numbers: &[f32]| {
        let [low, high] = range(numbers, options.percentile);
        let noted = ranges.entry(name.to_owned()).or_insert([0.0, 0.0]);
        *noted = [noted[0].min(low), noted[1].max(high)];
    };
    for port in &source.graph.inputs {
        for (_, array) in samples {
            note(&port.value.name, &floats(array));
        }
    }
    for outputs in &all {
        for (name, numbers) in outputs {
            if let Some(value) = name.strip_prefix(SHOWN) {
                note(value, numbers);
            }
        }
    }
    let own = |outputs: BTreeMap<String, Vec<f32>>| {
        outputs.into_iter().filter(|(name, _)| !name.starts_with(SHOWN)).collect()
    };
    Ok((all.into_iter().map(own).collect(), ranges))
}

/// The graph, which gives out all values.
fn observed(source: &Source) -> Blueprint {
    let mut graph = source.graph.clone();
    let is_port = |name: &str, ports: &[Port]| ports.iter().any(|port| port.value.name == name);
    let shown = |(name, shape): (&String, &ValueShape)| {
        let value = shape.dtype == Dtype::F32 && !is_port(name, &graph.inputs);
        value.then(|| Port { name: format!("{SHOWN}{name}"), ..Port::of(name) })
    };
    let ports: Vec<Port> = graph.values.iter().filter_map(shown).collect();
    graph.outputs.extend(ports);
    source.blueprint(graph, source.tensors.clone())
}

/// The floats that a package makes of each sample.
pub(super) fn run(
    package: &Path,
    samples: &[(PathBuf, Array)],
    options: &OptimizeOptions<'_>,
) -> Result<Outputs> {
    let session =
        SessionOptions { cancel: options.convert.cancel.clone(), ..SessionOptions::default() };
    let mut session = Session::open(package, &session)?;
    let mut all = vec![];
    for (path, array) in samples {
        options.convert.cancel.check()?;
        let input = Input { name: None, path, array: array.clone() };
        let outputs = infer(&mut session, &[input])?;
        all.push(outputs.iter().map(|(name, array)| (name.clone(), floats(array))).collect());
    }
    Ok(all)
}

fn floats(array: &Array) -> Vec<f32> {
    array.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The least and the largest of so many percent of the numbers.
fn range(numbers: &[f32], percentile: f64) -> [f32; 2] {
    let mut sorted = numbers.to_vec();
    let left = ((1.0 - percentile / 100.0) / 2.0 * sorted.len() as f64).round() as usize;
    let Some(last) = sorted.len().checked_sub(1) else { return [0.0, 0.0] };
    let left = left.min(last / 2);
    let (_, low, _) = sorted.select_nth_unstable_by(left, f32::total_cmp);
    let low = *low;
    let (_, high, _) = sorted.select_nth_unstable_by(last - left, f32::total_cmp);
    [low, *high]
}

/// How far outputs are apart.
pub(super) fn compare(before: &Outputs, after: &Outputs) -> Vec<Apart> {
    let names = before.first().into_iter().flat_map(BTreeMap::keys);
    let of = |name: &String| {
        let (mut differences, mut products, mut same, mut count) = (0.0, [0.0; 3], 0.0, 0.0);
        for (before, after) in before.iter().zip(after) {
            let (Some(x), Some(y)) = (before.get(name), after.get(name)) else { continue };
            for (x, y) in x.iter().zip(y) {
                let (x, y) = (f64::from(*x), f64::from(*y));
                differences += (x - y).powi(2);
                let sums = products.iter_mut().zip([x * x, x * y, y * y]);
                sums.for_each(|(sum, product)| *sum += product);
            }
            same += f64::from(u8::from(largest(x) == largest(y)));
            count += 1.0;
        }
        let part = |of: f64, all: f64| of / f64::max(all, f64::MIN_POSITIVE);
        let [squares, product, others] = products;
        Apart {
            name: name.clone(),
            error: part(differences, squares).sqrt(),
            cosine: part(product, (squares * others).sqrt()),
            same_largest: part(same, count),
        }
    };
    names.map(of).collect()
}

fn largest(numbers: &[f32]) -> Option<usize> {
    let numbered = numbers.iter().enumerate();
    numbered.max_by(|a, b| a.1.total_cmp(b.1)).map(|(at, _)| at)
}

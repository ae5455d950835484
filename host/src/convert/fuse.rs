//! Fusing products: matrices with the same input, whose results lie side by side, become one matrix,
//! which is read and multiplied at once.

use super::weights::Planned;
use crate::arch::Data;
use crate::graph::{Graph, Node, ValueRef, name_in_layer};
use omex_core::quant::Format;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Fuses what can be fused, in the graph and in the files.
pub(super) fn fuse(graph: &mut Graph, files: &mut [Vec<Planned>]) {
    let layers: BTreeMap<String, u32> = graph.nodes.iter().filter_map(repetition).collect();
    let widths = graph.values.iter().map(|(name, shape)| (name.clone(), shape.width)).collect();
    let (shared, places) = (shared_weights(graph), places(files));
    let bodies = graph.subgraphs.iter_mut();
    let bodies = bodies.map(|(name, body)| (body, layers.get(name).copied().unwrap_or(0)));
    for (body, layers) in bodies.chain([(&mut graph.nodes, 1)]) {
        // From the end on, so that the numbers of the nodes before stay what they are.
        for run in runs(body, &widths).into_iter().rev() {
            let weights: Vec<String> = body[run.clone()].iter().filter_map(weight).collect();
            let own = weights.iter().all(|weight| !shared.contains(weight));
            let file = |layer| common_file(&places, &weights, layer);
            let Some(of_layers) = (0..layers).map(file).collect::<Option<Vec<_>>>() else {
                continue;
            };
            if own {
                let fused = fuse_run(body, run);
                for (layer, file) in (0..).zip(of_layers) {
                    fuse_tensors(&mut files[file], &weights, &fused, layer);
                }
            }
        }
    }
}

/// The matrix of a product.
fn weight(node: &Node) -> Option<String> {
    match node {
        Node::Linear(op) => Some(op.weight.clone()),
        _ => None,
    }
}

/// A name in a layer; one that is none is left as it is, and refused when the graph is compiled.
fn in_layer(name: &str, layer: u32) -> String {
    name_in_layer(name, layer).unwrap_or_else(|_| name.to_owned())
}

/// The file and the format of each tensor.
type Places = BTreeMap<String, (usize, Format)>;

fn places(files: &[Vec<Planned>]) -> Places {
    let tensors = files.iter().enumerate().flat_map(|(number, file)| {
        file.iter().map(move |tensor| (tensor.plan.name.clone(), (number, tensor.format)))
    });
    tensors.collect()
}

/// The file that holds these weights of a layer, if one does, and all have one format.
fn common_file(places: &Places, weights: &[String], layer: u32) -> Option<usize> {
    let mut places = weights.iter().map(|weight| places.get(&in_layer(weight, layer)));
    let first = places.next()??;
    places.all(|place| place == Some(first)).then_some(first.0)
}

fn repetition(node: &Node) -> Option<(String, u32)> {
    match node {
        Node::Repeat { subgraph, layers } => Some((subgraph.clone(), *layers)),
        _ => None,
    }
}

/// Weights that several nodes use.
fn shared_weights(graph: &Graph) -> BTreeSet<String> {
    let (mut seen, mut shared) = (BTreeSet::new(), BTreeSet::new());
    for node in graph.nodes.iter().chain(graph.subgraphs.values().flatten()) {
        shared.extend(node.weights().into_iter().filter(|weight| !seen.insert(weight.clone())));
    }
    shared
}

/// Products one after another whose results, side by side, fill a value.
fn runs(body: &[Node], widths: &BTreeMap<String, u32>) -> Vec<Range<usize>> {
    let (mut runs, mut start) = (vec![], 0);
    while start < body.len() {
        let mut end = start;
        let mut filled = 0;
        while let Some((input, name, rows)) = body.get(end).and_then(part) {
            let first = body.get(start).and_then(part);
            let same = first.is_some_and(|(i, n, _)| i == input && n == name);
            if !same || rows.0 != filled {
                break;
            }
            (end, filled) = (end + 1, rows.1);
        }
        let whole = body.get(start).and_then(part).and_then(|(_, name, _)| widths.get(name));
        if end > start + 1 && whole == Some(&filled) {
            runs.push(start..end);
        }
        start = end.max(start + 1);
    }
    runs
}

/// The input of a product, and the part of a value that it writes.
fn part(node: &Node) -> Option<(&ValueRef, &str, (u32, u32))> {
    match node {
        Node::Linear(op) if !op.accumulate && op.bias.is_none() => {
            Some((&op.input, op.output.name.as_str(), op.output.rows?))
        }
        _ => None,
    }
}

/// Makes one product of several, and says what its weight is called: as the value that it fills,
/// where the first one was.
fn fuse_run(body: &mut Vec<Node>, run: Range<usize>) -> String {
    let mut fused = String::new();
    if let Some(Node::Linear(op)) = body.get_mut(run.start) {
        let place = op.weight.rsplit_once('.').map_or("", |(place, _)| place);
        fused = format!("{place}.{}", op.output.name);
        op.weight.clone_from(&fused);
        op.output.rows = None;
    }
    body.drain(run.start + 1..run.end);
    fused
}

/// Puts the rows of a layer's tensors one after another, where the first one was.
fn fuse_tensors(file: &mut Vec<Planned>, weights: &[String], fused: &str, layer: u32) {
    let names: Vec<_> = weights.iter().map(|weight| in_layer(weight, layer)).collect();
    let place = |name: &String| file.iter().position(|tensor| tensor.plan.name == *name);
    let parts: Vec<_> = names.iter().filter_map(place).map(|at| file[at].plan.clone()).collect();
    let Some(at) = names.first().and_then(place) else { return };
    let plan = &mut file[at].plan;
    plan.name = in_layer(fused, layer);
    plan.rows = parts.iter().map(|part| part.rows).sum();
    plan.data = Data::Stored(parts.iter().flat_map(|part| part.sources()).cloned().collect());
    file.retain(|tensor| !names.contains(&tensor.plan.name));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{Blueprint, blueprint};
    use crate::quantize::Precision;
    use crate::synth::{RandomModel, SHAPES};

    fn drawn() -> (Blueprint, Vec<Vec<Planned>>) {
        let model = RandomModel::new(&SHAPES[0], Precision::F16, 0).unwrap();
        let blueprint = blueprint(&model).unwrap();
        let planned = |file: &Vec<_>| {
            let plans = file.iter().cloned();
            plans.map(|plan| Planned { plan, format: Format::Int8, plane: 0 }).collect()
        };
        let files = blueprint.files.iter().map(planned).collect();
        (blueprint, files)
    }

    fn names(files: &[Vec<Planned>]) -> Vec<&str> {
        files[1].iter().map(|tensor| tensor.plan.name.as_str()).collect()
    }

    #[test]
    fn products_of_one_value_become_one() {
        let (Blueprint { mut graph, .. }, mut files) = drawn();
        fuse(&mut graph, &mut files);
        assert_eq!(
            names(&files)[..3],
            ["layers.1.attention_norm", "layers.1.attention.qkv", "layers.1.attention.output",]
        );
        assert_eq!(
            names(&files)[4..],
            ["layers.1.feed_forward.gate_up", "layers.1.feed_forward.down"]
        );
        let qkv = &files[1][1].plan;
        let sources: Vec<_> = qkv.sources().iter().map(|source| source.tensor.as_str()).collect();
        assert_eq!(
            sources,
            ["q", "k", "v"].map(|part| format!("model.layers.1.self_attn.{part}_proj.weight"))
        );
        assert_eq!((qkv.rows, qkv.columns), (96 + 2 * 48, 96));
        let body = &graph.subgraphs["block"];
        let weights: Vec<_> = body.iter().flat_map(Node::weights).collect();
        let has = |name: &str| weights.iter().any(|weight| weight == name);
        assert!(has("layers.{layer}.attention.qkv") && !has("layers.{layer}.attention.key"));
    }

    #[test]
    fn formats_that_differ_in_one_layer_stay_apart_in_all() {
        let (Blueprint { mut graph, .. }, mut files) = drawn();
        let key = files[3].iter_mut().find(|t| t.plan.name == "layers.3.attention.key").unwrap();
        key.format = Format::Int4;
        fuse(&mut graph, &mut files);
        let names = names(&files);
        assert_eq!(
            names[1..4],
            ["query", "key", "value"].map(|part| format!("layers.1.attention.{part}"))
        );
        assert!(names.contains(&"layers.1.feed_forward.gate_up"));
    }

    #[test]
    fn a_weight_with_another_use_stays_what_it_is() {
        let (Blueprint { mut graph, .. }, mut files) = drawn();
        let block = graph.subgraphs.get_mut("block").unwrap();
        let up = block.iter().find(|node| node.weights().iter().any(|w| w.ends_with(".up")));
        let again = up.unwrap().clone();
        block.push(again);
        fuse(&mut graph, &mut files);
        assert!(names(&files).contains(&"layers.1.feed_forward.up"));
        assert!(names(&files).contains(&"layers.1.attention.qkv"));
    }
}

//! Fusing products: matrices with the same input, whose results lie side by side, become one matrix,
//! which is read and multiplied at once.

use super::planned::Planned;
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
            let operands = operands(&body[run.clone()]);
            let own = operands.iter().flatten().all(|weight| !shared.contains(weight));
            let joins = |layer| operands.iter().map(move |names| Join::new(names, layer));
            let joins: Option<Vec<Join>> = (0..layers).flat_map(joins).collect();
            let Some(joins) = joins.filter(|joins| own && joins.iter().all(|j| j.fits(&places)))
            else {
                continue;
            };
            let fused = fuse_run(body, run);
            let names = (0..layers).flat_map(|layer| {
                fused.iter().filter_map(move |name| name_in_layer(name, layer).ok())
            });
            joins.iter().zip(names).for_each(|(join, name)| join.apply(files, &places, name));
        }
    }
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
        let first = body.get(start).and_then(fusible);
        while let Some(product) = body.get(end).and_then(fusible) {
            if first.as_ref().is_none_or(|first| !first.goes_with(&product))
                || product.rows.0 != filled
            {
                break;
            }
            (end, filled) = (end + 1, product.rows.1);
        }
        let whole = first.and_then(|first| widths.get(first.output));
        if end > start + 1 && whole == Some(&filled) {
            runs.push(start..end);
        }
        start = end.max(start + 1);
    }
    runs
}

/// A product that can be fused with its neighbours: it writes some rows of a value.
struct Fusible<'n> {
    input: &'n ValueRef,
    output: &'n str,
    rows: (u32, u32),
    has_bias: bool,
}

impl Fusible<'_> {
    fn goes_with(&self, other: &Fusible<'_>) -> bool {
        let of =
            |product: &Self| (product.input.clone(), product.output.to_owned(), product.has_bias);
        of(self) == (other.input.clone(), other.output.to_owned(), other.has_bias)
    }
}

fn fusible(node: &Node) -> Option<Fusible<'_>> {
    let Node::Linear(op) = node else { return None };
    let (input, output, has_bias) = (&op.input, op.output.name.as_str(), op.bias.is_some());
    let rows = op.output.rows.filter(|_| !op.accumulate)?;
    Some(Fusible { input, output, rows, has_bias })
}

/// What the products have: their weights, and their biases, if they have any.
fn operands(products: &[Node]) -> Vec<Vec<String>> {
    let of = |nodes: &[Node]| nodes.iter().map(Node::weights).collect::<Vec<_>>();
    let weights = of(products);
    let count = weights.first().map_or(0, Vec::len);
    (0..count).map(|i| weights.iter().filter_map(|w| w.get(i).cloned()).collect()).collect()
}

/// The file and the format of each tensor.
type Places = BTreeMap<String, (usize, Format)>;

fn places(files: &[Vec<Planned>]) -> Places {
    let tensors = files.iter().enumerate().flat_map(|(number, file)| {
        file.iter().map(move |tensor| (tensor.plan.name.clone(), (number, tensor.format)))
    });
    tensors.collect()
}

/// Tensors that become one.
struct Join {
    names: Vec<String>,
}

impl Join {
    fn new(names: &[String], layer: u32) -> Option<Self> {
        let names = names.iter().map(|name| name_in_layer(name, layer).ok());
        names.collect::<Option<_>>().map(|names| Self { names })
    }

    /// True if they are in one file, and have one format.
    fn fits(&self, places: &Places) -> bool {
        let mut places = self.names.iter().map(|name| places.get(name));
        let first = places.next().flatten();
        first.is_some() && places.all(|place| place == first)
    }

    /// Puts the rows of the tensors, or the numbers of vectors, one after another, where the first
    /// one was.
    fn apply(&self, files: &mut [Vec<Planned>], places: &Places, name: String) {
        let file = self.names.first().and_then(|name| places.get(name)).map(|(file, _)| *file);
        let Some(file) = file.and_then(|file| files.get_mut(file)) else { return };
        let place = |name: &String| file.iter().position(|tensor| tensor.plan.name == *name);
        let parts = self.names.iter().filter_map(place);
        let parts: Vec<_> = parts.map(|at| file[at].plan.clone()).collect();
        let Some(at) = self.names.first().and_then(place) else { return };
        let (format, plan) = (file[at].format, &mut file[at].plan);
        match format {
            Format::Vector => plan.columns = parts.iter().map(|part| part.columns).sum(),
            _ => plan.rows = parts.iter().map(|part| part.rows).sum(),
        }
        plan.name = name;
        plan.data = Data::Stored(parts.iter().flat_map(|part| part.sources()).cloned().collect());
        file.retain(|tensor| !self.names.contains(&tensor.plan.name));
    }
}

/// Makes one product of several, and says what its weights are called: as the value that it fills,
/// where the first ones were.
fn fuse_run(body: &mut Vec<Node>, run: Range<usize>) -> Vec<String> {
    let mut fused = vec![];
    if let Some(Node::Linear(op)) = body.get_mut(run.start) {
        let place = op.weight.rsplit_once('.').map_or("", |(place, _)| place);
        let name = format!("{place}.{}", op.output.name);
        op.bias = op.bias.take().map(|_| format!("{name}_bias"));
        fused.extend(op.bias.clone());
        fused.push(name.clone());
        op.weight = name;
        op.output.rows = None;
    }
    body.drain(run.start + 1..run.end);
    fused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{Blueprint, Role, TensorPlan, blueprint};
    use crate::quantize::Precision;
    use crate::synth::{RandomModel, SHAPES};

    fn drawn() -> (Blueprint, Vec<Vec<Planned>>) {
        planned(&RandomModel::new(&SHAPES[0], Precision::F16, 0).unwrap())
    }

    fn planned(model: &RandomModel) -> (Blueprint, Vec<Vec<Planned>>) {
        let blueprint = blueprint(model).unwrap();
        let planned = |plan: &TensorPlan| {
            let format = if plan.role == Role::Vector { Format::Vector } else { Format::Int8 };
            Planned { plan: plan.clone(), format, plane: 0 }
        };
        let files = blueprint.files.iter().map(|file| file.iter().map(planned).collect());
        let files = files.collect();
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
        assert!(weights.contains(&"layers.{layer}.attention.qkv".to_owned()));
        assert!(!weights.contains(&"layers.{layer}.attention.key".to_owned()));
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
    fn with_biases() -> (Blueprint, Vec<Vec<Planned>>) {
        let config = serde_json::json!({
            "model_type": "qwen2", "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "vocab_size": 8,
        });
        let config = config.as_object().unwrap().clone();
        planned(&RandomModel::with_config(std::path::Path::new("config.json"), config).unwrap())
    }

    #[test]
    fn biases_become_one_with_their_products() {
        let (Blueprint { mut graph, .. }, mut files) = with_biases();
        fuse(&mut graph, &mut files);
        assert_eq!(names(&files)[1..3], ["layers.1.attention.qkv_bias", "layers.1.attention.qkv"]);
        let bias = &files[1][1].plan;
        assert_eq!((bias.rows, bias.columns, bias.sources().len()), (1, 32 + 2 * 16, 3));
    }

    #[test]
    fn a_product_without_a_bias_stays_apart_from_those_with_one() {
        let (Blueprint { mut graph, .. }, mut files) = with_biases();
        let block = graph.subgraphs.get_mut("block").unwrap();
        for node in block.iter_mut() {
            if let Node::Linear(op) = node
                && op.weight.ends_with(".key")
            {
                op.bias = None;
            }
        }
        fuse(&mut graph, &mut files);
        assert!(names(&files).contains(&"layers.1.attention.key"));
    }
}

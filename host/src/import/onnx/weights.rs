//! Which constants of a graph are weights, what they are called, and how they are used.

use super::graph::{Constant, Graph, Node};
use super::names::{is_parameter, part, quantization, unquantized};
use std::collections::{BTreeMap, BTreeSet};

/// The format's numbers for types.
pub(super) mod kind {
    pub(in super::super) const F32: u64 = 1;
    pub(in super::super) const U8: u64 = 2;
    pub(in super::super) const I8: u64 = 3;
    pub(in super::super) const F16: u64 = 10;
    pub(in super::super) const F64: u64 = 11;
    pub(in super::super) const BF16: u64 = 16;
    pub(in super::super) const F8_E4M3: u64 = 17;
    pub(in super::super) const F8_E5M2: u64 = 19;
}

/// A constant, or several that stand for one matrix.
#[derive(Debug)]
pub(super) struct Weight<'g> {
    /// What it is called; it is listed under the first.
    pub(super) names: Vec<String>,
    pub(super) numbers: Numbers<'g>,
    /// It is what the model computes with: a row for each output, factors with all that is added to them.
    pub(super) as_used: bool,
    /// It is more than a setting that the graph holds as a number.
    pub(super) is_needed: bool,
}

/// Names of the constants that a weight's numbers are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Numbers<'g> {
    pub(super) constant: &'g str,
    /// Rows are stored as columns.
    pub(super) turned: bool,
    pub(super) scaled: Scaled<'g>,
}

/// How integers stand for numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scaled<'g> {
    /// They are none.
    No,
    /// One scale and zero point for all, or one for each step along this side.
    Along { scale: &'g str, zero: Option<&'g str>, side: i64 },
    /// A scale for so many numbers of a row, by a node with the rest.
    Blocks(&'g Node),
}

/// A node's use of a constant.
struct Use<'g> {
    /// What the parameter is called whose module the node belongs to.
    name: Option<String>,
    numbers: Numbers<'g>,
    /// It multiplies matrices, or looks up rows of one: the constant is a weight whatever it is called.
    is_matrix: bool,
    as_used: bool,
}

/// What nodes do with the constants.
#[derive(Default)]
struct Uses<'g> {
    /// By the constant.
    of: BTreeMap<&'g str, Vec<Use<'g>>>,
    /// Other names for constants.
    names: BTreeMap<&'g str, Vec<&'g str>>,
    /// Constants that say what others stand for.
    parts: BTreeSet<&'g str>,
}

/// The weights of a graph.
pub(super) fn weights(graph: &Graph) -> Vec<Weight<'_>> {
    let uses = uses(graph);
    let mut taken = BTreeSet::new();
    let constants = graph.constants.iter().filter(|(name, _)| !uses.parts.contains(name.as_str()));
    constants
        .filter_map(|(name, constant)| weight(graph, name, constant, &uses, &mut taken))
        .collect()
}

/// A constant as a weight, if it is one.
fn weight<'g>(
    graph: &'g Graph,
    name: &'g str,
    constant: &Constant,
    uses: &Uses<'g>,
    taken: &mut BTreeSet<String>,
) -> Option<Weight<'g>> {
    let used = uses.of.get(name).map_or(&[][..], Vec::as_slice);
    let main = used.iter().find(|u| u.is_matrix && u.as_used).or(used.first());
    if !(constant.listed || used.iter().any(|u| u.is_matrix)) {
        return None;
    }
    let numbers = match main {
        Some(main) => main.numbers.clone(),
        None => numbers(graph, name, false, Scaled::No)?,
    };
    let own = [unquantized(name)].into_iter().filter(|name| is_parameter(name));
    let own = own.chain(uses.names.get(name).into_iter().flatten().copied()).map(str::to_owned);
    let alike: Vec<_> =
        used.iter().filter(|u| u.numbers == numbers).filter_map(|u| u.name.clone()).collect();
    // What is a constant's own name is no other's.
    let derived = alike.iter().filter(|derived| !graph.constants.contains_key(*derived)).cloned();
    let mut names: Vec<_> = own.chain(derived).filter(|name| taken.insert(name.clone())).collect();
    let is_needed = constant.count().is_none_or(|count| count > 1);
    // What is left of a weight whose name another one has, or that has none, is told from all others.
    if names.is_empty() && !used.is_empty() && is_needed {
        let purpose = alike.first().map(|purpose| format!(": {purpose}"));
        names.push(format!("{name}{}", purpose.unwrap_or_default()));
    }
    let as_used = main.is_some_and(|main| main.as_used);
    (!names.is_empty()).then_some(Weight { names, numbers, as_used, is_needed })
}

fn uses(graph: &Graph) -> Uses<'_> {
    let (mut uses, biases) = (Uses::default(), biases(graph));
    let own =
        graph.constants.keys().map(|name| (name.as_str(), (name.as_str(), false, Scaled::No)));
    let mut values: BTreeMap<&str, (&str, bool, Scaled<'_>)> = own.collect();
    for node in &graph.nodes {
        let value = |input: usize| {
            let (constant, turned, scaled) = values.get(node.inputs.get(input)?.as_str())?.clone();
            Some((constant, turned, scaled, graph.constants.get(constant)?.sides.as_slice()))
        };
        let output = node.outputs.first().map(String::as_str);
        match (node.operation, value(0), output) {
            ("Identity" | "Cast", Some((constant, turned, scaled, _)), Some(output)) => {
                if node.operation == "Identity" && is_parameter(output) {
                    uses.names.entry(constant).or_default().push(output);
                }
                values.insert(output, (constant, turned, scaled));
            }
            ("Transpose", Some((constant, turned, scaled, [_, _])), Some(output)) => {
                let order = node.integers.get("perm").map(Vec::as_slice);
                let swaps = order.is_none_or(|order| order == [1, 0]);
                values.insert(output, (constant, turned != swaps, scaled));
            }
            ("DequantizeLinear", Some((constant, turned, _, _)), Some(output)) => {
                let part = |input| value(input).map(|(constant, ..)| constant);
                if let Some(scale) = part(1) {
                    let side = node.integer("axis").unwrap_or(1);
                    let scaled = Scaled::Along { scale, zero: part(2), side };
                    uses.parts.extend(parts(&scaled));
                    values.insert(output, (constant, turned, scaled));
                }
            }
            _ => {
                for input in 0..node.inputs.len() {
                    let Some((constant, turned, scaled, sides)) = value(input) else { continue };
                    let view = (constant, turned, scaled);
                    if let Some(found) = use_of(graph, node, input, view, sides, &biases) {
                        uses.of.entry(constant).or_default().push(found);
                    }
                }
            }
        }
    }
    let scaled = uses.of.values().flatten().flat_map(|u| parts(&u.numbers.scaled));
    uses.parts.extend(scaled);
    uses
}

/// The use that a node makes of a constant, if the constant may be a weight.
fn use_of<'g>(
    graph: &'g Graph,
    node: &'g Node,
    input: usize,
    (constant, turned, scaled): (&'g str, bool, Scaled<'g>),
    sides: &[u64],
    biases: &BTreeMap<&str, &str>,
) -> Option<Use<'g>> {
    let part = part(node.operation, input)?;
    let (is_matrix, as_used, turned, scaled) = match (node.operation, sides) {
        ("MatMul" | "MatMulInteger", [_, _]) => (true, true, !turned, scaled),
        ("MatMulNBits", _) if input == 1 => (true, true, false, Scaled::Blocks(node)),
        ("Gemm", [_, _]) => {
            let by_outputs = node.integer("transB").unwrap_or(0) != 0;
            (true, true, turned == by_outputs, scaled)
        }
        ("Gather", [_, _]) => (true, false, turned, scaled),
        ("Conv", [_, _, ..]) => (false, false, turned, scaled),
        ("MatMul" | "MatMulInteger" | "Gather", _) => return None,
        (operation, [_]) => (false, operation != "Add", turned, scaled),
        _ => return None,
    };
    let beside = || {
        let output = node.outputs.first().filter(|_| is_matrix)?;
        biases.get(output.as_str()).copied()
    };
    // A function that a module calls has no path of its own, but may have a bias.
    let own = || node.inputs.get(2)?.strip_suffix(".bias").filter(|_| part == "conv.weight");
    let path = node.path.as_deref().or_else(beside);
    let name = match own() {
        Some(own) => Some(format!("{own}.weight")),
        None => path.map(|path| format!("{path}.{part}")),
    };
    Some(Use { name, numbers: numbers(graph, constant, turned, scaled)?, is_matrix, as_used })
}

/// What a constant stands for; none where it is no weight's type.
fn numbers<'g>(
    graph: &'g Graph,
    name: &'g str,
    turned: bool,
    scaled: Scaled<'g>,
) -> Option<Numbers<'g>> {
    let constant = graph.constants.get(name)?;
    let is_float = [kind::F32, kind::F16, kind::F64, kind::BF16, kind::F8_E4M3, kind::F8_E5M2]
        .contains(&constant.kind);
    let scaled = match scaled {
        Scaled::No if !is_float => {
            let [scale, zero] = quantization(name)?;
            let find = |name: String| Some(graph.constants.get_key_value(&name)?.0.as_str());
            Scaled::Along { scale: find(scale)?, zero: find(zero), side: 1 }
        }
        scaled => scaled,
    };
    Some(Numbers { constant: name, turned, scaled })
}

/// What the parameters of a module begin with, by the value that the module's bias is added to.
fn biases(graph: &Graph) -> BTreeMap<&str, &str> {
    let mut biases = BTreeMap::new();
    for node in graph.nodes.iter().filter(|node| node.operation == "Add") {
        if let [a, b] = node.inputs.as_slice() {
            for (value, bias) in [(a, b), (b, a)] {
                let stem =
                    bias.strip_suffix(".bias").filter(|_| graph.constants.contains_key(bias));
                biases.extend(stem.map(|stem| (value.as_str(), stem)));
            }
        }
    }
    biases
}

/// The constants that say what others stand for.
fn parts<'g>(scaled: &Scaled<'g>) -> Vec<&'g str> {
    match scaled {
        Scaled::No => vec![],
        Scaled::Along { scale, zero, .. } => [Some(*scale), *zero].into_iter().flatten().collect(),
        // Scales, zero points, and the groups of columns.
        Scaled::Blocks(node) => node.inputs.iter().skip(2).take(3).map(String::as_str).collect(),
    }
}

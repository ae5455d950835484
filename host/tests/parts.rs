//! Parts that are not there, or are something else, are refused.

use omex::compile::{Compiled, compile};
use omex::graph::{FORMAT, Graph, Names, Node, PartShape, Port, RESIDUAL, ValueRef, ValueShape};
use omex_core::error::{Fault, LoadError, Section};
use omex_core::ops::{Correction, Delta, Embed, Index, Linear};
use omex_core::program::{Header, PART_BYTES, PartKind, Program, Tensor};
use omex_core::quant::Format;
use std::collections::BTreeMap;

const WIDTH: u32 = 32;
const RANK: u32 = 3;

/// Weights of 8 rows, but those on the way to and from a rank.
fn tensor(name: &str, plane: u32) -> Option<Tensor> {
    let [rows, columns] = match name {
        "down" => [RANK, WIDTH],
        "up" => [WIDTH, RANK],
        "matrix" => [WIDTH, WIDTH],
        "embedding" => [8, WIDTH],
        _ => return None,
    };
    (plane == 0).then_some(Tensor { format: Format::Int4, rows, columns, address: 0 })
}

fn with_residual(name: &str, plane: u32) -> Option<Tensor> {
    tensor(name, if name == "matrix" { 0 } else { plane })
}

/// A model of one product that may have changes.
fn graph(parts: &[(&str, PartKind)], change: impl FnOnce(&mut Vec<Node>)) -> Graph {
    let width = |name| if name == "low" { RANK } else { WIDTH };
    let names = ["x", "y", "gathered", "low", "result"];
    let shape = |name| ValueShape { width: width(name), ..ValueShape::default() };
    let [input, output] = ["x", "y"].map(ValueRef::all);
    let (index, weight) = (Index::Token, "matrix".to_owned());
    let mut nodes = vec![
        Embed::<Names> {
            weight: "embedding".into(),
            output: input.clone(),
            index,
            offset: 0,
            accumulate: false,
        }
        .into(),
        Linear::<Names> { bias: None, weight, input, output, accumulate: false }.into(),
    ];
    change(&mut nodes);
    Graph {
        format: FORMAT,
        vocab_size: 8,
        context_length: 8,
        outputs: vec![Port::of("y")],
        values: names.map(|name| (name.to_owned(), shape(name))).into(),
        parts: parts
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), PartShape { kind: *kind }))
            .collect(),
        nodes,
        ..Graph::default()
    }
}

fn delta(part: Option<&str>) -> Node {
    let [input, gathered, low, result, output] =
        ["x", "gathered", "low", "result", "y"].map(ValueRef::all);
    let (down, up, part) = ("down".into(), "up".into(), part.map(str::to_owned));
    Delta::<Names> { down, up, scale: 1.0, input, gathered, low, result, output, part }.into()
}

fn correction(part: Option<&str>) -> Node {
    let [input, output] = ["x", "y"].map(ValueRef::all);
    let part = part.map(str::to_owned);
    Correction::<Names> { weight: "matrix".into(), input, output, part }.into()
}

fn loaded(compiled: &Compiled) -> Result<Program<'_>, LoadError> {
    Program::parse(&compiled.program, &compiled.tensors, 0..1 << 20)
}

fn fault(graph: &Graph) -> Option<Fault> {
    match loaded(&compile(graph, &[], tensor).unwrap()) {
        Ok(_) => None,
        Err(LoadError::Record { fault, .. }) => Some(fault),
        Err(error) => panic!("{error}"),
    }
}

const POET: (&str, PartKind) = ("poet", PartKind::Adapter);
const FINE: (&str, PartKind) = ("fine", PartKind::Correction);

#[test]
fn names_are_those_of_parts() {
    let unknown = compile(&graph(&[POET], |nodes| nodes.push(delta(Some("clerk")))), &[], tensor);
    assert!(unknown.unwrap_err().contains("part \"clerk\" is not among the graph's parts"));
    let taken = graph(&[(RESIDUAL, PartKind::Adapter)], |_| {});
    let taken = compile(&taken, &[], with_residual);
    assert!(taken.unwrap_err().contains("part \"residual\" is an adapter"));
    // The part of residual planes is there where some weight has one.
    for (find, expected) in [(tensor as fn(&str, u32) -> _, false), (with_residual, true)] {
        let compiled = compile(&graph(&[POET], |_| {}), &[], find).unwrap();
        let program = loaded(&compiled).unwrap();
        assert_eq!(program.has_corrections(), expected);
        assert_eq!(program.adapter("poet"), Some(1));
        assert_eq!(program.adapter(RESIDUAL), None);
    }
}

#[test]
fn an_operation_belongs_to_a_part_of_its_kind() {
    let of = |node: fn(Option<&str>) -> Node, part: Option<&str>| {
        fault(&graph(&[FINE, POET], |nodes| nodes.push(node(part))))
    };
    for part in [None, Some("fine"), Some("poet")] {
        assert_eq!(of(delta, part), None, "{part:?}");
    }
    assert_eq!(of(correction, Some("fine")), None);
    assert_eq!(of(correction, None), None);
    assert_eq!(of(correction, Some("poet")), Some(Fault::Part));
    // Places to work in may not be those of what is read or added to.
    let same = |change: fn(&mut Delta<Names>)| {
        fault(&graph(&[POET], |nodes| {
            let Node::Delta(mut op) = delta(Some("poet")) else { unreachable!() };
            change(&mut op);
            nodes.push(op.into());
        }))
    };
    assert_eq!(same(|op| op.result = op.output.clone()), Some(Fault::Value));
    assert_eq!(same(|op| op.gathered = op.input.clone()), Some(Fault::Value));
    assert_eq!(same(|op| op.low = ValueRef::rows("low", 0, 2)), Some(Fault::Tensor));
}

#[test]
fn a_table_of_parts_that_is_damaged_is_refused() {
    let compiled = compile(&graph(&[POET], |nodes| nodes.push(delta(Some("poet")))), &[], tensor);
    let compiled = compiled.unwrap();
    let header = loaded(&compiled).unwrap().header().to_owned();
    // The table lies behind the slots and the output.
    let table = Header::BYTES + 20 * usize::from(header.slots) + 24;
    assert_eq!(compiled.program[table..][..PART_BYTES], [1, 0, 0, 0, 4, 0, 1, 0]);
    let mut unknown = compiled.clone();
    unknown.program[table + 6] = 2;
    let error = loaded(&unknown).err();
    assert_eq!(error, Some(LoadError::Section(Section::Program)));
    // Without its table, the number of a part is that of none.
    let mut missing = compiled.clone();
    missing.program.drain(table..table + PART_BYTES);
    missing.program[28] = 0;
    assert!(matches!(loaded(&missing), Err(LoadError::Record { fault: Fault::Part, .. })));
    // A name that lies elsewhere is no adapter's.
    let mut elsewhere = compiled.clone();
    elsewhere.program[table + 4] = 200;
    assert_eq!(loaded(&elsewhere).unwrap().adapter("poet"), None);
}

#[test]
fn a_part_says_what_it_is_and_nothing_else() {
    let read = |text: &str| serde_json::from_str::<BTreeMap<String, PartShape>>(text);
    let good = read(r#"{"poet": {"kind": "adapter"}}"#).unwrap();
    assert_eq!(good["poet"], PartShape { kind: PartKind::Adapter });
    for bad in [r#"{"poet": {"kind": "tenor"}}"#, r#"{"poet": {"kind": "adapter", "rank": 4}}"#] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

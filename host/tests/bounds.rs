//! Graphs and programs whose numbers would multiply into too much are refused.

use heapless::Vec as FixedVec;
use omex::compile::compile;
use omex::graph::{Graph, KvShape, Node, ValueRef, ValueShape};
use omex_core::arena::{Layout, Plan};
use omex_core::error::{Fault, LoadError, Section};
use omex_core::kv::KvFormat;
use omex_core::program::{
    Header, Heads, MAX_LAYERS, MAX_WIDTH, Op, PerLayer, Program, Slot, Tensor, Value,
};
use omex_core::quant::Format;

fn header() -> Header {
    let slot = |offset, width, selected| Slot { offset, width, selected };
    Header {
        vocab_size: 8,
        context_length: 8,
        kv_caches: 1,
        kv_width: 2,
        stop_tokens: FixedVec::new(),
        slots: [slot(0, 8, false), slot(8, 8, false), slot(0, 8, true), slot(8, 8, true)]
            .into_iter()
            .collect(),
        logits: 2,
        ops: 0,
    }
}

fn encode(header: &Header, ops: &[Op]) -> Vec<u8> {
    let mut buffer = [0; 1024];
    let mut program = postcard::to_slice(header, &mut buffer).unwrap().to_vec();
    for op in ops {
        program.extend_from_slice(postcard::to_slice(op, &mut buffer).unwrap());
    }
    program
}

/// The fault of an operation on a vector of 2 numbers (tensor 0).
fn fault(op: Op) -> Option<Fault> {
    let program = encode(&Header { ops: 1, ..header() }, &[op]);
    let tensor = Tensor { format: Format::Vector, rows: 1, columns: 2, address: 0 };
    match Program::parse(&program, &tensor.to_record(), 0..64) {
        Ok(_) => None,
        Err(LoadError::Operation { index: 0, fault }) => Some(fault),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_largest_sizes_do_not_overflow() {
    let most = Header { kv_caches: MAX_LAYERS, kv_width: MAX_WIDTH, ..header() };
    let program = encode(&most, &[]);
    let program = Program::parse(&program, &[], 0..0).unwrap();
    let plan = Plan {
        columns: 1 << 24,
        logit_columns: 1 << 24,
        kv_capacity: 1 << 24,
        kv_sinks: 4,
        kv_format: KvFormat::Single,
        sequences: 1,
    };
    assert!(Layout::new(&program, &plan, u32::MAX).unwrap().total() > 1 << 60);
    for sequences in [0, 1 << 16, u32::MAX] {
        let refused = Layout::new(&program, &Plan { sequences, ..plan }, u32::MAX);
        assert_eq!(refused, Err(LoadError::Plan));
    }

    let program = encode(&Header { kv_caches: MAX_LAYERS + 1, ..header() }, &[]);
    let refused = Program::parse(&program, &[], 0..0).err();
    assert_eq!(refused, Some(LoadError::Section(Section::Program)));
    for format in [Format::Vector, Format::F32, Format::Int8, Format::Int4] {
        assert!(format.tensor_bytes(u32::MAX, u32::MAX) >= u64::MAX / 8);
    }
}

#[test]
fn operations_by_position_take_all_tokens() {
    let value = |slot, width| Value { slot, first: 0, width };
    let frequencies = PerLayer { first: 0, stride: 0 };
    assert_eq!(fault(Op::RotaryAngles { frequencies, output: value(0, 8) }), None);
    assert_eq!(fault(Op::RotaryAngles { frequencies, output: value(2, 8) }), Some(Fault::Value));
    let attention = |slots: [u16; 2], angles| Op::Attention {
        cache: PerLayer { first: 0, stride: 0 },
        heads: Heads { query: 1, kv: 1, width: 2 },
        scale: 1.0,
        query: value(slots[0], 2),
        key: value(slots[0], 2),
        value: value(slots[0], 2),
        angles: value(slots[0], angles),
        output: value(slots[1], 2),
    };
    assert_eq!(fault(attention([0, 1], 4)), None);
    assert_eq!(fault(attention([0, 1], 5)), Some(Fault::Shape));
    assert_eq!(fault(attention([0, 0], 4)), Some(Fault::Value));
    assert_eq!(fault(attention([2, 3], 4)), Some(Fault::Value));
}

/// A graph of `repeats` repetitions of a subgraph of `length` norms.
fn graph(repeats: usize, length: usize) -> Graph {
    let norm = |input: &str, output: &str| Node::RmsNorm {
        weight: "norm".into(),
        epsilon: 0.0,
        input: ValueRef::all(input),
        output: ValueRef::all(output),
    };
    let shape = ValueShape { width: 2, selected: true };
    Graph {
        format: 1,
        vocab_size: 2,
        context_length: 1,
        kv: KvShape { caches: 0, width: 0 },
        logits: "a".into(),
        values: ["a", "b"].map(|name| (name.to_owned(), shape)).into(),
        subgraphs: [("block".to_owned(), vec![norm("a", "b"); length])].into(),
        nodes: vec![Node::Repeat { subgraph: "block".into(), layers: MAX_LAYERS }; repeats],
    }
}

#[test]
fn a_short_file_cannot_ask_for_a_long_program() {
    let tensor = Tensor { format: Format::Vector, rows: 1, columns: 2, address: 0 };
    let compile = |graph: &Graph| compile(graph, &[], |_, plane| (plane == 0).then_some(tensor));
    assert!(compile(&graph(1, 8)).is_ok());
    for (repeats, length) in [(1, 60_000), (60_000, 1), (500, 500), (1, 1000)] {
        assert!(compile(&graph(repeats, length)).is_err(), "{repeats} times {length}");
    }
}

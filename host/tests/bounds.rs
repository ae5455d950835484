//! Graphs and programs whose numbers would multiply into too much are refused.

use omex::compile::compile;
use omex::graph::{FORMAT, Graph, Names, Node, Port, ValueRef, ValueShape};
use omex_core::arena::{Layout, Plan};
use omex_core::error::{Fault, Lack, LoadError, Section};
use omex_core::image::{self, Extent};
use omex_core::ops::{Angles, Attend, Mask, Norm, NormKind, Op, Pairing, Store};
use omex_core::program::{
    Dtype, Header, MAX_LAYERS, MAX_WIDTH, Needs, Per, PerLayer, Program, Record, Slot, Tensor,
    Value,
};
use omex_core::quant::Format;
use omex_core::simd::PORTABLE;
use omex_core::state::State;
use omex_core::state::kv::KvFormat;

/// A program of these states and operations: slots 0 and 1 have a column a token, 2 and 3 one a wanted
/// output, each 8 floats wide.
fn encode(states: &[State], ops: &[Op]) -> Vec<u8> {
    let slot = |offset, per| Slot { offset, width: 8, dims: [0; 4], per, dtype: Dtype::F32 };
    let slots = [(0, Per::Token), (32, Per::Token), (0, Per::Output), (32, Per::Output)];
    let mut records = vec![];
    for op in ops {
        let mut buffer = [0; 256];
        let length = Record::Op(*op).write(&mut buffer).unwrap();
        records.extend_from_slice(&buffer[..length]);
    }
    let header = Header {
        vocab_size: 8,
        context_length: 8,
        record_bytes: records.len() as u32,
        records: ops.len() as u16,
        slots: slots.len() as u16,
        states: states.len() as u16,
        ..Header::default()
    };
    let mut program = header.to_bytes().to_vec();
    program.extend(slots.iter().flat_map(|(offset, per)| slot(*offset, *per).to_record()));
    program.extend(states.iter().flat_map(State::to_record));
    program.extend(records);
    program
}

/// The fault of operations on a vector of 2 numbers (tensor 0) and a cache of one head of width 2.
fn fault(ops: &[Op]) -> Option<Fault> {
    fault_with(State::Kv { heads: 1, width: 2, window: 0 }, ops)
}

fn fault_with(state: State, ops: &[Op]) -> Option<Fault> {
    let program = encode(&[state], ops);
    let tensor = Tensor { format: Format::Vector, rows: 1, columns: 2, address: 0 };
    match Program::parse(&program, &tensor.to_record(), 0..64) {
        Ok(_) => None,
        Err(LoadError::Record { fault, .. }) => Some(fault),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_largest_sizes_do_not_overflow() {
    let state = State::Kv { heads: MAX_WIDTH / 256, width: 256, window: 0 };
    let program = encode(&[state; MAX_LAYERS as usize], &[]);
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

    let program = encode(&[state; MAX_LAYERS as usize + 1], &[]);
    let refused = Program::parse(&program, &[], 0..0).err();
    assert_eq!(refused, Some(LoadError::Section(Section::Program)));
    for format in [Format::Vector, Format::F32, Format::Int8, Format::Int4] {
        assert!(format.tensor_bytes(u32::MAX, u32::MAX) >= u64::MAX / 8);
    }
}

#[test]
fn operations_by_position_take_all_tokens() {
    let value = |slot, width| Value { slot, first: 0, width };
    let one = PerLayer { first: 0, stride: 0 };
    let angles = |output| fault(&[Angles { frequencies: one, output, scale: 0.0 }.into()]);
    assert_eq!(angles(value(0, 8)), None);
    assert_eq!(angles(value(2, 8)), Some(Fault::Value));
    let attention = |slots: [u16; 2], angles| {
        let store = Store { state: one, key: value(slots[0], 2), value: value(slots[0], 2) };
        let attend = Attend {
            state: one,
            query: value(slots[0], 2),
            angles: Some(value(slots[0], angles)),
            output: value(slots[1], 2),
            scale: 1.0,
            pairing: Pairing::Halves,
            mask: Mask::Causal,
            reach: 0,
            head_scores: None,
            cap: 0.0,
        };
        [Op::from(store), attend.into()]
    };
    assert_eq!(fault(&attention([0, 1], 4)), None);
    assert_eq!(fault(&attention([0, 1], 5)), Some(Fault::Shape));
    assert_eq!(fault(&attention([0, 0], 4)), Some(Fault::Value));
    assert_eq!(fault(&attention([2, 3], 4)), Some(Fault::Value));
    // What is stored is attended to before anything else happens.
    let [store, attend] = attention([0, 1], 4);
    assert_eq!(fault(&[store]), Some(Fault::Encoding));
    assert_eq!(fault(&[store, store, attend]), Some(Fault::Order));
    // Keys and values wait for it where a cache is full, so its result lies elsewhere.
    let stored = |key, of| fault(&[Store { state: one, key, value: of }.into(), attend]);
    assert_eq!(stored(value(1, 2), value(0, 2)), Some(Fault::Value));
    assert_eq!(stored(value(0, 2), value(1, 2)), Some(Fault::Value));
    assert_eq!(
        fault(&[store, Angles { frequencies: one, output: value(1, 8), scale: 0.0 }.into()]),
        Some(Fault::Order)
    );
}

/// Nothing says where a window would lie for a token that sees all of its text.
#[test]
fn a_window_is_for_what_goes_before_a_token() {
    let value = |slot| Value { slot, first: 0, width: 2 };
    let state = PerLayer { first: 0, stride: 0 };
    let attend = |mask| {
        let store = Store { state, key: value(0), value: value(0) };
        let (query, output, pairing) = (value(0), value(1), Pairing::Halves);
        let (reach, head_scores) = (0, None);
        let attend = Attend {
            state,
            query,
            angles: None,
            output,
            scale: 1.0,
            pairing,
            mask,
            reach,
            head_scores,
            cap: 0.0,
        };
        [store.into(), attend.into()]
    };
    let of = |window| State::Kv { heads: 1, width: 2, window };
    for (window, mask, expected) in
        [(4, Mask::Causal, None), (0, Mask::Full, None), (4, Mask::Full, Some(Fault::State))]
    {
        assert_eq!(fault_with(of(window), &attend(mask)), expected, "{window} {mask:?}");
    }
}

/// Two attentions whose keys are equally wide, but not their heads, have caches of their own shape.
#[test]
fn states_have_their_own_shapes() {
    let states = [(1, 2), (2, 1)].map(|(heads, width)| State::Kv { heads, width, window: 0 });
    let plan = Plan {
        columns: 1,
        logit_columns: 1,
        kv_capacity: 8,
        kv_sinks: 0,
        kv_format: KvFormat::Int8,
        sequences: 1,
    };
    let program = encode(&states, &[]);
    let program = Program::parse(&program, &[], 0..0).unwrap();
    let bytes = states.map(|state| plan.state_bytes(&state));
    assert_ne!(bytes[0], bytes[1]);
    assert_eq!(Layout::new(&program, &plan, 0).unwrap().states, bytes[0] + bytes[1]);
}

#[test]
fn bytes_behind_a_program_are_refused() {
    let mut program = encode(&[], &[]);
    assert!(Program::parse(&program, &[], 0..0).is_ok());
    program.push(0);
    let refused = Program::parse(&program, &[], 0..0).err();
    assert_eq!(refused, Some(LoadError::Section(Section::Program)));
}

/// What an image needs and this build lacks is named from the header, before anything else is read.
#[test]
fn what_a_build_lacks_is_named() {
    let plan = Plan {
        columns: 1,
        logit_columns: 1,
        kv_capacity: 1,
        kv_sinks: 0,
        kv_format: KvFormat::Half,
        sequences: 1,
    };
    let none = Extent::default();
    let header = |needs| image::ImageHeader {
        page_size: 512,
        plan,
        ram_bytes: 0,
        needs,
        program: none,
        tensors: none,
        tokenizer: none,
        checksums: none,
        pages: none,
    };
    let crc32c = PORTABLE.crc32c;
    let read = |needs| image::ImageHeader::parse(&header(needs).to_bytes(crc32c), crc32c).err();
    assert_eq!(read(Needs::default()), None);
    let op = Needs { ops: [0, 0, 0, 1 << 8], formats: 0 };
    let format = Needs { ops: [0; 4], formats: 1 << 31 };
    assert_eq!(read(op), Some(LoadError::Lack(Lack::Op(200))));
    assert_eq!(read(format), Some(LoadError::Lack(Lack::Format(31))));
    let message = read(op).map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains("needs operation 200"), "{message}");
}

/// A graph of `repeats` repetitions of a subgraph of `length` norms.
fn graph(repeats: usize, length: usize) -> Graph {
    let norm = |input: &str, output: &str| {
        Node::from(Norm::<Names> {
            weight: "norm".into(),
            bias: None,
            input: ValueRef::all(input),
            output: ValueRef::all(output),
            epsilon: 0.0,
            kind: NormKind::Rms,
            group: 0,
        })
    };
    let shape = ValueShape { width: 2, per: Per::Output, ..ValueShape::default() };
    let logits =
        Port { name: "logits".into(), value: ValueRef::all("a"), scale: 0.0, zero_point: 0 };
    Graph {
        format: FORMAT,
        vocab_size: 2,
        context_length: 1,
        outputs: vec![logits],
        values: ["a", "b"].map(|name| (name.to_owned(), shape)).into(),
        subgraphs: [("block".to_owned(), vec![norm("a", "b"); length])].into(),
        nodes: vec![Node::Repeat { subgraph: "block".into(), layers: MAX_LAYERS }; repeats],
        ..Graph::default()
    }
}

#[test]
fn a_short_file_cannot_ask_for_a_long_program() {
    let tensor = Tensor { format: Format::Vector, rows: 1, columns: 2, address: 0 };
    let compile = |graph: &Graph| compile(graph, &[], |_, plane| (plane == 0).then_some(tensor));
    assert!(compile(&graph(1, 8)).is_ok());
    for (repeats, length) in [(1, 60_000), (60_000, 1), (500, 500), (1, 4096)] {
        assert!(compile(&graph(repeats, length)).is_err(), "{repeats} times {length}");
    }
}

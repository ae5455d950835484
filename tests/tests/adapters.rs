//! Adapters: texts of one batch may have different ones, or none, and each is what it is alone.

use omex::import::open;
use omex::pager::PageSource;
use omex::plan::Residency;
use omex::quantize::Precision;
use omex::session::{Session, SessionOptions};
use omex_core::engine::{Engine, Wanted};
use omex_core::image;
use omex_core::pass::Input;
use omex_core::program::ALL;
use omex_core::simd::PORTABLE;
use omex_hal::Serial;
use omex_hal_adapters::{Event, TracingPager};
use omex_tests::{
    Change, Converted, FaultyPager, Matrix, Rows, Synthetic, add_adapter, convert_from, json,
    numbers, read_npy, require_shared, worst_error,
};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use zerocopy::IntoBytes;

const IDS: [u32; 12] = [1, 15, 27, 3, 280, 9, 9, 77, 131, 2, 60, 11];

/// A text: its tokens, and its adapter if it has one.
#[derive(Clone, Copy)]
struct Text<'t>(&'t [u32], Option<&'t str>);

/// The logits of texts that share passes, each with so many tokens in a pass.
fn play(model: &Path, options: &SessionOptions, texts: &[Text<'_>], each: usize) -> Vec<Rows> {
    let logit_columns = (each * texts.len()) as u32;
    let options =
        SessionOptions { logit_columns, sequences: texts.len() as u32, ..options.clone() };
    let mut session = Session::open(model, &options).unwrap_or_else(|e| panic!("{e}"));
    let mut engine = session.engine().unwrap();
    let mut rows = vec![vec![]; texts.len()];
    let longest = texts.iter().map(|text| text.0.len()).max().unwrap();
    for start in (0..longest).step_by(each) {
        let mut inputs = vec![];
        for (sequence, Text(ids, adapter)) in (0..).zip(texts) {
            let adapter = adapter.map_or(0, |name| engine.program().adapter(name).unwrap());
            let next = (0..).zip(*ids).skip(start).take(each);
            inputs.extend(next.map(|(position, token)| Input {
                token: *token,
                sequence,
                position,
                logits: true,
                adapter,
                segment: 0,
            }));
        }
        engine.pass(inputs.iter().copied()).unwrap_or_else(|e| panic!("{e}"));
        for (column, input) in inputs.iter().enumerate() {
            rows[input.sequence as usize].push(engine.logits(column).to_vec());
        }
    }
    rows
}

fn alone(model: &Path, text: Text<'_>) -> Rows {
    play(model, &one_thread(), &[text], text.0.len()).remove(0)
}

fn one_thread() -> SessionOptions {
    SessionOptions { threads: Some(1), ..SessionOptions::default() }
}

/// Numbers that look random, from -1 to 1.
fn noise(seed: &mut u64) -> f32 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*seed >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Gives a model an adapter of this rank in every product of a block, all different.
fn with_adapter(model: &Path, name: &str, format: Precision, rank: usize) {
    let weights =
        ["attention.qkv", "attention.output", "feed_forward.gate_up", "feed_forward.down"];
    let names = weights.map(|weight| format!("layers.{{layer}}.{weight}"));
    let changes = names.each_ref().map(|weight| {
        let matrices = move |layer: u32, [inputs, outputs]: [u32; 2]| {
            let mut seed = (u64::from(layer) << 32) + (name.len() * rank * weight.len()) as u64;
            let [inputs, outputs] = [inputs as usize, outputs as usize];
            let mut matrix = |rows, columns| -> Matrix {
                (0..rows).map(|_| (0..columns).map(|_| noise(&mut seed)).collect()).collect()
            };
            [matrix(rank, inputs), matrix(outputs, rank)]
        };
        (weight, matrices)
    });
    let changes =
        changes.each_ref().map(|(weight, matrices)| Change { weight, rows: None, matrices });
    add_adapter(model, name, 0.05, format, &changes);
}

/// A model with two adapters, and the same without.
fn adapted(precision: Precision) -> [Converted; 2] {
    let plain = Converted::new(&Synthetic::odd(), Some(precision));
    let adapted = Converted::new(&Synthetic::odd(), Some(precision));
    with_adapter(&adapted.path, "poet", Precision::F16, 3);
    with_adapter(&adapted.path, "lawyer", Precision::Int8, 9);
    [plain, adapted]
}

#[test]
fn texts_of_a_batch_have_different_adapters_and_each_its_own_bits() {
    for precision in [Precision::F32, Precision::Int8, Precision::Int4] {
        let [plain, model] = adapted(precision);
        let texts = [
            Text(&IDS, Some("poet")),
            Text(&IDS, None),
            Text(&IDS[2..9], Some("lawyer")),
            Text(&IDS, Some("lawyer")),
            Text(&IDS[5..], Some("poet")),
        ];
        let expected = texts.map(|text| alone(&model.path, text));
        assert!(expected[1] == alone(&plain.path, texts[1]), "none changes nothing");
        assert!(expected[0] != expected[1] && expected[3] != expected[1]);
        assert!(expected[0] != expected[3]);
        for each in [1, 3, 12] {
            for threads in [1, 3] {
                let options =
                    SessionOptions { threads: Some(threads), ..SessionOptions::default() };
                let found = play(&model.path, &options, &texts, each);
                assert!(
                    found == expected,
                    "{precision:?}: {each} tokens a pass, {threads} threads"
                );
            }
        }
    }
}

#[test]
fn adapters_stream_and_are_packed() {
    let [_, model] = adapted(Precision::Int8);
    let texts = [Text(&IDS, Some("lawyer")), Text(&IDS, None), Text(&IDS, Some("poet"))];
    let expected = texts.map(|text| alone(&model.path, text));
    let reads = SessionOptions { pages: Some(PageSource::Read), ..one_thread() };
    let session = Session::open(&model.path, &reads).unwrap();
    assert!(matches!(session.plan().residency, Residency::Streamed { .. }));
    assert!(play(&model.path, &reads, &texts, 4) == expected, "streamed");
    let image = model.image(512, 16, 64);
    for (text, expected) in texts.iter().zip(&expected) {
        let found = play(&image, &one_thread(), &[*text], 1);
        assert!(found == [expected.clone()], "packed");
    }
}

#[test]
fn generation_goes_on_with_the_adapter_of_its_engine() {
    let [_, model] = adapted(Precision::Int8);
    let expected = alone(&model.path, Text(&IDS, Some("poet")));
    let mut session = Session::open(&model.path, &one_thread()).unwrap();
    let mut engine = session.engine().unwrap();
    let poet = engine.program().adapter("poet").unwrap();
    engine.set_adapter(poet);
    engine.forward(&IDS[..11], Wanted::Last).unwrap();
    assert!(engine.logits(0) == expected[10]);
    engine.forward(&IDS[11..], Wanted::Last).unwrap();
    assert!(engine.logits(0) == expected[11]);
    assert_eq!(engine.program().adapter("clerk"), None);
}

#[test]
fn an_adapter_is_announced_and_read_if_a_token_asks_for_it() {
    let model = Converted::new(&Synthetic::new(64, 160, 3, 4, 2, 96, 64), Some(Precision::Int8));
    with_adapter(&model.path, "poet", Precision::F16, 32);
    let image = std::fs::read(model.image(512, 1, 16)).unwrap();
    let pages = |adapter: Option<&str>| {
        let events = RefCell::new(vec![]);
        let device = FaultyPager::new(image.clone(), 512);
        let mut pager = TracingPager::new(device, |event| events.borrow_mut().push(event));
        let mut tables = vec![0; 1 << 16];
        let (_, model, _) = image::open(&mut pager, PORTABLE.crc32c, &mut tables).unwrap();
        let program = model.program.clone();
        let mut memory = vec![0u128; model.layout(&pager).unwrap().total().div_ceil(16) as usize];
        let memory = memory.as_mut_bytes();
        let mut engine = Engine::new(model, memory, &mut pager, &PORTABLE, &Serial).unwrap();
        engine.set_adapter(adapter.map_or(0, |name| program.adapter(name).unwrap()));
        engine.forward(&[7], Wanted::Last).unwrap();
        events.borrow_mut().clear();
        engine.forward(&[8], Wanted::Last).unwrap();
        drop(pager);
        let of_adapter: BTreeSet<_> = program
            .steps(ALL)
            .filter(|(op, _)| op.part().is_some_and(|part| *part > 0))
            .flat_map(|(op, layer)| {
                let mut pages = vec![];
                op.weights(&mut |weight| {
                    let tensor = program.tensor(weight.at(layer)).unwrap();
                    // Pages at the ends may hold something else as well.
                    let end = (tensor.address + tensor.bytes()) / 512;
                    pages.extend(tensor.address.div_ceil(512) as u32..end as u32);
                });
                pages
            })
            .collect();
        let (mut read, mut announced) = (BTreeSet::new(), BTreeSet::new());
        for event in events.into_inner() {
            match event {
                Event::Page { page, .. } => drop(read.insert(page)),
                Event::Want { first, end } => announced.extend(first..end),
                _ => {}
            }
        }
        [read, announced].map(|pages| of_adapter.intersection(&pages).count())
    };
    assert_eq!(pages(None), [0, 0]);
    let [read, announced] = pages(Some("poet"));
    assert!(read > 100 && announced == read, "{announced} announced, {read} read");
}

/// A product in an adapter's file, the graph's weight that it is part of, and its rows there; all if
/// `None`.
type Place = (&'static str, &'static str, Option<(u32, u32)>);

/// Where products of Llama and Qwen2 lie in those of the graph.
fn places(hidden: u32, kv: u32, wide: u32) -> [Place; 7] {
    [
        ("self_attn.q_proj", "attention.qkv", Some((0, hidden))),
        ("self_attn.k_proj", "attention.qkv", Some((hidden, hidden + kv))),
        ("self_attn.v_proj", "attention.qkv", Some((hidden + kv, hidden + 2 * kv))),
        ("self_attn.o_proj", "attention.output", None),
        ("mlp.gate_proj", "feed_forward.gate_up", Some((0, wide))),
        ("mlp.up_proj", "feed_forward.gate_up", Some((wide, 2 * wide))),
        ("mlp.down_proj", "feed_forward.down", None),
    ]
}

#[test]
fn adapters_of_peft_give_its_logits() {
    let golden = require_shared!("golden");
    for name in ["lora_llama", "lora_qwen2"] {
        let adapter = golden.join(name);
        let (reference, config) =
            (json(&adapter.join("ref.json")), json(&adapter.join("adapter_config.json")));
        let base = golden.join(reference["base"].as_str().unwrap());
        let sizes = json(&base.join("config.json"));
        let size = |field: &str| sizes[field].as_u64().unwrap() as u32;
        let hidden = size("hidden_size");
        let kv = hidden / size("num_attention_heads") * size("num_key_value_heads");
        // The adapter's file, read as if it were a model.
        let folder = tempfile::tempdir().unwrap();
        let copy = |from: &Path, to| std::fs::copy(from, folder.path().join(to)).unwrap();
        copy(&base.join("config.json"), "config.json");
        copy(&adapter.join("adapter_model.safetensors"), "model.safetensors");
        let matrices = open(folder.path(), None).unwrap();
        let matrix = |name: &str| -> Matrix {
            let info = matrices.tensor(name).unwrap();
            let row = |row| {
                let mut numbers = vec![0.0; info.columns as usize];
                matrices.read_row(name, row, &mut numbers).unwrap();
                numbers
            };
            (0..info.rows).map(row).collect()
        };
        let model = convert_from(&base, Some(Precision::F32));
        let ids = numbers(&reference["input_ids"]);
        let plain = alone(&model.path, Text(&ids, None));
        let file = |layer: u32, what: &str, side: &str| {
            format!("base_model.model.model.layers.{layer}.{what}.lora_{side}.weight")
        };
        let changed = places(hidden, kv, size("intermediate_size")).into_iter();
        let changed = changed.filter(|(what, ..)| matrices.tensor(&file(0, what, "A")).is_some());
        let changed: Vec<_> = changed
            .map(|(what, weight, rows)| {
                let sides = move |layer, _| ["A", "B"].map(|side| matrix(&file(layer, what, side)));
                (format!("layers.{{layer}}.{weight}"), rows, sides)
            })
            .collect();
        let changes: Vec<_> = changed
            .iter()
            .map(|(weight, rows, matrices)| Change { weight, rows: *rows, matrices })
            .collect();
        assert!(!changes.is_empty());
        let scale = config["lora_alpha"].as_f64().unwrap() / config["r"].as_f64().unwrap();
        add_adapter(&model.path, "lora", scale as f32, Precision::F32, &changes);
        let texts = [Text(&ids, Some("lora")), Text(&ids, None)];
        let [applied, none] = play(&model.path, &one_thread(), &texts, 5).try_into().unwrap();
        let worst = worst_error(&applied, &read_npy(&adapter.join("logits_applied.npy")).rows);
        println!("{name}: largest relative error {worst:.2e}");
        assert!(worst <= 1e-4, "{name}: {worst:e}");
        assert!(none == plain, "{name}: none changes nothing");
    }
}

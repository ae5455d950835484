//! Integer graphs give TensorFlow Lite's bytes, wherever pages end and however they come.

mod npz;

use npz::arrays;
use omex::compile::compile;
use omex::convert::{ConvertOptions, convert};
use omex::graph::{FORMAT, Graph, Names, Node, Port, ValueRef, ValueShape};
use omex::import;
use omex::infer::{Input, infer};
use omex::npy::{Array, Element};
use omex::pack::Target;
use omex::pager::PageSource;
use omex_core::arena::Plan;
use omex_core::engine::{Engine, Model};
use omex_core::ops::{AveragePool, Conv2d};
use omex_core::program::{Dtype, Per, Program, Tensor};
use omex_core::quant::{Format, channel_bytes};
use omex_core::simd::PORTABLE;
use omex_core::state::kv::KvFormat;
use omex_hal::Serial;
use omex_hal_adapters::SlicePager;
use omex_tests::{
    Setting, answered, board, check_memory, json_of, omex, pack_with, require_shared, run,
    serial_board,
};
use std::collections::BTreeMap;
use std::path::Path;
use zerocopy::IntoBytes;

fn converted(model: &Path, folder: &Path) {
    let source = import::open(model, None).unwrap();
    convert(&*source, "tflite", "kws", folder, &ConvertOptions::default(), &mut |_, _| {}).unwrap();
}

#[test]
fn keyword_spotting_is_bit_equal_to_the_reference() {
    let model = require_shared!("models/mlperf_tiny/kws_ref_model.tflite");
    let references = arrays(&require_shared!("refs/tflite/kws_ref_model.npz"));
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("kws.omex");
    converted(&model, &package);
    let (inputs, outputs) = (&references["inputs"], &references["out_tflm"]);
    let (samples, size) = (inputs.shape[0], inputs.bytes.len() / inputs.shape[0]);
    let ways = [(None, None), (Some(PageSource::Read), Some(300_000))];
    for (pages, memory) in ways {
        let setting = Setting { pages, memory, ..Setting::default() };
        let mut session = setting.open(&package, 1).unwrap();
        for (sample, expected) in outputs.bytes.chunks(outputs.bytes.len() / samples).enumerate() {
            let bytes = inputs.bytes[sample * size..][..size].to_vec();
            let array = Array { element: Element::I8, shape: inputs.shape[1..].to_vec(), bytes };
            let input = Input { name: None, path: Path::new("sample.npy"), array };
            let found = infer(&mut session, &[input]).unwrap();
            assert_eq!(found[0].1.bytes, expected, "sample {sample}, {pages:?}");
        }
    }

    // The command, and what it says of an input that does not fit.
    let files = [folder.path().join("in.npy"), folder.path().join("out.npy")];
    let bytes = inputs.bytes[..size].to_vec();
    Array { element: Element::I8, shape: vec![49, 10], bytes }.write(&files[0]).unwrap();
    let arguments = ["infer", package.to_str().unwrap(), "--input", files[0].to_str().unwrap()];
    let written = run(omex(arguments).arg("-o").arg(&files[1])).orderly();
    assert_eq!(written.code, Some(0), "{written:?}");
    let out = Array::read(&files[1]).unwrap();
    assert_eq!((out.shape, &out.bytes[..]), (vec![1, 1, 1, 12], &outputs.bytes[..12]));
    Array { element: Element::F32, shape: vec![3], bytes: vec![0; 12] }.write(&files[0]).unwrap();
    let refused = run(&mut omex(arguments)).orderly();
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("<f4 [3]") && refused.err.contains("|i1 [1, 49, 10, 1]"),
        "{refused:?}"
    );
}

#[test]
fn int8_models_are_bit_equal_to_the_reference() {
    for model in [
        "mlperf_tiny/ad01_int8",
        "mlperf_tiny/kws_ref_model",
        "mlperf_tiny/pretrainedResnet_quant",
        "mlperf_tiny/str_ww_ref_model",
        "mlperf_tiny/vww_96_int8",
        "tflm/hello_world_int8",
        "tflm/micro_speech_quantized",
        "tflm/person_detect",
        "tflm/trained_lstm_int8",
    ] {
        let file = require_shared!(&format!("models/{model}.tflite"));
        let (_, name) = model.split_once('/').unwrap();
        let references = arrays(&require_shared!(&format!("refs/tflite/{name}.npz")));
        let folder = tempfile::tempdir().unwrap();
        let package = folder.path().join("m.omex");
        converted(&file, &package);
        let (inputs, outputs) = (&references["inputs"], &references["out_tflm"]);
        let (samples, size) = (inputs.shape[0], inputs.bytes.len() / inputs.shape[0]);
        let mut session = Setting::default().open(&package, 1).unwrap();
        let expected = outputs.bytes.chunks(outputs.bytes.len() / samples);
        for (sample, expected) in expected.enumerate() {
            let bytes = inputs.bytes[sample * size..][..size].to_vec();
            let array = Array { element: Element::I8, shape: inputs.shape[1..].to_vec(), bytes };
            let input = Input { name: None, path: Path::new("sample.npy"), array };
            let found = infer(&mut session, &[input]).unwrap();
            assert_eq!(found[0].1.bytes, expected, "{model}, sample {sample}");
        }
        println!("{model}: {samples} samples");
    }
}

/// Less memory than whole images take gives images whose first operations are played in bands: the same bytes.
#[test]
fn bands_give_the_same_bytes() {
    for (model, memory) in
        [("vww_96_int8", [70 << 10, 64 << 10]), ("pretrainedResnet_quant", [60 << 10, 54 << 10])]
    {
        let file = require_shared!(&format!("models/mlperf_tiny/{model}.tflite"));
        let references = arrays(&require_shared!(&format!("refs/tflite/{model}.npz")));
        let folder = tempfile::tempdir().unwrap();
        let [package, image] = ["m.omex", "m.img"].map(|name| folder.path().join(name));
        converted(&file, &package);
        let mut ways = vec![];
        for ram in memory {
            let plan = pack_with(&package, &on_board(ram), &image);
            ways.push(plan.bands.unwrap_or_else(|| panic!("{model} in {ram} bytes: {plan:?}")));
            let mut session = Setting::default().open(&image, 1).unwrap();
            let (inputs, outputs) = (&references["inputs"], &references["out_tflm"]);
            let (samples, size) = (inputs.shape[0], inputs.bytes.len() / inputs.shape[0]);
            let expected = outputs.bytes.chunks(outputs.bytes.len() / samples);
            for (sample, expected) in expected.enumerate() {
                let bytes = inputs.bytes[sample * size..][..size].to_vec();
                let array =
                    Array { element: Element::I8, shape: inputs.shape[1..].to_vec(), bytes };
                let input = Input { name: None, path: Path::new("sample.npy"), array };
                let found = infer(&mut session, &[input]).unwrap();
                assert_eq!(found[0].1.bytes, expected, "{model} in {ram} bytes, sample {sample}");
            }
        }
        println!("{model}: {ways:?}");
    }
}

/// The firmware in QEMU, with models on an SD card; `cargo xtask test` says when it can run. Visual wake words are
/// played in bands: their images as a whole have no room there.
#[test]
fn int8_models_on_a_board_with_64_kb_are_bit_equal_to_the_reference() {
    played_on("lm3s6965evb", 64 << 10, "kws_ref_model");
    played_on("lm3s6965evb", 64 << 10, "vww_96_int8");
}

/// Instructions of an inference on a Cortex-M4, by the model's name.
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/record/cortex-m4.json");
const UPDATE: &str =
    "OMEX_BOARD=1 OMEX_UPDATE_INSTRUCTIONS=1 cargo test -p omex-tests --test infer";

/// Models in memory that they are played from, with instructions counted: no more than 2 % over the record.
#[test]
fn int8_models_on_a_cortex_m4_are_bit_equal_to_the_reference() {
    let mut all = BTreeMap::new();
    for model in ["ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "vww_96_int8"] {
        if let Some(said) = played_on("mps2-an386", 4 << 20, model) {
            all.insert(model.to_owned(), check_counts(model, &said));
        }
    }
    if all.len() == 4 && std::env::var_os("OMEX_UPDATE_INSTRUCTIONS").is_some() {
        let text = serde_json::to_string_pretty(&all).unwrap();
        return std::fs::write(RECORD, text + "\n").unwrap();
    }
    let record = std::fs::read(RECORD).expect(RECORD);
    let record: BTreeMap<String, u64> = serde_json::from_slice(&record).expect(RECORD);
    for (model, counted) in all {
        let before =
            *record.get(&model).unwrap_or_else(|| panic!("{model}: not on record: {UPDATE}"));
        let allowed = before + before / 50;
        assert!(
            counted <= allowed,
            "{model}: {counted} instructions, {before} on record: {UPDATE}"
        );
    }
}

/// Images of other sides, so that tiles end in the middle of rows.
#[test]
fn odd_images_on_a_cortex_m4_give_the_bytes_of_the_host() {
    let resnet = "pretrainedResnet_quant";
    for (model, sides) in [(resnet, [29, 30]), (resnet, [30, 29]), ("vww_96_int8", [86, 90])] {
        let file = require_shared!(&format!("models/mlperf_tiny/{model}.tflite"));
        let folder = tempfile::tempdir().unwrap();
        let [package, image] = ["m.omex", "m.img"].map(|name| folder.path().join(name));
        let Some(mut board) = board("mps2-an386", &image) else { return };
        converted(&file, &package);
        resize(&package, sides);
        let path = package.to_str().unwrap();
        let renewed = run(&mut omex(["validate", "--renew-checksums", path])).orderly();
        assert_eq!(renewed.code, Some(0), "{renewed:?}");
        pack_with(&package, &on_board(4 << 20), &image);
        let on_host = json_of(&run(&mut omex(["infer", path, "--input", "seeded", "--json"])));
        let said = json_of(&run(board.args(["--input", "seeded"])));
        let numbers = |values: &serde_json::Value| -> Vec<f64> {
            values.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
        };
        let expected = numbers(&on_host["outputs"][0]["values"]);
        assert_eq!(numbers(&said["output"]), expected, "{model}, {sides:?}");
        assert!(expected.iter().any(|x| *x != expected[0]), "{model}: not all alike");
    }
}

/// Gives a graph's input other sides, and likewise all images that are made of it, each half of another.
fn resize(package: &Path, sides: [u64; 2]) {
    let path = package.join("graph.json");
    let mut graph: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let input = graph["inputs"][0]["value"].as_str().unwrap().to_owned();
    let dim = |value: &serde_json::Value, n: usize| value["dims"][n].as_u64().unwrap();
    let whole = [1, 2].map(|n| dim(&graph["values"][&input], n));
    let halved = |sides: [u64; 2], times: u32| sides.map(|side| side.div_ceil(1 << times));
    for value in graph["values"].as_object_mut().unwrap().values_mut() {
        let found = [1, 2].map(|n| dim(value, n));
        if found == [1, 1] {
            continue;
        }
        let times = (0..8).find(|times| halved(whole, *times) == found).unwrap();
        let [height, width] = halved(sides, times);
        value["width"] = (height * width * dim(value, 3)).into();
        (value["dims"][1], value["dims"][2]) = (height.into(), width.into());
    }
    std::fs::write(path, serde_json::to_vec(&graph).unwrap()).unwrap();
}

#[test]
fn int8_models_on_a_cortex_m55_are_bit_equal_to_the_reference() {
    for model in ["kws_ref_model", "vww_96_int8"] {
        played_on("mps3-an547", 512 << 10, model);
    }
}

#[test]
fn int8_models_on_risc_v_are_bit_equal_to_the_reference() {
    for model in ["ad01_int8", "kws_ref_model"] {
        if let Some(said) = played_on("virt-rv32", 384 << 10, model) {
            check_counts(model, &said);
        }
    }
}

/// What boards that people own do: answer over a serial port.
#[test]
fn a_serial_port_answers_with_outputs() {
    let model = require_shared!("models/mlperf_tiny/kws_ref_model.tflite");
    let folder = tempfile::tempdir().unwrap();
    let [package, image] = ["m.omex", "m.img"].map(|name| folder.path().join(name));
    let Some(board) = serial_board("virt-rv32", &image) else { return };
    converted(&model, &package);
    pack_with(&package, &on_board(384 << 10), &image);
    let references = arrays(&require_shared!("refs/tflite/kws_ref_model.npz"));
    let (inputs, outputs) = (&references["inputs"], &references["out_tflm"]);
    let (size, length) = (inputs.bytes.len() / inputs.shape[0], outputs.shape[1]);
    // What ends the terminal's input is no byte of these inputs.
    let mut samples = inputs.bytes.chunks(size).zip(outputs.bytes.chunks(length));
    let (input, output) = samples.find(|(input, _)| !input.contains(&4)).unwrap();
    let mut typed = b"seed\x7f\x7f\x7f\x7fnothing\rbytes\r".to_vec();
    typed.extend_from_slice(input);
    typed.push(4);
    let said = answered(board, typed);
    let expected: String = output.iter().map(|byte| format!(" {}", byte.cast_signed())).collect();
    assert!(said.contains("error: expected zero, seeded"), "{said}");
    assert!(said.contains(&format!("Identity:{expected}\r\n")), "{said}");
}

/// Plays a model of `mlperf_tiny` over its reference's inputs on a board with so many bytes of memory, compares
/// all outputs, and returns what the board said; `None` where boards or models are not there.
fn played_on(name: &str, ram: u64, model: &str) -> Option<serde_json::Value> {
    let file = require_shared!(&format!("models/mlperf_tiny/{model}.tflite"));
    let references = arrays(&require_shared!(&format!("refs/tflite/{model}.npz")));
    let folder = tempfile::tempdir().unwrap();
    let [package, image, input] =
        ["m.omex", "m.img", "in.npy"].map(|name| folder.path().join(name));
    let mut board = board(name, &image)?;
    converted(&file, &package);
    pack_with(&package, &on_board(ram), &image);
    let (inputs, outputs) = (&references["inputs"], &references["out_tflm"]);
    inputs.write(&input).unwrap();
    let said = json_of(&run(board.arg("--input").arg(&input)));
    let samples = said["outputs"].as_array().unwrap();
    assert!(!samples.is_empty() && samples.len() == inputs.shape[0], "{said}");
    let length = outputs.bytes.len() / samples.len();
    for (sample, expected) in samples.iter().zip(outputs.bytes.chunks(length)) {
        assert_eq!(sample["values"], signed(expected), "{model} on {name}");
    }
    assert_eq!(said["output"], samples.last().unwrap()["values"]);
    assert!(said["flash_bytes"].as_u64().unwrap() > 0, "{said}");
    check_memory(&said, ram);
    Some(said)
}

/// Only the first inference checks the weights.
fn check_counts(model: &str, said: &serde_json::Value) -> u64 {
    let counted = said["instructions_per_inference"].as_u64().unwrap();
    println!("{model}: {counted} instructions");
    assert!(said["instructions_of_first_inference"].as_u64().unwrap() > counted, "{said}");
    counted
}

/// Bytes as JSON has them.
fn signed(bytes: &[u8]) -> serde_json::Value {
    bytes.iter().map(|byte| byte.cast_signed()).collect()
}

/// What an image is packed for.
fn on_board(ram: u64) -> Target {
    let (page_size, columns, context, kv) = (None, None, None, None);
    Target { ram, reserve: 11 << 10, mapped: false, page_size, columns, context, kv }
}

/// Numbers that look random.
fn noise(seed: u32) -> impl FnMut() -> u8 {
    let mut state = seed;
    move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    }
}

/// A convolution and a pooling of shapes at which nothing is a multiple of anything.
fn small(depthwise: bool) -> (Graph, Vec<u8>, Tensor) {
    let (outputs, columns) = if depthwise { (6, 6) } else { (5, 18) };
    let mut next = noise(7 + u32::from(depthwise));
    let mut weights = vec![];
    for channel in 0..outputs {
        let words = [100 * channel - 200, 0x5000_0000 + 0x0123_4567 * channel, -6];
        weights.extend(words.iter().flat_map(|word: &i32| word.to_le_bytes()));
        weights.extend((0..columns).map(|_| next()));
        weights.resize(weights.len().next_multiple_of(4), 0);
    }
    let image = |height: u16, width: u16, channels: u16| ValueShape {
        width: u32::from(height * width * channels),
        per: Per::Pass,
        dtype: Dtype::I8,
        dims: [1, height, width, channels],
    };
    let channels = outputs as u16;
    let conv = Conv2d::<Names> {
        weight: "conv".into(),
        input: ValueRef::all("in"),
        output: ValueRef::all("conv"),
        kernel: [2, 3],
        stride: [2, 1],
        pad: [1, 1],
        input_zero: -3,
        output_zero: 5,
        clamp: [-100, 127],
        depthwise,
    };
    let pool = AveragePool::<Names> {
        input: ValueRef::all("conv"),
        output: ValueRef::all("out"),
        kernel: [2, 2],
        stride: [1, 2],
        pad: [0, 1],
        clamp: [-128, 127],
    };
    let graph = Graph {
        format: FORMAT,
        inputs: vec![Port::of("in")],
        outputs: vec![Port::of("conv"), Port::of("out")],
        values: [
            ("in".to_owned(), image(7, 5, 3)),
            ("conv".to_owned(), image(4, 5, channels)),
            ("out".to_owned(), image(4, 3, channels)),
        ]
        .into(),
        nodes: vec![Node::from(conv), pool.into()],
        ..Graph::default()
    };
    let (rows, columns) = (outputs as u32, columns as u32);
    assert_eq!(weights.len() as u64, u64::from(rows) * channel_bytes(columns));
    (graph, weights, Tensor { format: Format::Channels, rows, columns, address: 0 })
}

/// The same convolution with 64-bit integers and every tap looked at.
fn by_hand(input: &[i8], weights: &[u8], depthwise: bool) -> Vec<i8> {
    let (outputs, columns) = if depthwise { (6, 6) } else { (5, 18) };
    let row_bytes = channel_bytes(columns as u32) as usize;
    let mut out = vec![0; 4 * 5 * outputs];
    for (y, x, o) in
        (0..4).flat_map(|y| (0..5).flat_map(move |x| (0..outputs).map(move |o| (y, x, o))))
    {
        let row = &weights[o * row_bytes..][..row_bytes];
        let word = |n: usize| i64::from(i32::from_le_bytes(row[4 * n..][..4].try_into().unwrap()));
        let mut sum = word(0);
        for (ky, kx, i) in
            (0..2).flat_map(|ky| (0..3).flat_map(move |kx| (0..3).map(move |i| (ky, kx, i))))
        {
            let (row_in, column_in) = (2 * y as i64 + ky - 1, x as i64 + kx - 1);
            if !(0..7).contains(&row_in) || !(0..5).contains(&column_in) {
                continue;
            }
            if depthwise && i != o as i64 / 2 {
                continue;
            }
            let tap = if depthwise { ky * 3 + kx } else { (ky * 3 + kx) * 3 + i };
            let weight = i64::from(row[12 + tap as usize].cast_signed());
            let pixel = input[((row_in * 5 + column_in) * 3 + i) as usize];
            sum += (i64::from(pixel) + 3) * weight;
        }
        // Twice rounded half away from zero.
        let product = sum * word(1);
        let high = (product + if product >= 0 { 1 << 30 } else { 1 - (1 << 30) }) / (1 << 31);
        let scaled = (high.abs() + 32) / 64 * high.signum();
        out[(y * 5 + x) * outputs + o] = (scaled + 5).clamp(-100, 127) as i8;
    }
    out
}

#[test]
fn convolutions_are_right_wherever_a_page_ends() {
    for depthwise in [false, true] {
        let (graph, weights, tensor) = small(depthwise);
        let compiled = compile(&graph, &[], |_, plane| (plane == 0).then_some(tensor)).unwrap();
        let mut next = noise(99);
        let input: Vec<u8> = (0..7 * 5 * 3).map(|_| next()).collect();
        let signed: Vec<i8> = input.iter().map(|x| x.cast_signed()).collect();
        let expected = by_hand(&signed, &weights, depthwise);
        assert!(
            expected.iter().any(|x| *x > 5) && expected.iter().any(|x| *x < 5),
            "not all alike"
        );
        for page_size in [8, 16, 64, 512] {
            let checksums: Vec<_> = weights
                .chunks(page_size as usize)
                .map(|p| crc32c::crc32c(p).to_le_bytes())
                .collect();
            let program =
                Program::parse(&compiled.program, &compiled.tensors, 0..weights.len() as u64);
            let plan = Plan {
                columns: 1,
                logit_columns: 1,
                kv_capacity: 1,
                kv_sinks: 0,
                kv_format: KvFormat::Half,
                sequences: 1,
            };
            let end = weights.len() as u64;
            let (program, first_checked) = (program.unwrap(), 0);
            let model = Model { program, plan, end, checksums: &checksums, first_checked };
            let mut pager = SlicePager::new(&weights, page_size).unwrap();
            let mut memory =
                vec![0u128; model.layout(&pager).unwrap().total().div_ceil(16) as usize];
            let memory = memory.as_mut_bytes();
            let mut engine = Engine::new(model, memory, &mut pager, &PORTABLE, &Serial).unwrap();
            engine.input_mut("in").copy_from_slice(&input);
            engine.infer().unwrap();
            let ports: Vec<_> = engine.program().outputs().collect();
            assert_eq!(engine.output_i8(&ports[0], 0), expected, "pages of {page_size}");
        }
    }
}

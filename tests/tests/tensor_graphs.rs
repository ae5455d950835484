//! Graphs over tensors of TensorFlow Lite and ONNX give what the reference implementations give.

mod npz;

use npz::arrays;
use omex::convert::{ConvertOptions, convert};
use omex::import::{self, GraphInputs};
use omex::infer::{Input, infer};
use omex::npy::{Array, Element};
use omex_tests::{Random, Setting, omex, require_shared, run};
use std::collections::BTreeSet;
use std::path::Path;

fn floats(array: &Array) -> Vec<f32> {
    assert_eq!(array.element, Element::F32);
    array.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn converted(model: &Path, format: &str, folder: &Path, inputs: &GraphInputs) {
    let source = import::open_with(model, None, inputs).unwrap();
    convert(&*source, format, "m", folder, &ConvertOptions::default(), &mut |_, _| {}).unwrap();
}

/// The largest difference, as a part of the largest number, or of 1 if that is less.
fn apart(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1.0f32, |most, x| most.max(x.abs()));
    found.iter().zip(expected).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn floats_of_tensorflow_lite_are_near_the_reference() {
    for (model, bound) in [
        ("mlperf_tiny/ad01_fp32", 1e-4),
        ("mlperf_tiny/pretrainedResnet", 1e-4),
        ("mlperf_tiny/vww_96_float", 1e-4),
        ("tflm/hello_world_float", 1e-4),
        ("tflm/trained_lstm", 1e-4),
        // The reference rounds activations of this one to bytes as it goes, since its weights are bytes.
        ("mlperf_tiny/kws_ref_model_float32", 1e-2),
    ] {
        let file = require_shared!(&format!("models/{model}.tflite"));
        let (_, name) = model.split_once('/').unwrap();
        let references = arrays(&require_shared!(&format!("refs/tflite/{name}.npz")));
        let folder = tempfile::tempdir().unwrap();
        let package = folder.path().join("m.omex");
        converted(&file, "tflite", &package, &GraphInputs::default());
        let mut session = Setting::default().open(&package, 1).unwrap();
        let inputs = &references["inputs"];
        let expected = floats(&references["out_tfl214_ref"]);
        let (samples, size) = (inputs.shape[0], inputs.bytes.len() / inputs.shape[0]);
        for (sample, expected) in expected.chunks(expected.len() / samples).enumerate().take(3) {
            let bytes = inputs.bytes[sample * size..][..size].to_vec();
            let array = Array { element: Element::F32, shape: inputs.shape[1..].to_vec(), bytes };
            let input = Input { name: None, path: Path::new("sample.npy"), array };
            let found = infer(&mut session, &[input]).unwrap();
            let apart = apart(&floats(&found[0].1), expected);
            assert!(apart <= bound, "{model}, sample {sample}: apart by {apart}");
        }
    }
}

/// Every case of a model whose references ONNX Runtime made.
fn check_onnx(model: &str, inputs: &GraphInputs, bound: f32) {
    let file = require_shared!(&format!("models/{model}.onnx"));
    let (_, name) = model.split_once('/').unwrap();
    let references = arrays(&require_shared!(&format!("refs/onnx/{name}.npz")));
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("m.omex");
    converted(&file, "onnx", &package, inputs);
    let mut session = Setting::default().open(&package, 1).unwrap();
    let cases: BTreeSet<&str> =
        references.keys().map(|key| key.split('/').next().unwrap()).collect();
    // Images of a quarter of a megapixel take their time.
    let large = inputs.shapes.is_empty() && !name.starts_with("mnist");
    for case in cases.into_iter().take(if large { 1 } else { 4 }) {
        let of = |kind: &str| -> Vec<(&str, &Array)> {
            let start = format!("{case}/{kind}/");
            references
                .iter()
                .filter_map(|(key, array)| Some((key.strip_prefix(&start)?, array)))
                .collect()
        };
        let given = of("in");
        let given: Vec<Input<'_>> = given
            .iter()
            .map(|(name, array)| Input {
                name: Some(name),
                path: Path::new("x"),
                array: (*array).clone(),
            })
            .collect();
        let found = infer(&mut session, &given).unwrap();
        for (name, expected) in of("out") {
            let (_, array) = found.iter().find(|(other, _)| other == name).unwrap();
            assert_eq!(array.shape, expected.shape, "{model}, {name}");
            let apart = apart(&floats(array), &floats(expected));
            println!("{model}, {case}, {name}: apart by {apart}");
            assert!(apart <= bound, "{model}, {case}, {name}: apart by {apart}");
        }
    }
}

#[test]
fn onnx_graphs_are_near_the_reference() {
    for model in ["mnist_burn", "mnist_cntk", "super_resolution", "ultraface_rfb_320"] {
        check_onnx(&format!("onnx/{model}"), &GraphInputs::default(), 1e-4);
    }
}

#[test]
fn quantized_onnx_graphs_are_near_the_reference() {
    for model in [
        "mnist_burn_qdq_s8",
        "mnist_burn_qoperator_s8",
        "mnist_cntk_qdq_s8",
        "mnist_cntk_qoperator_s8",
        "ultraface_rfb_320_qdq_s8",
        "ultraface_rfb_320_qoperator_s8",
    ] {
        // Sums that lie between two steps are rounded otherwise than the floats of the reference: seven of the 255
        // steps of one in 8840 scores at most, behind 52 convolutions.
        check_onnx(&format!("onnx_int8/{model}"), &GraphInputs::default(), 3e-2);
    }
}

#[test]
fn voice_activity_detection_is_near_the_reference() {
    let shapes = [("input", vec![1, 576]), ("state", vec![2, 1, 128])];
    let inputs = GraphInputs {
        shapes: shapes.map(|(name, shape)| (name.to_owned(), shape)).into(),
        numbers: [("sr".to_owned(), 16000.0)].into(),
    };
    check_onnx("silero_vad/silero_vad", &inputs, 1e-4);
    check_onnx("silero_vad/silero_vad_16k_op15", &inputs, 1e-4);
}

#[test]
fn what_a_graph_leaves_open_is_asked_for() {
    let file = require_shared!("models/silero_vad/silero_vad.onnx");
    let folder = tempfile::tempdir().unwrap();
    let convert = |arguments: &[&str]| {
        let mut command = omex(["convert", file.to_str().unwrap(), "--dry-run"]);
        run(command.args(arguments).current_dir(folder.path())).orderly()
    };
    let open = convert(&[]);
    assert_eq!(open.code, Some(1), "{open:?}");
    assert!(open.err.contains("--input-shape"), "{open:?}");
    let unknown = convert(&["--input-shape", "nothing=1x2"]);
    assert!(unknown.err.contains("\"nothing\"") && unknown.err.contains("state"), "{unknown:?}");
    let settled = ["--input-shape", "input=1x576", "--input-shape", "state=2x1x128"];
    assert_eq!(convert(&settled).code, Some(0), "a rate that the graph itself compares with");
    let wrong = convert(&["--input-shape", "input=1xtwo"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}

#[test]
fn inputs_are_files_of_several_kinds_or_made() {
    let file = require_shared!("models/tflm/hello_world_float.tflite");
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("m.omex");
    converted(&file, "tflite", &package, &GraphInputs::default());
    let inferred = |input: &str| {
        let mut command = omex(["infer", package.to_str().unwrap(), "--json", "--input", input]);
        run(command.current_dir(folder.path())).orderly()
    };
    // 16 bits, one channel, a sample of a half.
    let mut wav = b"RIFF\x26\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    wav.extend([0x80, 0x3e, 0, 0, 0, 0x7d, 0, 0, 2, 0, 16, 0]);
    wav.extend(b"data\x02\0\0\0\0\x40");
    std::fs::write(folder.path().join("half.wav"), wav).unwrap();
    std::fs::write(folder.path().join("half.bin"), 0.5f32.to_le_bytes()).unwrap();
    std::fs::write(folder.path().join("more.bin"), [0; 5]).unwrap();
    let half = inferred("half.bin");
    assert_eq!((half.code, &half.out), (Some(0), &inferred("half.wav").out), "{half:?}");
    assert_ne!(half.out, inferred("zero").out);
    assert_ne!(half.out, inferred("seeded").out);
    let wrong = inferred("more.bin");
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.err.contains("5 bytes") && wrong.err.contains("<f4 [1, 1]"), "{wrong:?}");
}

/// Bytes that are changed, cut out or doubled give an error or a graph, whatever they say.
#[test]
fn damaged_files_are_errors_or_graphs() {
    let files = [
        "tflm/hello_world_int8.tflite",
        "tflm/hello_world_float.tflite",
        "tflm/trained_lstm.tflite",
        "mlperf_tiny/kws_ref_model.tflite",
        "onnx/mnist_cntk.onnx",
        "onnx_int8/mnist_cntk_qoperator_s8.onnx",
        "silero_vad/silero_vad_16k_op15.onnx",
    ];
    let folder = tempfile::tempdir().unwrap();
    let rounds = std::env::var("OMEX_DAMAGED").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    for name in files {
        let good = std::fs::read(require_shared!(&format!("models/{name}"))).unwrap();
        let path = folder.path().join(name.rsplit('/').next().unwrap());
        let mut random = Random(good.len() as u64);
        for _ in 0..rounds {
            let mut bad = good.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(bad.len());
                // What matters lies at the front of these files, or at their end.
                let at = [at, at % 4096, bad.len() - 1 - at % 4096.min(bad.len())][random.below(3)];
                let at = at.min(bad.len() - 1);
                match random.below(6) {
                    0 => bad[at] = random.draw() as u8,
                    1 => bad[at] = 0xff,
                    2 => bad[at] ^= 1 << random.below(8),
                    3 => bad.truncate(at.max(1)),
                    4 => drop(bad.drain(at..(at + random.below(9)).min(bad.len()))),
                    _ => {
                        let doubled = bad[at..(at + 8).min(bad.len())].to_vec();
                        bad.splice(at..at, doubled);
                    }
                }
                if bad.is_empty() {
                    bad.push(0);
                }
            }
            std::fs::write(&path, &bad).unwrap();
            let Ok(source) = import::open(&path, None) else { continue };
            let _ = omex::convert::outline(&*source, None, false);
        }
    }
}

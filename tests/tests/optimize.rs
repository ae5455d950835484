//! Graphs of floats that are quantized by samples agree with the floats, with the same bits wherever they are played.

mod npz;

use npz::arrays;
use omex::convert::{ConvertOptions, convert};
use omex::import;
use omex::infer::{Input, infer};
use omex::npy::{Array, Element};
use omex::optimize::{OptimizeOptions, Optimized, optimize, samples};
use omex_core::simd::{Kernels, PORTABLE};
use omex_tests::{Setting, json_of, omex, require_shared, run};
use std::path::{Path, PathBuf};

type Samples = Vec<(PathBuf, Array)>;

/// What the references have as inputs of a model.
fn inputs_of(references: &Path, folder: &Path) -> Samples {
    let arrays = arrays(references);
    if let Some(inputs) = arrays.get("inputs") {
        inputs.write(&folder.join("samples.npy")).unwrap();
        return samples(&folder.join("samples.npy")).unwrap();
    }
    std::fs::create_dir(folder.join("samples")).unwrap();
    for (key, array) in arrays.iter().filter(|(key, _)| key.contains("/in/")) {
        array.write(&folder.join("samples").join(key.replace('/', "_") + ".npy")).unwrap();
    }
    samples(&folder.join("samples")).unwrap()
}

fn converted(file: &Path, folder: &Path) -> PathBuf {
    let (source, package) = (import::open(file, None).unwrap(), folder.join("float.omex"));
    let format = file.extension().unwrap().to_str().unwrap();
    let options = ConvertOptions::default();
    convert(&*source, format, "m", &package, &options, &mut |_, _| {}).unwrap();
    package
}

fn outputs(package: &Path, kernels: &'static Kernels, sample: &Array) -> Vec<(String, Array)> {
    let mut session = Setting::default().open(package, 1).unwrap();
    session.set_kernels(kernels);
    let input = Input { name: None, path: Path::new("sample.npy"), array: sample.clone() };
    infer(&mut session, &[input]).unwrap()
}

/// How far a model that is quantized is from its floats; its inputs are those of the references.
fn quantized(model: &str, references: &str) -> Option<Optimized> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let file = shared.join("models").join(model);
    if !file.exists() {
        println!("skipped: {} is not there", file.display());
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let samples = inputs_of(&shared.join("refs").join(references), folder.path());
    let (float, small) = (converted(&file, folder.path()), folder.path().join("small.omex"));
    let options = OptimizeOptions { percentile: 100.0, convert: ConvertOptions::default() };
    let optimized = optimize(&float, &samples, &small, &options).unwrap();
    let fast = omex::dispatch::kernels().unwrap();
    let [one, other] = [&PORTABLE, fast].map(|kernels| outputs(&small, kernels, &samples[0].1));
    assert_eq!(one, other, "{model}: other kernels have other bits");
    println!("{model}: {optimized:?}");
    Some(optimized)
}

#[test]
fn quantized_graphs_agree_with_their_floats() {
    for (model, references, cosine, same) in [
        ("mlperf_tiny/pretrainedResnet.tflite", "tflite/pretrainedResnet.npz", 0.99, 0.9),
        ("mlperf_tiny/vww_96_float.tflite", "tflite/vww_96_float.npz", 0.99, 0.9),
        // Its outputs are spectra, whose largest numbers lie close to one another.
        ("mlperf_tiny/ad01_fp32.tflite", "tflite/ad01_fp32.npz", 0.999, 0.0),
        ("onnx/mnist_burn.onnx", "onnx/mnist_burn.npz", 0.99, 0.8),
        ("onnx/mnist_cntk.onnx", "onnx/mnist_cntk.npz", 0.99, 0.8),
    ] {
        let Some(optimized) = quantized(model, references) else { continue };
        let [before, after] = optimized.bytes;
        assert!(3 * after < before, "{model}: {optimized:?}");
        let output = &optimized.outputs[0];
        assert!(output.cosine > cosine && output.same_largest > same, "{model}: {optimized:?}");
    }
}

fn floats(shape: &[usize]) -> Array {
    let bytes = vec![0; 4 * shape.iter().product::<usize>()];
    Array { element: Element::F32, shape: shape.to_vec(), bytes }
}

#[test]
fn what_can_not_be_quantized_is_refused() {
    let options = OptimizeOptions { percentile: 100.0, convert: ConvertOptions::default() };
    let folder = tempfile::tempdir().unwrap();
    let empty = samples(folder.path()).unwrap_err().to_string();
    assert!(empty.contains("0 samples") && empty.contains(".npy"), "{empty}");
    for (model, shape, said) in [
        ("mlperf_tiny/kws_ref_model", [1, 490], "integers"),
        ("tflm/hello_world_float", [1, 7], "sample.npy"),
    ] {
        let own = folder.path().join(model.replace('/', "_"));
        std::fs::create_dir(&own).unwrap();
        let package = converted(&require_shared!(&format!("models/{model}.tflite")), &own);
        let sample = vec![(PathBuf::from("sample.npy"), floats(&shape))];
        let small = folder.path().join("small.omex");
        let error = optimize(&package, &sample, &small, &options).unwrap_err().to_string();
        assert!(error.contains(said), "{model}: {error}");
        assert!(!small.exists());
    }
}

#[test]
fn the_command_says_what_came_of_it() {
    let folder = tempfile::tempdir().unwrap();
    converted(&require_shared!("models/tflm/hello_world_float.tflite"), folder.path());
    let sines = (0..64u8).flat_map(|n| (f32::from(n) / 10.0).to_le_bytes()).collect();
    let inputs = Array { element: Element::F32, shape: vec![64, 1, 1], bytes: sines };
    inputs.write(&folder.path().join("samples.npy")).unwrap();
    let optimize = |data: &str, more: &[&str]| {
        let arguments = ["optimize", "float.omex", "--calibrate", data, "-o", "small.omex"];
        run(omex(arguments).args(more).current_dir(folder.path())).orderly()
    };
    let absent = optimize("nowhere.npy", &[]);
    assert!(absent.code == Some(1) && absent.err.contains("nowhere.npy"), "{absent:?}");
    let done = optimize("samples.npy", &["--json"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let output = &json_of(&done)["outputs"][0];
    assert!(output["cosine"].as_f64().unwrap() > 0.99, "{done:?}");
    let again = optimize("samples.npy", &[]);
    assert!(again.code == Some(2) && again.err.contains("--force"), "{again:?}");
    let forced = optimize("samples.npy", &["--force", "--percentile", "99.9"]);
    assert!(forced.code == Some(0) && forced.out.contains("signed bytes"), "{forced:?}");
}

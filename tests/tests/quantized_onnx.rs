//! Quantized ONNX graphs are executed in integers, within a quantum of what ONNX Runtime makes of them, which
//! `tests/peers/onnx_quantized.py` wrote.

mod npz;

use npz::arrays;
use omex::convert::{ConvertOptions, convert};
use omex::graph::Node;
use omex::import;
use omex::infer::{Input, infer};
use omex::npy::Array;
use omex::package::Package;
use omex_core::ops::Operand;
use omex_core::program::Dtype;
use omex_core::simd::PORTABLE;
use omex_tests::Setting;
use std::path::Path;

fn floats(array: &Array) -> Vec<f32> {
    array.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The names of a graph's operations over floats, but for those that make them of bytes or bytes of them.
fn over_floats(package: &Path) -> Vec<&'static str> {
    let graph = Package::open(package).unwrap().graph;
    let is_float = |name: &str| graph.values.get(name).is_some_and(|v| v.dtype == Dtype::F32);
    let mut names = vec![];
    for op in graph.nodes.iter().filter_map(Node::op) {
        let mut floats = 0;
        op.operands(&mut |operand| {
            if let Operand::Read(value) | Operand::Write(value) | Operand::Update(value) = operand {
                floats += usize::from(is_float(&value.name));
            }
        });
        if floats > 0 && !["Quantize", "Dequantize", "Constant", "Fill"].contains(&op.name()) {
            names.push(op.name());
        }
    }
    names
}

#[test]
fn quantized_operations_are_within_a_quantum_of_the_reference() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx");
    let arrays = arrays(&files.join("quanta.npz"));
    let names: Vec<&str> = arrays.keys().filter_map(|key| key.strip_suffix("/out")).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let folder = tempfile::tempdir().unwrap();
        let package = folder.path().join("m.omex");
        let source = import::open(&files.join(format!("{name}.onnx")), None).unwrap();
        let options = ConvertOptions::default();
        convert(&*source, "onnx", name, &package, &options, &mut |_, _| {}).unwrap();
        let played = [&PORTABLE, omex::dispatch::kernels().unwrap()].map(|kernels| {
            let mut session = Setting::default().open(&package, 1).unwrap();
            session.set_kernels(kernels);
            let array = arrays[&format!("{name}/in")].clone();
            let given = [Input { name: None, path: Path::new("x"), array }];
            infer(&mut session, &given).unwrap().remove(0).1
        });
        assert_eq!(played[0], played[1], "{name}: other kernels have other bits");
        let expected = &arrays[&format!("{name}/out")];
        assert_eq!(played[0].shape, expected.shape, "{name}");
        let quantum = floats(&arrays[&format!("{name}/quantum")])[0];
        let pairs = floats(&played[0]).into_iter().zip(floats(expected));
        let quanta: Vec<f32> = pairs.map(|(x, y)| (x - y).abs() / quantum).collect();
        let most = quanta.iter().copied().fold(0.0, f32::max);
        let differ = quanta.iter().filter(|apart| **apart > 0.5).count();
        let floats = over_floats(&package);
        println!("{name}: {differ} of {} differ, by {most} quanta; {floats:?}", quanta.len());
        assert!(most < 1.01, "{name}: apart by {most} quanta");
        // Dilated, of weights with more than 127 steps, or without an operation of bytes.
        let kept = [
            "qdq_conv_dilated",
            "qlinear_conv_offset",
            "qlinear_leaky_relu",
            "qdq_softmax",
            "dynamic_conv",
            "dynamic_matmul",
        ];
        assert!(kept.contains(&name) || floats.is_empty(), "{name}: {floats:?} over floats");
    }
}

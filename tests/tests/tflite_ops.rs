//! Operators in signed bytes give the bytes of TensorFlow Lite Micro's reference kernels, which
//! `tests/peers/tflite_ops.py` wrote.

mod npz;

use npz::arrays;
use omex::convert::{ConvertOptions, convert};
use omex::import;
use omex::infer::{Input, infer};
use omex_tests::Setting;
use std::path::Path;

#[test]
fn operators_in_signed_bytes_are_bit_equal_to_the_reference() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tflite");
    let arrays = arrays(&files.join("cases.npz"));
    let names: Vec<&str> = arrays.keys().filter_map(|key| key.strip_suffix("/out")).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let folder = tempfile::tempdir().unwrap();
        let package = folder.path().join("m.omex");
        let source = import::open(&files.join(format!("{name}.tflite")), None).unwrap();
        let options = ConvertOptions::default();
        convert(&*source, "tflite", name, &package, &options, &mut |_, _| {}).unwrap();
        let mut session = Setting::default().open(&package, 1).unwrap();
        let start = format!("{name}/in/");
        let given = arrays.iter().filter_map(|(key, array)| {
            let tensor = key.strip_prefix(&start)?;
            Some(Input { name: Some(tensor), path: Path::new("x"), array: array.clone() })
        });
        let found = infer(&mut session, &given.collect::<Vec<_>>()).unwrap();
        assert_eq!(found[0].1.bytes, arrays[&format!("{name}/out")].bytes, "{name}");
    }
}

//! Test data beside the repository.

use serde_json::Value;
use std::path::{Path, PathBuf};

/// A file or folder of the test data, if they are there.
#[must_use]
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(name);
    path.exists().then_some(path)
}

/// A file or folder of the test data; where they are absent, returns nothing from the function, with a line that
/// says so.
#[macro_export]
macro_rules! require_shared {
    ($name:expr) => {
        match $crate::shared($name) {
            Some(path) => path,
            None => {
                println!("skipped: the test data {} are not beside the repository", $name);
                return Default::default();
            }
        }
    };
}

/// A JSON file.
#[must_use]
pub fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A JSON array of token ids.
#[must_use]
pub fn numbers(value: &Value) -> Vec<u32> {
    let items = value.as_array().expect("an array of numbers").iter();
    items.map(|v| v.as_u64().expect("a number") as u32).collect()
}

/// A NumPy file of 32-bit floats with two dimensions.
#[derive(Debug)]
pub struct Npy {
    /// Rows.
    pub rows: Vec<Vec<f32>>,
}

/// Reads an `.npy` file.
#[must_use]
pub fn read_npy(path: &Path) -> Npy {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(&bytes[..6], b"\x93NUMPY", "{}", path.display());
    let header_length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + header_length]).unwrap();
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split("'shape': (").nth(1).and_then(|s| s.split(')').next()).unwrap();
    let shape: Vec<usize> = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let values = bytes[10 + header_length..].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
    let values: Vec<f32> = values.collect();
    let width = *shape.last().unwrap();
    assert_eq!(values.len(), shape.iter().product::<usize>());
    Npy { rows: values.chunks(width).map(<[f32]>::to_vec).collect() }
}

//! Stored tensors: of safetensors files, read and written, and as a container reads them.

use omex::import::Container;
use serde_json::Value;
use std::path::Path;

/// A stored tensor: name, shape and bytes, of F32 or BF16.
pub type Tensor = (String, Vec<u64>, Vec<u8>);

/// True for BF16.
#[must_use]
pub fn is_half(shape: &[u64], bytes: &[u8]) -> bool {
    bytes.len() as u64 == 2 * shape.iter().product::<u64>()
}

/// The tensors of a safetensors file: names, shapes and bytes.
#[must_use]
pub fn tensors(path: &Path) -> Vec<Tensor> {
    let file = std::fs::read(path).expect("the weights can be read");
    let length = u64::from_le_bytes(*file.first_chunk().expect("a length")) as usize;
    let (header, data) = file[8..].split_at(length);
    let header: Value = serde_json::from_slice(header).expect("a header");
    let entries =
        header.as_object().expect("names").iter().filter(|(name, _)| *name != "__metadata__");
    let tensor = |(name, entry): (&String, &Value)| {
        let [shape, span]: [Vec<u64>; 2] =
            ["shape", "data_offsets"].map(|field| numbers64(&entry[field]));
        (name.clone(), shape, data[span[0] as usize..span[1] as usize].to_vec())
    };
    entries.map(tensor).collect()
}

fn numbers64(list: &Value) -> Vec<u64> {
    let list = list.as_array().expect("a list");
    list.iter().map(|n| n.as_u64().expect("a whole number")).collect()
}

/// Every row of a tensor.
///
/// # Panics
/// There is none, or it can't be read.
#[must_use]
pub fn rows(model: &dyn Container, name: &str) -> Vec<Vec<f32>> {
    let info = model.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    let row = |row| {
        let mut out = vec![0.0; info.columns as usize];
        model.read_row(name, row, &mut out).expect("the row can be read");
        out
    };
    (0..info.rows).map(row).collect()
}

/// Writes a safetensors file.
pub fn write_safetensors(path: &Path, tensors: &[Tensor]) {
    let (mut header, mut data) = (serde_json::Map::new(), vec![]);
    for (name, shape, bytes) in tensors {
        let dtype = if is_half(shape, bytes) { "BF16" } else { "F32" };
        let span = [data.len(), data.len() + bytes.len()];
        let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": span });
        header.insert(name.clone(), entry);
        data.extend(bytes);
    }
    let header = serde_json::to_vec(&header).expect("plain JSON");
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(path, [&length[..], &header, &data].concat()).expect("it can be written");
}

/// Those of all files of a model.
#[must_use]
pub fn all_tensors(model: &Path) -> Vec<Tensor> {
    let files = std::fs::read_dir(model).expect("the folder can be read");
    let files = files.map(|file| file.expect("a file").path());
    let files = files.filter(|file| file.extension().is_some_and(|end| end == "safetensors"));
    files.flat_map(|file| tensors(&file)).collect()
}

//! Safetensors files: a JSON header that says where the tensors lie.
//!
//! The format is described at <https://github.com/huggingface/safetensors#format>. The
//! `safetensors` crate is not used because it wants the whole file in memory.

use super::encoding::Encoding;
use super::source_file::SourceFile;
use super::stored::StoredTensor;
use crate::Result;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use std::{collections::BTreeMap, fmt};

/// The longest header that is read, the limit of the reference implementation.
const MAX_HEADER: u64 = 100_000_000;
const DAMAGED: &str = "the file is damaged: get it again";

/// A tensor as the header describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The entries in the order of the file: a map would hide duplicates.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an entry for every tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
            } else {
                entries.push((name, map.next_value()?));
            }
        }
        Ok(Entries(entries))
    }
}

/// Adds the tensors of the last of `files` to `tensors`.
///
/// # Errors
///
/// When the header is malformed, when tensors are not stored back to back from the header to the
/// end of the file, or when a tensor is there already.
pub(super) fn add_tensors(
    files: &[SourceFile],
    tensors: &mut BTreeMap<String, StoredTensor>,
) -> Result<()> {
    let index = files.len() - 1;
    let file = &files[index];
    let (entries, data_start) = read_header(file)?;
    let mut spans = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let tensor = place(files, index, &name, &entry, data_start)?;
        spans.push((tensor.offset, tensor.end()));
        if tensors.contains_key(&name) {
            return Err(file.malformed(name, "the tensor a second time", "it once", DAMAGED));
        }
        tensors.insert(name, tensor);
    }
    check_coverage(file, data_start, spans)
}

fn read_header(file: &SourceFile) -> Result<(Vec<(String, Entry)>, u64)> {
    let mut length = [0; 8];
    file.read("header length", 0, &mut length)?;
    let length = u64::from_le_bytes(length);
    let max = MAX_HEADER.min(file.length.saturating_sub(8));
    if length > max {
        let expected = format!("at most {max} bytes");
        let remedy = "the file is cut short or not in the safetensors format: get it again";
        return Err(file.malformed("header length", length.to_string(), expected, remedy));
    }
    let mut json = vec![0; length as usize];
    file.read("header", 8, &mut json)?;
    let Entries(entries) = serde_json::from_slice(&json).map_err(|e| {
        file.malformed("header", e.to_string(), "JSON that describes the tensors", DAMAGED)
    })?;
    Ok((entries, 8 + length))
}

/// The encoding of a type by its name.
fn encoding(dtype: &str) -> Option<Encoding> {
    Some(match dtype {
        "F32" => Encoding::F32,
        "F16" => Encoding::F16,
        "BF16" => Encoding::Bf16,
        "BOOL" => Encoding::Other("BOOL", 1),
        "U8" => Encoding::Other("U8", 1),
        "I8" => Encoding::Other("I8", 1),
        "F8_E4M3" => Encoding::F8E4m3,
        "F8_E5M2" => Encoding::F8E5m2,
        "U16" => Encoding::Other("U16", 2),
        "I16" => Encoding::Other("I16", 2),
        "U32" => Encoding::Other("U32", 4),
        "I32" => Encoding::Other("I32", 4),
        "U64" => Encoding::Other("U64", 8),
        "I64" => Encoding::Other("I64", 8),
        "F64" => Encoding::Other("F64", 8),
        _ => return None,
    })
}

fn place(
    files: &[SourceFile],
    index: usize,
    name: &str,
    entry: &Entry,
    data_start: u64,
) -> Result<StoredTensor> {
    let file = &files[index];
    let encoding = encoding(&entry.dtype).ok_or_else(|| {
        let (expected, remedy) = ("a type that the format knows", DAMAGED);
        file.malformed(format!("dtype of {name}"), entry.dtype.as_str(), expected, remedy)
    })?;
    let (start, end) = entry.data_offsets;
    let bad_offsets = |expected: String| {
        let found = format!("[{start}, {end}]");
        file.malformed(format!("data_offsets of {name}"), found, expected, DAMAGED)
    };
    let Some(offset) = data_start.checked_add(start) else {
        return Err(bad_offsets(format!("offsets within the file's {} bytes", file.length)));
    };
    // A number without dimensions is a vector of one.
    let shape = if entry.shape.is_empty() { &[1] } else { entry.shape.as_slice() };
    let tensor = StoredTensor::new(files, index, name, shape, encoding, offset)?;
    let expected_end = tensor.end() - data_start;
    if end != expected_end {
        return Err(bad_offsets(format!("[{start}, {expected_end}], as its shape says")));
    }
    Ok(tensor)
}

/// Checks that `spans` fill the file without holes and overlaps, as the format demands.
fn check_coverage(file: &SourceFile, data_start: u64, mut spans: Vec<(u64, u64)>) -> Result<()> {
    spans.sort_unstable();
    let mut covered = data_start;
    for (start, end) in spans {
        if start != covered {
            let found = format!("a tensor from byte {start} on");
            let expected = format!("the next from byte {covered} on: no holes, no overlaps");
            return Err(file.malformed("data_offsets", found, expected, DAMAGED));
        }
        covered = end;
    }
    if covered != file.length {
        let expected = format!("{covered}, where the last tensor ends");
        return Err(file.malformed("file length", file.length.to_string(), expected, DAMAGED));
    }
    Ok(())
}

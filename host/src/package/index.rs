//! `weights/quantization.json`: where every tensor lies, and checksums of every page.

use super::CONVERT_AGAIN;
use crate::quantize::Precision;
use crate::{Error, Result, input};
use omex_core::program::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path};
use std::sync::Arc;

/// The index of a package's weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WeightIndex {
    /// Version of this file's format: 1.
    pub format: u32,
    /// Bytes a page: a power of two from 4096 to 2^24. Files are whole pages.
    pub page_size: u32,
    /// The files in `weights/`, in the order of use.
    pub files: Vec<FileEntry>,
    /// The tensors, in the order of use.
    pub tensors: Vec<TensorEntry>,
}

/// A file of weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FileEntry {
    /// Its name in `weights/`.
    pub name: String,
    /// Bytes.
    pub length: u64,
    /// CRC-32C of each page: eight hexadecimal digits a page.
    pub page_crc32c: String,
}

/// A tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TensorEntry {
    /// Its name in `graph.json`.
    pub name: String,
    /// Which of the matrices that add up to the tensor this is: 0 the base, 1 the residual, what
    /// the base got wrong.
    #[serde(default, skip_serializing_if = "is_base")]
    pub plane: u32,
    /// The file in `weights/`.
    pub file: String,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Rows and columns; a vector has one row.
    pub shape: [u32; 2],
    /// How the numbers are stored.
    pub format: Precision,
    /// CRC-32C of the bytes: eight hexadecimal digits.
    pub crc32c: String,
    /// How far the numbers are from those that the tensor was converted from: the root mean square of
    /// the differences as a part of that of the numbers. A residual's is that of both planes together.
    /// Left out where they are the same.
    #[serde(default, skip_serializing_if = "is_exact")]
    pub error: f32,
}

fn is_exact(error: &f32) -> bool {
    *error == 0.0
}

fn is_base(plane: &u32) -> bool {
    *plane == 0
}

impl WeightIndex {
    /// The tensors by name and plane, at their addresses in the paged space, which is all files one after
    /// another. The index has been checked.
    #[must_use]
    pub fn by_name(&self) -> BTreeMap<(&str, u32), Tensor> {
        let mut bases = BTreeMap::new();
        let mut space = 0;
        for file in &self.files {
            bases.insert(file.name.as_str(), space);
            space += file.length;
        }
        let tensors = self.tensors.iter().filter_map(|entry| {
            let address = bases.get(entry.file.as_str())? + entry.offset;
            let [rows, columns] = entry.shape;
            let tensor = Tensor { format: entry.format.into(), rows, columns, address };
            Some(((entry.name.as_str(), entry.plane), tensor))
        });
        tensors.collect()
    }

    /// Bytes of all files.
    #[must_use]
    pub fn space(&self) -> u64 {
        self.files.iter().map(|f| f.length).sum()
    }

    /// The checksum of each page of the paged space.
    #[must_use]
    pub fn page_checksums(&self) -> Vec<[u8; 4]> {
        let digits = self.files.iter().flat_map(|f| f.page_crc32c.as_bytes().chunks(8));
        digits.map(|d| parse_crc(d).unwrap_or_default().to_le_bytes()).collect()
    }

    /// Checks that the index holds together and that the files are there with these lengths, and
    /// opens them.
    ///
    /// # Errors
    /// The first field that does not fit.
    pub fn check(&self, package: &Path) -> Result<Vec<Arc<File>>> {
        let path = package.join("weights/quantization.json");
        let wrong = |field: String, found: String, expected: &str| {
            Err(Error::malformed(&path, field, found, expected, CONVERT_AGAIN))
        };
        if self.format != 1 {
            return wrong("format".into(), self.format.to_string(), "1");
        }
        if !self.page_size.is_power_of_two() || !(4096..=1 << 24).contains(&self.page_size) {
            let expected = "a power of two from 4096 to 16777216";
            return wrong("page_size".into(), self.page_size.to_string(), expected);
        }
        let (mut lengths, mut opened) = (BTreeMap::new(), vec![]);
        for file in &self.files {
            let field = |name| format!("file \"{}\": {name}", file.name);
            let mut parts = Path::new(&file.name).components();
            let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
            if !plain || file.name.contains(char::is_control) {
                let expected = "a name without folders and control characters";
                return wrong(field("name"), file.name.clone(), expected);
            }
            let pages = file.length / u64::from(self.page_size);
            if !file.length.is_multiple_of(u64::from(self.page_size)) || file.length > 1 << 44 {
                return wrong(field("length"), file.length.to_string(), "whole pages");
            }
            let digits = file.page_crc32c.as_bytes();
            if digits.len() as u64 != 8 * pages || digits.chunks(8).any(|d| parse_crc(d).is_none())
            {
                let found = format!("{} characters", digits.len());
                return wrong(
                    field("page_crc32c"),
                    found,
                    &format!("8 hexadecimal digits for each of {pages} pages"),
                );
            }
            if lengths.insert(file.name.as_str(), file.length).is_some() {
                return wrong(field("name"), "it twice".into(), "it once");
            }
            opened.push(Arc::new(open(package, file)?));
        }
        let mut names = std::collections::BTreeSet::new();
        for tensor in &self.tensors {
            let field = |name| format!("tensor \"{}\": {name}", tensor.name);
            let Some(length) = lengths.get(tensor.file.as_str()) else {
                return wrong(field("file"), tensor.file.clone(), "one of \"files\"");
            };
            let [rows, columns] = tensor.shape;
            let needed = omex_core::quant::Format::from(tensor.format).tensor_bytes(rows, columns);
            if tensor.length != needed {
                let expected = format!("{needed} for {rows} × {columns} {:?}", tensor.format);
                return wrong(field("length"), tensor.length.to_string(), &expected);
            }
            if tensor.offset.checked_add(needed).is_none_or(|end| end > *length) {
                return wrong(
                    field("offset"),
                    tensor.offset.to_string(),
                    &format!("{needed} bytes inside of the file's {length}"),
                );
            }
            if parse_crc(tensor.crc32c.as_bytes()).is_none() {
                return wrong(field("crc32c"), tensor.crc32c.clone(), "8 hexadecimal digits");
            }
            if tensor.plane > 1 {
                return wrong(field("plane"), tensor.plane.to_string(), "0 or 1");
            }
            if !names.insert((tensor.name.as_str(), tensor.plane)) {
                return wrong(field("name"), "it twice".into(), "it once, or once for each plane");
            }
        }
        Ok(opened)
    }
}

/// Opens a file of weights, which has the length that the index says.
fn open(package: &Path, entry: &FileEntry) -> Result<File> {
    let name = format!("weights/{}", entry.name);
    let (path, file) = (package.join(&name), input::open_part(package, &name)?);
    let length = file.metadata().map_err(|e| Error::io(&path, "read", e))?.len();
    if length != entry.length {
        let found = format!("{length} bytes");
        let expected = format!("{} bytes, as weights/quantization.json says", entry.length);
        return Err(Error::malformed(&path, "length", found, expected, CONVERT_AGAIN));
    }
    Ok(file)
}

/// Eight hexadecimal digits as a number.
#[must_use]
pub fn parse_crc(digits: &[u8]) -> Option<u32> {
    if digits.len() != 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

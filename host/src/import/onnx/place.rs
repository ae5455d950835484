//! Where a constant's numbers lie: in the model's file, or in another one in its folder.

use super::graph::{Constant, Place};
use super::weights::kind;
use super::wire::Reader;
use crate::durable::folder_of;
use crate::import::encoding::Encoding;
use crate::import::source_file::SourceFile;
use crate::import::stored::StoredTensor;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// The most numbers that are held in memory: scales and zero points of a matrix's rows.
const MAX_LISTED: u64 = 4 << 20;

/// The files of a model.
pub(super) struct Files {
    /// The model's, then others in the order in which they were first named.
    pub(super) open: Vec<SourceFile>,
    /// Numbers of the others by what they are called.
    by_location: BTreeMap<String, usize>,
}

impl Files {
    pub(super) fn new(model: SourceFile) -> Self {
        Self { open: vec![model], by_location: BTreeMap::new() }
    }

    fn model(&self) -> &SourceFile {
        &self.open[0]
    }

    /// A constant as a tensor, of these sides.
    pub(super) fn tensor(
        &mut self,
        name: &str,
        constant: &Constant,
        sides: &[u64],
    ) -> Result<StoredTensor> {
        let encoding = encoding(constant.kind).ok_or_else(|| {
            let (found, expected) = (format!("{}", constant.kind), "a type of numbers");
            self.refused(format!("data_type of {name}"), found, expected)
        })?;
        let (file, offset, length) = self.place(name, constant)?;
        let tensor = StoredTensor::new(&self.open, file, name, sides, encoding, offset)?;
        let expected = tensor.end() - offset;
        match length.filter(|length| *length != expected) {
            Some(length) => {
                let expected = format!("{expected}, as its shape says");
                Err(self.refused(format!("bytes of {name}"), length.to_string(), &expected))
            }
            None => Ok(tensor),
        }
    }

    /// The numbers of a short constant.
    pub(super) fn list(&mut self, name: &str, constant: &Constant) -> Result<Vec<f32>> {
        let count = constant.count().filter(|count| *count <= MAX_LISTED).ok_or_else(|| {
            let expected = format!("at most {MAX_LISTED} numbers");
            self.refused(format!("dims of {name}"), format!("{:?}", constant.sides), &expected)
        })?;
        if let Place::Integers(span) = &constant.place {
            let mut reader = Reader::new(self.model());
            let (mut left, mut numbers) = (span.clone(), vec![]);
            while !left.is_empty() && numbers.len() as u64 <= count {
                // Integers of 32 bits, with their sign in 64.
                numbers.push(reader.number(&mut left)?.cast_signed() as f32);
            }
            let integers = [kind::U8, kind::I8].contains(&constant.kind);
            return match integers && numbers.len() as u64 == count {
                true => Ok(numbers),
                false => {
                    let found = format!("{} integers of type {}", numbers.len(), constant.kind);
                    Err(self.refused(name, found, &format!("{count} integers of 8 bits")))
                }
            };
        }
        let tensor = self.tensor(name, constant, &[count])?;
        let (file, row) = (&self.open[tensor.file], tensor.info.encoding.row_bytes(count as u32));
        let mut bytes = vec![0; row.unwrap_or(0) as usize];
        file.read(name, tensor.offset, &mut bytes)?;
        match (constant.kind, tensor.info.encoding) {
            (kind::U8, _) => Ok(bytes.iter().map(|byte| f32::from(*byte)).collect()),
            (kind::I8, _) => Ok(bytes.iter().map(|b| f32::from(b.cast_signed())).collect()),
            (_, Encoding::Other(found, _)) => {
                Err(self.refused(format!("data_type of {name}"), found, "floats or 8-bit integers"))
            }
            (_, encoding) => {
                let mut numbers = vec![0.0; count as usize];
                encoding.decode(&bytes, &mut numbers);
                Ok(numbers)
            }
        }
    }

    /// The number of the file, the first byte, and the bytes, if these are said.
    pub(super) fn place(
        &mut self,
        name: &str,
        constant: &Constant,
    ) -> Result<(usize, u64, Option<u64>)> {
        let expected = "raw_data, float_data, or a place in another file";
        match &constant.place {
            Place::Bytes(span) => Ok((0, span.start, Some(span.end - span.start))),
            Place::External { location, offset, length } => {
                Ok((self.external(name, location)?, *offset, *length))
            }
            Place::Nowhere => Err(self.refused(format!("data of {name}"), "none", expected)),
            Place::Integers(_) => Err(self.refused(
                format!("data of {name}"),
                "integers of variable length",
                expected,
            )),
            Place::Other(found) => Err(self.refused(format!("data of {name}"), *found, expected)),
        }
    }

    /// The number of the file that is called so, which must lie in the model's folder, or, as files of a
    /// hub's cache do, beside the file that the model is a link to.
    fn external(&mut self, name: &str, location: &str) -> Result<usize> {
        if let Some(number) = self.by_location.get(location) {
            return Ok(*number);
        }
        let field = format!("location of {name}");
        let within = |part: Component<'_>| matches!(part, Component::Normal(_));
        if location.is_empty() || !Path::new(location).components().all(within) {
            let expected = "the name of a file in the model's folder";
            return Err(self.refused(field, location, expected));
        }
        let model = &self.model().path;
        let folder = folder_of(model);
        let path = folder.join(location);
        let real = |path: &Path| path.canonicalize().map_err(|e| Error::io(path, "read", e));
        let (file, beside) = (real(&path)?, real(model)?);
        if !file.starts_with(real(folder)?) && file.parent() != beside.parent() {
            let found = format!("{location}, a link to {}", file.display());
            let expected = "a file in the model's folder, or a link to one beside the model's own";
            return Err(self.refused(field, found, expected));
        }
        self.open.push(SourceFile::open(&path)?);
        let number = self.open.len() - 1;
        self.by_location.insert(location.to_owned(), number);
        Ok(number)
    }

    /// What a model does not hold, or must not.
    pub(super) fn refused(
        &self,
        field: impl Into<String>,
        found: impl Into<String>,
        expected: &str,
    ) -> Error {
        self.model().malformed(
            field,
            found,
            expected,
            "export the model again, or get it elsewhere",
        )
    }
}

/// How numbers of a type are stored.
fn encoding(found: u64) -> Option<Encoding> {
    Some(match found {
        kind::F32 => Encoding::F32,
        kind::F16 => Encoding::F16,
        kind::BF16 => Encoding::Bf16,
        kind::F8_E4M3 => Encoding::F8E4m3,
        kind::F8_E5M2 => Encoding::F8E5m2,
        kind::F64 => Encoding::Other("F64", 8),
        kind::U8 => Encoding::Other("U8", 1),
        kind::I8 => Encoding::Other("I8", 1),
        _ => return None,
    })
}

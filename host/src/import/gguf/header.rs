//! The header of GGUF files: metadata and the directory of tensors.
//!
//! The format is described at <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use super::super::source_file::SourceFile;
use crate::{Error, Result};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
};

/// The first bytes of a GGUF file.
pub(in crate::import) const MAGIC: [u8; 4] = *b"GGUF";
/// The longest header that is read. Those of models with large vocabularies have some 10 MB.
const MAX_HEADER: u64 = 256 << 20;
const DEFAULT_ALIGNMENT: u64 = 32;
const DAMAGED: &str = "the file is damaged: get it again";
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(Vec<u8>),
    Strings(Vec<Vec<u8>>),
    /// Numbers as they are stored, with their type.
    Numbers(u32, Vec<u8>),
}

/// Bytes of a number or boolean of this type, if it is one.
pub(super) fn number_bytes(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// A number or boolean of this type, if it is one and has as many bytes.
pub(super) fn number(kind: u32, bytes: &[u8]) -> Option<Value> {
    Some(match kind {
        0 => Value::Unsigned(u8::from_le_bytes(bytes.try_into().ok()?).into()),
        1 => Value::Signed(i8::from_le_bytes(bytes.try_into().ok()?).into()),
        2 => Value::Unsigned(u16::from_le_bytes(bytes.try_into().ok()?).into()),
        3 => Value::Signed(i16::from_le_bytes(bytes.try_into().ok()?).into()),
        4 => Value::Unsigned(u32::from_le_bytes(bytes.try_into().ok()?).into()),
        5 => Value::Signed(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        6 => Value::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
        7 => Value::Bool(bytes != [0]),
        10 => Value::Unsigned(u64::from_le_bytes(bytes.try_into().ok()?)),
        11 => Value::Signed(i64::from_le_bytes(bytes.try_into().ok()?)),
        12 => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => return None,
    })
}

/// A tensor as the directory describes it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Fastest first, the reverse of other formats.
    pub(super) dimensions: Vec<u64>,
    /// ggml's number of the encoding.
    pub(super) kind: u32,
    /// In the file.
    pub(super) offset: u64,
}

/// What comes before the tensors' data.
#[derive(Debug)]
pub(super) struct GgufHeader {
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: Vec<Entry>,
}

impl GgufHeader {
    /// Reads the header. No length in it is believed before it is known to fit into the file.
    pub(super) fn read(file: &SourceFile) -> Result<Self> {
        let limit = file.length.min(MAX_HEADER);
        let mut reader = Reader { file, reader: BufReader::new(&file.file), position: 0, limit };
        reader.check_version()?;
        let tensor_count = reader.u64("tensor_count")?;
        let metadata_count = reader.u64("metadata_kv_count")?;
        // The shortest tensor and metadata entries have this many bytes.
        reader.check_fits("tensor_count", tensor_count, 32)?;
        reader.check_fits("metadata_kv_count", metadata_count, 13)?;
        let metadata = reader.metadata(metadata_count)?;
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(reader.entry()?);
        }
        let start = reader.data_start(&metadata)?;
        for entry in &mut tensors {
            entry.offset = start.checked_add(entry.offset).ok_or_else(|| {
                let expected = "an offset within the file";
                let field = format!("offset of {}", entry.name);
                file.malformed(field, entry.offset.to_string(), expected, DAMAGED)
            })?;
        }
        Ok(Self { metadata, tensors })
    }
}

struct Reader<'a> {
    file: &'a SourceFile,
    reader: BufReader<&'a File>,
    position: u64,
    limit: u64,
}

impl Reader<'_> {
    fn check_version(&mut self) -> Result<()> {
        let magic = self.array::<4>("magic")?;
        if magic != MAGIC {
            let found = format!("bytes {magic:02x?}");
            return Err(self.file.malformed("magic", found, "GGUF", "give a GGUF file"));
        }
        let version = self.u32("version")?;
        let found = match version {
            2 | 3 => return Ok(()),
            _ if version.swap_bytes() < 0x100 => "a big-endian file".to_owned(),
            _ => version.to_string(),
        };
        let remedy = "convert the model again with a current version of llama.cpp";
        Err(self.file.malformed("version", found, "2 or 3, little-endian", remedy))
    }

    fn metadata(&mut self, count: u64) -> Result<BTreeMap<String, Value>> {
        let mut metadata = BTreeMap::new();
        for _ in 0..count {
            let key = self.name("metadata key")?;
            let kind = self.u32(&key)?;
            let value = self.value(&key, kind)?;
            if metadata.contains_key(&key) {
                return Err(self.file.malformed(key, "the key a second time", "it once", DAMAGED));
            }
            metadata.insert(key, value);
        }
        Ok(metadata)
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value> {
        match kind {
            7 => Ok(Value::Bool(self.boolean(key)?)),
            STRING => Ok(Value::String(self.string(key)?)),
            ARRAY => self.values(key),
            _ => {
                let size = number_bytes(kind).ok_or_else(|| self.unknown_type(key, kind))?;
                let bytes = self.bytes(key, size as u64)?;
                number(kind, &bytes).ok_or_else(|| self.unknown_type(key, kind))
            }
        }
    }

    /// The elements of an array.
    fn values(&mut self, key: &str) -> Result<Value> {
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        let size = match kind {
            // A string's length.
            STRING => 8,
            ARRAY => {
                let remedy = "only arrays of numbers and strings are supported";
                return Err(self.file.malformed(key, "an array of arrays", "an array", remedy));
            }
            _ => number_bytes(kind).ok_or_else(|| self.unknown_type(key, kind))? as u64,
        };
        self.check_fits(key, count, size)?;
        if kind != STRING {
            return Ok(Value::Numbers(kind, self.bytes(key, count * size)?));
        }
        let mut strings = Vec::new();
        for _ in 0..count {
            strings.push(self.string(key)?);
        }
        Ok(Value::Strings(strings))
    }

    fn entry(&mut self) -> Result<Entry> {
        let name = self.name("tensor name")?;
        let count = self.u32(&name)?;
        if !(1..=4).contains(&count) {
            let field = format!("dimensions of {name}");
            return Err(self.file.malformed(field, count.to_string(), "1 to 4", DAMAGED));
        }
        let mut dimensions = Vec::new();
        for _ in 0..count {
            dimensions.push(self.u64(&name)?);
        }
        Ok(Entry { dimensions, kind: self.u32(&name)?, offset: self.u64(&name)?, name })
    }

    /// Where the tensors' data begins: behind the header, aligned.
    fn data_start(&self, metadata: &BTreeMap<String, Value>) -> Result<u64> {
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(Value::Unsigned(alignment)) if alignment.is_power_of_two() => *alignment,
            Some(value) => {
                let (field, found) = ("general.alignment", format!("{value:?}"));
                return Err(self.file.malformed(field, found, "a power of two", DAMAGED));
            }
        };
        self.position.checked_next_multiple_of(alignment).ok_or_else(|| {
            let expected = "an alignment within the file";
            self.file.malformed("general.alignment", alignment.to_string(), expected, DAMAGED)
        })
    }

    fn name(&mut self, field: &str) -> Result<String> {
        String::from_utf8(self.string(field)?).map_err(|e| {
            let found = String::from_utf8_lossy(e.as_bytes()).into_owned();
            self.file.malformed(field, found, "UTF-8", DAMAGED)
        })
    }

    fn string(&mut self, field: &str) -> Result<Vec<u8>> {
        let length = self.u64(field)?;
        self.check_fits(field, length, 1)?;
        self.bytes(field, length)
    }

    fn boolean(&mut self, field: &str) -> Result<bool> {
        match self.array(field)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [byte] => Err(self.file.malformed(field, byte.to_string(), "0 or 1", DAMAGED)),
        }
    }

    fn u32(&mut self, field: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    fn u64(&mut self, field: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(field, &mut bytes)?;
        Ok(bytes)
    }

    /// `length` has passed [`Self::check_fits`].
    fn bytes(&mut self, field: &str, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.fill(field, &mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, field: &str, bytes: &mut [u8]) -> Result<()> {
        let length = bytes.len() as u64;
        self.check_fits(field, length, 1)?;
        self.reader.read_exact(bytes).map_err(|e| Error::io(&self.file.path, "read", e))?;
        self.position += length;
        Ok(())
    }

    /// Refuses more items than the rest of the header can hold.
    fn check_fits(&self, field: &str, count: u64, item_bytes: u64) -> Result<()> {
        let max = (self.limit - self.position) / item_bytes;
        if count <= max {
            return Ok(());
        }
        let found =
            format!("{count} items of {item_bytes} bytes or more at byte {}", self.position);
        let expected = format!("at most the {max} that the rest of the file can hold");
        Err(self.file.malformed(
            field,
            found,
            expected,
            "the file is cut short or damaged: get it again",
        ))
    }

    fn unknown_type(&self, key: &str, kind: u32) -> Error {
        self.file.malformed(key, format!("type {kind}"), "a type from 0 to 12", DAMAGED)
    }
}

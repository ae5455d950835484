//! GGUF files, as llama.cpp's converters write them.

mod header;
mod parts;
mod vocabulary;

use super::StoredModel;
use super::container::{Fields, SourceFormat, TokenizerSource};
use super::encoding::Encoding;
use super::source_file::SourceFile;
use super::stored::StoredTensor;
use crate::{Error, Result, tokenizer::GgufVocabulary};
use header::{Entry, GgufHeader, Value};
use std::{collections::BTreeMap, path::Path};

pub(super) use header::MAGIC;
pub(super) use parts::{in_folder, model_name};

/// The most elements of an array that goes into the hyperparameters: one a layer. Longer ones are
/// vocabularies.
const MAX_ARRAY: usize = 4096;

/// Opens a model with its tokenizer: a file, all the parts of a model of which `path` is one, or the
/// one model of a folder.
///
/// # Errors
///
/// When a file cannot be read or is malformed, when parts are missing, or when a tensor's type is none
/// of [`Encoding`]'s.
pub fn open(path: &Path) -> Result<StoredModel> {
    let path = if path.is_dir() { parts::of_folder(path)? } else { path.to_owned() };
    let file = Gguf::open(&path)?;
    match file.parts()? {
        1 => into_model(vec![file]),
        count => {
            let paths = parts::all(&path, count)?;
            let parts = paths.iter().map(|path| Gguf::open(path)).collect::<Result<Vec<_>>>()?;
            (0..).zip(&parts).try_for_each(|(number, part)| part.check_part(number, count))?;
            into_model(parts)
        }
    }
}

/// A model of all its files; the first says what it is.
fn into_model(parts: Vec<Gguf>) -> Result<StoredModel> {
    let first = &parts[0];
    let tokenizer = first.vocabulary()?.map(TokenizerSource::Gguf);
    let config = first.header.metadata.iter().map(|(key, value)| (key.clone(), json(value)));
    let config = config.collect::<Fields>();
    let announced = first.integer("split.tensors.count")?;
    let path = first.file.path.clone();
    let (files, headers): (Vec<_>, Vec<_>) = parts.into_iter().map(|p| (p.file, p.header)).unzip();
    let mut tensors = BTreeMap::new();
    for (number, header) in headers.iter().enumerate() {
        place_tensors(&files, number, &header.tensors, &mut tensors)?;
    }
    if announced.is_some_and(|count| count as usize != tensors.len()) && files.len() > 1 {
        let (found, remedy) = (format!("{} in all parts", tensors.len()), "get the parts again");
        let expected = announced.unwrap_or_default().to_string();
        return Err(files[0].malformed("split.tensors.count", found, expected, remedy));
    }
    let (format, tiles, uses) = (SourceFormat::Gguf, Default::default(), Default::default());
    Ok(StoredModel { format, path, config, files, tensors, tokenizer, tiles, uses })
}

/// A GGUF file whose header has been read.
#[derive(Debug)]
pub struct Gguf {
    file: SourceFile,
    header: GgufHeader,
}

impl Gguf {
    /// Opens a file of any architecture.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or its header is malformed.
    pub fn open(path: &Path) -> Result<Self> {
        let file = SourceFile::open(path)?;
        let header = GgufHeader::read(&file)?;
        Ok(Self { file, header })
    }

    /// The tokenizer, if the file has one.
    ///
    /// # Errors
    ///
    /// When its metadata have the wrong types or lengths.
    pub fn vocabulary(&self) -> Result<Option<GgufVocabulary>> {
        vocabulary::read(self)
    }

    /// How many files the model lies in.
    fn parts(&self) -> Result<u32> {
        Ok(self.integer("split.count")?.unwrap_or(1).max(1))
    }

    /// Checks that this is the part with this number, from 0 on, of so many.
    fn check_part(&self, number: u32, count: u32) -> Result<()> {
        for (key, expected) in [("split.no", number), ("split.count", count)] {
            let found = self.integer(key)?;
            if found != Some(expected) {
                let found = found.map_or("no such key".to_owned(), |found| found.to_string());
                let remedy = "the parts are of several models, or have other names: get them again";
                return Err(self.file.malformed(key, found, expected.to_string(), remedy));
            }
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.header.metadata.get(key)
    }

    fn integer(&self, key: &str) -> Result<Option<u32>> {
        let integer = |value: &Value| match *value {
            Value::Unsigned(n) => u32::try_from(n).ok(),
            Value::Signed(n) => u32::try_from(n).ok(),
            _ => None,
        };
        self.typed(key, integer, "a whole number below 2^32")
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>> {
        let boolean = |value: &Value| match *value {
            Value::Bool(b) => Some(b),
            _ => None,
        };
        self.typed(key, boolean, "true or false")
    }

    fn string(&self, key: &str) -> Result<Option<&str>> {
        fn string(value: &Value) -> Option<&str> {
            match value {
                Value::String(bytes) => std::str::from_utf8(bytes).ok(),
                _ => None,
            }
        }
        self.typed(key, string, "a string in UTF-8")
    }

    /// The value of a key, if it is there; `convert` makes `None` of a value of another type.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
        expected: &str,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let converted = convert(value);
        if converted.is_none() {
            let found = match value {
                Value::Strings(strings) => format!("{} strings", strings.len()),
                Value::Numbers(_, bytes) => format!("an array of {} bytes", bytes.len()),
                other => format!("{other:?}"),
            };
            return Err(self.file.malformed(key, found, expected, "convert the model again"));
        }
        Ok(converted)
    }

    fn missing(&self, key: &str) -> Error {
        self.file.malformed(key, "no such key", "a value", "convert the model again")
    }
}

/// A value as JSON. What JSON cannot hold becomes a text, which no reader takes for a number.
fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Unsigned(n) => (*n).into(),
        Value::Signed(n) => (*n).into(),
        Value::Float(x) if x.is_finite() => (*x).into(),
        Value::Float(x) => x.to_string().into(),
        Value::Bool(b) => (*b).into(),
        Value::String(bytes) => String::from_utf8_lossy(bytes).into(),
        Value::Strings(strings) if strings.len() <= MAX_ARRAY => {
            strings.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect()
        }
        Value::Strings(strings) => format!("{} strings", strings.len()).into(),
        Value::Numbers(kind, bytes) => numbers(*kind, bytes),
    }
}

fn numbers(kind: u32, bytes: &[u8]) -> serde_json::Value {
    let size = header::number_bytes(kind).unwrap_or(1);
    if bytes.len() / size > MAX_ARRAY {
        return format!("{} numbers", bytes.len() / size).into();
    }
    let elements = bytes.chunks_exact(size).filter_map(|bytes| header::number(kind, bytes));
    elements.map(|value| json(&value)).collect()
}

/// Adds the tensors of the file with this number.
fn place_tensors(
    files: &[SourceFile],
    number: usize,
    entries: &[Entry],
    tensors: &mut BTreeMap<String, StoredTensor>,
) -> Result<()> {
    let file = &files[number];
    let mut spans = Vec::new();
    for entry in entries {
        let encoding = encoding(file, entry)?;
        let shape: Vec<u64> = entry.dimensions.iter().rev().copied().collect();
        let tensor = StoredTensor::new(files, number, &entry.name, &shape, encoding, entry.offset)?;
        spans.push((tensor.offset, tensor.end(), &entry.name));
        if tensors.insert(entry.name.clone(), tensor).is_some() {
            let remedy = "the file is damaged: get it again";
            let found = "the tensor a second time";
            return Err(file.malformed(entry.name.as_str(), found, "it once", remedy));
        }
    }
    spans.sort_unstable();
    for pair in spans.windows(2) {
        if let [(_, end, first), (start, _, second)] = *pair
            && start < end
        {
            let expected = format!("byte {end} or later, behind {first}");
            let remedy = "the file is damaged: get it again";
            return Err(file.malformed(
                second,
                format!("its data at byte {start}"),
                expected,
                remedy,
            ));
        }
    }
    Ok(())
}

/// The encoding with ggml's number.
fn encoding(file: &SourceFile, entry: &Entry) -> Result<Encoding> {
    let name = match entry.kind {
        0 => return Ok(Encoding::F32),
        1 => return Ok(Encoding::F16),
        2 => return Ok(Encoding::Q4_0),
        8 => return Ok(Encoding::Q8_0),
        3 => return Ok(Encoding::Q4_1),
        6 => return Ok(Encoding::Q5_0),
        7 => return Ok(Encoding::Q5_1),
        10 => return Ok(Encoding::Q2K),
        11 => return Ok(Encoding::Q3K),
        12 => return Ok(Encoding::Q4K),
        13 => return Ok(Encoding::Q5K),
        14 => return Ok(Encoding::Q6K),
        20 => return Ok(Encoding::Iq4Nl),
        23 => return Ok(Encoding::Iq4Xs),
        39 => return Ok(Encoding::Mxfp4),
        30 => return Ok(Encoding::Bf16),
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        _ => "a type that is not known",
    };
    let found = format!("{name} (type {})", entry.kind);
    let remedy = "convert the original model to one of these types";
    let field = format!("type of {}", entry.name);
    let expected =
        "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL, IQ4_XS or MXFP4";
    Err(file.malformed(field, found, expected, remedy))
}

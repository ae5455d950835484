//! llama2.c's legacy `.bin` files.
//!
//! Seven 32-bit integers, then the tensors as 32-bit floats in the order that
//! [run.c](https://github.com/karpathy/llama2.c/blob/master/run.c) maps them in
//! (`memory_map_weights`). Everything is little-endian.

use super::StoredModel;
use super::container::{Fields, SourceFormat, TokenizerSource};
use super::encoding::Encoding;
use super::source_file::SourceFile;
use super::stored::StoredTensor;
use crate::Result;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

const HEADER_BYTES: u64 = 7 * 4;
/// Magic number of the versioned formats that came after.
const VERSIONED_MAGIC: i32 = 0x616b_3432;
/// The header's fields, as run.c names them, and the most that a model has.
const FIELDS: [(&str, u32); 7] = [
    ("dim", 1 << 20),
    ("hidden_dim", 1 << 20),
    ("n_layers", 1000),
    ("n_heads", 1 << 20),
    ("n_kv_heads", 1 << 20),
    ("vocab_size", 1 << 24),
    ("seq_len", 1 << 30),
];
const NOT_A_MODEL: &str = "the file is damaged, or no llama2.c model";

/// Opens a llama2.c model. Its tokenizer is `tok<vocabulary size>.bin` beside it or, failing that,
/// `tokenizer.bin`. Tensors have run.c's names, those of layers with the layer's number, as `wq.0`.
///
/// # Errors
///
/// When the file cannot be read, its header holds hyperparameters that no model has, or its length
/// is not exactly what they call for.
pub fn open(path: &Path) -> Result<StoredModel> {
    let file = SourceFile::open(path)?;
    let header = Llama2cHeader::read(&file)?;
    let files = vec![file];
    let tensors = header.place_tensors(&files)?;
    Ok(StoredModel {
        format: SourceFormat::Llama2c,
        path: path.to_owned(),
        config: header.fields(),
        files,
        tensors,
        tokenizer: tokenizer_beside(path, header.vocab_size.into()),
        tiles: Default::default(),
        uses: Default::default(),
    })
}

/// Whether the file begins like a llama2.c model.
pub(super) fn is_plausible(file: &SourceFile) -> Result<bool> {
    if file.length < HEADER_BYTES {
        return Ok(false);
    }
    let versioned = read_integers(file)?[0] == VERSIONED_MAGIC;
    Ok(versioned || Llama2cHeader::read(file).is_ok())
}

fn read_integers(file: &SourceFile) -> Result<[i32; 7]> {
    let mut bytes = [0; HEADER_BYTES as usize];
    file.read("header", 0, &mut bytes)?;
    let mut integers = [0; 7];
    for (value, bytes) in integers.iter_mut().zip(bytes.as_chunks().0) {
        *value = i32::from_le_bytes(*bytes);
    }
    Ok(integers)
}

/// The header, checked.
struct Llama2cHeader {
    integers: [i32; 7],
    dim: u64,
    hidden_dim: u64,
    layers: u32,
    /// Width of a head.
    head_size: u64,
    /// Width of keys, and of values.
    kv_dim: u64,
    vocab_size: u32,
    /// There is an output matrix: the sign of the vocabulary's size says so.
    output: bool,
    seq_len: u64,
}

impl Llama2cHeader {
    fn read(file: &SourceFile) -> Result<Self> {
        let integers = read_integers(file)?;
        if integers[0] == VERSIONED_MAGIC {
            let found = "llama2.c's versioned format";
            let remedy = "export the model with --version 0";
            return Err(file.malformed("header", found, "the legacy format", remedy));
        }
        let mut sizes = [0u32; 7];
        for ((size, integer), (name, max)) in sizes.iter_mut().zip(integers).zip(FIELDS) {
            *size = match name {
                "vocab_size" => integer.unsigned_abs(),
                _ => integer.max(0).unsigned_abs(),
            };
            if !(1..=max).contains(size) {
                let expected = format!("a number from 1 to {max}");
                return Err(file.malformed(name, integer.to_string(), expected, NOT_A_MODEL));
            }
        }
        let [dim, hidden_dim, layers, n_heads, n_kv_heads, vocab_size, seq_len] = sizes;
        for (name, part, whole_name, whole) in
            [("n_heads", n_heads, "dim", dim), ("n_kv_heads", n_kv_heads, "n_heads", n_heads)]
        {
            if !whole.is_multiple_of(part) {
                let expected = format!("a divisor of {whole_name} = {whole}");
                return Err(file.malformed(name, part.to_string(), expected, NOT_A_MODEL));
            }
        }
        let head_size = u64::from(dim / n_heads);
        Ok(Self {
            integers,
            dim: dim.into(),
            hidden_dim: hidden_dim.into(),
            layers,
            head_size,
            kv_dim: u64::from(n_kv_heads) * head_size,
            vocab_size,
            output: integers[5] < 0,
            seq_len: seq_len.into(),
        })
    }

    fn fields(&self) -> Fields {
        let fields = FIELDS.iter().zip(self.integers);
        fields.map(|((name, _), value)| ((*name).to_owned(), Value::from(value))).collect()
    }

    /// The tensors by name. The file has those of one kind side by side, layer after layer.
    fn place_tensors(&self, files: &[SourceFile]) -> Result<BTreeMap<String, StoredTensor>> {
        let (dim, wide, kv) = (self.dim, self.hidden_dim, self.kv_dim);
        let vocabulary = u64::from(self.vocab_size);
        let mut tensors = BTreeMap::new();
        let mut offset = HEADER_BYTES;
        let mut place = |name: String, shape: &[u64]| -> Result<()> {
            let tensor = StoredTensor::new(files, 0, &name, shape, Encoding::F32, offset)?;
            offset = tensor.end();
            tensors.insert(name, tensor);
            Ok(())
        };
        place("token_embedding_table".into(), &[vocabulary, dim])?;
        let kinds: [(&str, &[u64]); 9] = [
            ("rms_att_weight", &[dim]),
            ("wq", &[dim, dim]),
            ("wk", &[kv, dim]),
            ("wv", &[kv, dim]),
            ("wo", &[dim, dim]),
            ("rms_ffn_weight", &[dim]),
            ("w1", &[wide, dim]),
            ("w2", &[dim, wide]),
            ("w3", &[wide, dim]),
        ];
        for (kind, shape) in kinds {
            (0..self.layers).try_for_each(|layer| place(format!("{kind}.{layer}"), shape))?;
        }
        place("rms_final_weight".into(), &[dim])?;
        // Cosines and sines, which no reader needs.
        offset += 2 * self.seq_len * (self.head_size / 2) * 4;
        if self.output {
            let shape = [vocabulary, dim];
            let output = StoredTensor::new(files, 0, "wcls", &shape, Encoding::F32, offset)?;
            offset = output.end();
            tensors.insert("wcls".to_owned(), output);
        }
        check_length(&files[0], offset)?;
        Ok(tensors)
    }
}

fn check_length(file: &SourceFile, expected: u64) -> Result<()> {
    if file.length == expected {
        return Ok(());
    }
    let found = format!("{} bytes", file.length);
    let expected = format!("{expected} bytes, as the header says");
    let remedy = "the file is cut short, or no llama2.c model: get it again";
    Err(file.malformed("file length", found, expected, remedy))
}

/// The tokenizer beside a model, which may be named after the size of its vocabulary.
pub(super) fn tokenizer_beside(path: &Path, vocab_size: u64) -> Option<TokenizerSource> {
    let named = |name: &str| -> PathBuf { path.with_file_name(name) };
    [named(&format!("tok{vocab_size}.bin")), named("tokenizer.bin")]
        .into_iter()
        .find(|path| path.is_file())
        .map(TokenizerSource::Llama2c)
}

//! GGUF files, for llama.cpp to run the very weights of a package.
//!
//! Blocks of int4 and int8 are those of Q4_0 and Q8_0, eight rows side by side; here each row gets
//! its own again. Tokens are dummies: what is compared are ids.

use crate::cancel::Cancel;
use crate::durable::{create_beside, persist};
use crate::graph::Node;
use crate::package::{CONVERT_AGAIN, Package, TensorEntry};
use crate::quantize::Precision;
use crate::{Error, Result, dispatch, input};
use omex_core::quant::{Format, GROUP, PANEL};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Tensors begin at multiples of this.
const ALIGNMENT: u64 = 32;
/// Rows that are laid out together.
const BATCH: usize = 1024;

/// Writes a package's model as a GGUF file, which appears whole or not at all. `progress` is
/// called with the bytes written and the bytes in all.
///
/// # Errors
/// A package that is no Llama model or is damaged, a file that can't be written,
/// [`Error::Interrupted`].
pub fn write(
    package: &Package,
    path: &Path,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let model = Model::new(package)?;
    let (header, end) = model.header();
    let io = |e| Error::io(path, "write", e);
    let mut file = BufWriter::new(create_beside(path)?);
    let mut written = 0;
    let mut put = |bytes: &[u8]| -> Result<()> {
        file.write_all(bytes).map_err(io)?;
        written += bytes.len() as u64;
        progress(written, end);
        cancel.check()
    };
    put(&header)?;
    for source in &package.index.tensors {
        let tensors: Vec<_> = model.tensors.iter().filter(|t| t.source == source.name).collect();
        if !tensors.is_empty() {
            let bytes = read(package, source)?;
            for tensor in tensors {
                tensor.write(source, &bytes, &mut put)?;
            }
        }
    }
    let mut factors: Vec<u8> = model.rope_factors.iter().flat_map(|f| f.to_le_bytes()).collect();
    factors.resize(factors.len().next_multiple_of(ALIGNMENT as usize), 0);
    put(&factors)?;
    persist(file.into_inner().map_err(|e| io(e.into_error()))?, path)
}

/// All bytes of a tensor of a package.
fn read(package: &Package, entry: &TensorEntry) -> Result<Vec<u8>> {
    let path = package.path.join("weights").join(&entry.file);
    let file = package.file(&entry.file)?;
    let mut bytes = vec![0; entry.length as usize];
    file.read_exact_at(&mut bytes, entry.offset).map_err(|e| Error::io(&path, "read", e))?;
    let found = format!("{:08x}", (dispatch::kernels()?.crc32c)(0, &bytes));
    if found != entry.crc32c {
        let field = format!("checksum of {}", entry.name);
        return Err(Error::malformed(&path, field, found, &entry.crc32c, CONVERT_AGAIN));
    }
    Ok(bytes)
}

/// Rows of a tensor of a package, as a tensor of GGUF's.
struct Tensor {
    name: String,
    /// The tensor in the package.
    source: String,
    rows: Range<u32>,
    columns: u32,
    format: Format,
    /// Width of the heads in which GGUF has the two halves' rows in turn, as llama.cpp rotates them.
    interleaved: Option<u32>,
}

impl Tensor {
    /// ggml's number of the type.
    fn kind(&self) -> u32 {
        match self.format {
            Format::Vector | Format::F32 | Format::Channels => 0,
            Format::F16 => 1,
            Format::Int4 => 2,
            Format::Int8 => 8,
        }
    }

    fn row_bytes(&self) -> u64 {
        let columns = u64::from(self.columns);
        match self.format {
            Format::Vector | Format::F32 | Format::Channels => 4 * columns,
            Format::F16 => 2 * columns,
            Format::Int8 => columns / GROUP as u64 * (2 + GROUP as u64),
            Format::Int4 => columns / GROUP as u64 * (2 + GROUP as u64 / 2),
        }
    }

    fn bytes(&self) -> u64 {
        self.row_bytes() * u64::from(self.rows.end - self.rows.start)
    }

    /// The package's row that is GGUF's row `row`.
    fn source_row(&self, row: u32) -> u32 {
        let Some(width) = self.interleaved else { return self.rows.start + row };
        let within = row % width;
        self.rows.start + row - within + within % 2 * (width / 2) + within / 2
    }

    /// Hands the tensor's bytes to `put`, filled up to the alignment.
    fn write(
        &self,
        source: &TensorEntry,
        bytes: &[u8],
        put: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if self.format == Format::Vector {
            put(bytes)?;
        } else {
            let blocks = source.shape[1].div_ceil(GROUP as u32) as usize;
            let panels = bytes.chunks(blocks * self.format.unit_bytes()).collect::<Vec<_>>();
            let rows: Vec<_> = (0..self.rows.end - self.rows.start).collect();
            for batch in rows.chunks(BATCH) {
                let mut out = Vec::with_capacity(batch.len() * self.row_bytes() as usize);
                for row in batch {
                    let row = self.source_row(*row) as usize;
                    let panel = panels.get(row / PANEL).copied().unwrap_or_default();
                    let start = out.len();
                    append_row(self.format, panel, row % PANEL, &mut out);
                    // Columns that only fill up the last block.
                    out.truncate(start + self.row_bytes() as usize);
                }
                put(&out)?;
            }
        }
        put(&vec![0; (self.bytes().next_multiple_of(ALIGNMENT) - self.bytes()) as usize])
    }
}

/// Appends a row of a panel. A block is the rows' scales, if it has any, and then vectors with
/// some bytes of each row in turn.
fn append_row(format: Format, panel: &[u8], lane: usize, out: &mut Vec<u8>) {
    let (scale, bytes) = match format {
        Format::Int4 | Format::Int8 => (2, 4),
        Format::F16 => (0, 2),
        Format::F32 | Format::Vector | Format::Channels => (0, 4),
    };
    for block in panel.chunks_exact(format.unit_bytes()) {
        let (scales, vectors) = block.split_at(PANEL * scale);
        out.extend_from_slice(&scales[scale * lane..scale * (lane + 1)]);
        for vector in vectors.chunks_exact(PANEL * bytes) {
            out.extend_from_slice(&vector[bytes * lane..bytes * (lane + 1)]);
        }
    }
}

/// A model on its way into a file.
struct Model<'p> {
    package: &'p Package,
    tensors: Vec<Tensor>,
    epsilon: f32,
    rope_theta: f32,
    /// What the plain frequencies are divided by; empty if they are the model's.
    rope_factors: Vec<f32>,
}

impl<'p> Model<'p> {
    fn new(package: &'p Package) -> Result<Self> {
        let mut model =
            Self { package, tensors: vec![], epsilon: 0.0, rope_theta: 0.0, rope_factors: vec![] };
        let blocks = package.graph.subgraphs.values().flatten();
        let epsilon = blocks.chain(&package.graph.nodes).find_map(|node| match node {
            Node::Norm(op) => Some(op.epsilon),
            _ => None,
        });
        model.epsilon = epsilon.ok_or_else(|| model.stranger("nodes", "no RMSNorm"))?;
        for entry in &package.index.tensors {
            if entry.plane > 0 {
                return Err(Error::malformed(
                    &package.path.join("weights/quantization.json"),
                    format!("tensor \"{}\"", entry.name),
                    "a residual plane",
                    "one plane a tensor, as GGUF has",
                    "convert the model again with --quantization int4 or int8",
                ));
            }
            if entry.name == crate::arch::FREQUENCIES {
                let bytes = read(package, entry)?;
                let frequencies: Vec<_> =
                    bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
                (model.rope_theta, model.rope_factors) = rope(&frequencies);
            } else {
                model.add(entry)?;
            }
        }
        Ok(model)
    }

    fn stranger(&self, field: &str, found: impl Into<String>) -> Error {
        let remedy = "only packages of Llama models can be written as GGUF";
        Error::malformed(
            &self.package.path.join("graph.json"),
            field,
            found,
            "a Llama model of whole blocks",
            remedy,
        )
    }

    /// Adds what a tensor of the package is in GGUF: one tensor, or the parts of a fused one.
    fn add(&mut self, entry: &TensorEntry) -> Result<()> {
        let shape = &self.package.metadata.model_architecture;
        let width = shape.head_width;
        let (q, kv) = (shape.heads.saturating_mul(width), shape.kv_heads.saturating_mul(width));
        let wide = shape.intermediate_size;
        let [rows, columns] = entry.shape;
        let layer = entry.name.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
        let (prefix, part) = match layer {
            Some((layer, part)) => (format!("blk.{layer}."), part),
            None => (String::new(), entry.name.as_str()),
        };
        let parts: &[(&str, u32, Option<u32>)] = match part {
            "attention_norm" => &[("attn_norm", 1, None)],
            "attention.qkv" => {
                &[("attn_q", q, Some(width)), ("attn_k", kv, Some(width)), ("attn_v", kv, None)]
            }
            "attention.query" => &[("attn_q", q, Some(width))],
            "attention.key" => &[("attn_k", kv, Some(width))],
            "attention.value" => &[("attn_v", kv, None)],
            "attention.output" => &[("attn_output", rows, None)],
            "feed_forward_norm" => &[("ffn_norm", 1, None)],
            "feed_forward.gate_up" => &[("ffn_gate", wide, None), ("ffn_up", wide, None)],
            "feed_forward.gate" => &[("ffn_gate", wide, None)],
            "feed_forward.up" => &[("ffn_up", wide, None)],
            "feed_forward.down" => &[("ffn_down", rows, None)],
            "norm" => &[("output_norm", 1, None)],
            "embedding" => &[("token_embd", rows, None)],
            "output" => &[("output", rows, None)],
            _ => return Err(self.stranger("tensors", entry.name.as_str())),
        };
        let format = Format::from(entry.format);
        let quantized = matches!(entry.format, Precision::Int4 | Precision::Int8);
        let sum = parts.iter().fold(0u32, |sum, (_, rows, _)| sum.saturating_add(*rows));
        let whole_heads = width >= 2 && width.is_multiple_of(2);
        if sum != rows || !whole_heads || quantized && !columns.is_multiple_of(GROUP as u32) {
            return Err(self.stranger(&entry.name, format!("{rows} × {columns} {format:?}")));
        }
        let mut first = 0;
        for (name, rows, interleaved) in parts {
            self.tensors.push(Tensor {
                name: format!("{prefix}{name}.weight"),
                source: entry.name.clone(),
                rows: first..first + rows,
                columns,
                format,
                interleaved: *interleaved,
            });
            first += rows;
        }
        Ok(())
    }

    /// What comes before the tensors' data, and where these end.
    fn header(&self) -> (Vec<u8>, u64) {
        let Package { metadata, graph, index, .. } = self.package;
        let shape = &metadata.model_architecture;
        let mut pairs = Pairs::default();
        pairs.string("general.architecture", "llama");
        pairs.string("general.name", &metadata.name);
        let width = shape.head_width;
        for (key, value) in [
            ("llama.context_length", graph.context_length),
            ("llama.embedding_length", shape.hidden_size),
            ("llama.block_count", shape.layers),
            ("llama.feed_forward_length", shape.intermediate_size),
            ("llama.attention.head_count", shape.heads),
            ("llama.attention.head_count_kv", shape.kv_heads),
            ("llama.attention.key_length", width),
            ("llama.attention.value_length", width),
            ("llama.rope.dimension_count", width),
            ("llama.vocab_size", graph.vocab_size),
        ] {
            pairs.unsigned(key, value);
        }
        pairs.float("llama.attention.layer_norm_rms_epsilon", self.epsilon);
        pairs.float("llama.rope.freq_base", self.rope_theta);
        // Tells a file of these weights from one of others with the same shape.
        let crcs = index.tensors.iter().flat_map(|t| t.crc32c.bytes()).collect::<Vec<_>>();
        pairs.unsigned("omex.weights_crc32c", crc32c::crc32c(&crcs));
        pairs.vocabulary(graph.vocab_size);
        let mut infos = vec![];
        let mut offset = 0u64;
        let mut info = |name: &str, dimensions: &[u32], kind: u32, bytes: u64| {
            put_string(&mut infos, name);
            infos.extend((dimensions.len() as u32).to_le_bytes());
            infos.extend(dimensions.iter().flat_map(|d| u64::from(*d).to_le_bytes()));
            infos.extend(kind.to_le_bytes());
            infos.extend(offset.to_le_bytes());
            offset += bytes.next_multiple_of(ALIGNMENT);
        };
        for t in &self.tensors {
            let dimensions = [t.columns, t.rows.end - t.rows.start];
            let count = if t.format == Format::Vector { 1 } else { 2 };
            info(&t.name, &dimensions[..count], t.kind(), t.bytes());
        }
        let factors = self.rope_factors.len() as u32;
        if factors > 0 {
            info("rope_freqs.weight", &[factors], 0, 4 * u64::from(factors));
        }
        let tensors = self.tensors.len() as u64 + u64::from(factors > 0);
        let mut header = b"GGUF".to_vec();
        header.extend(3u32.to_le_bytes());
        header.extend(tensors.to_le_bytes());
        header.extend(pairs.count.to_le_bytes());
        header.extend(pairs.bytes);
        header.extend(infos);
        header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
        let end = header.len() as u64 + offset;
        (header, end)
    }
}

/// The base of RoPE's frequencies, and what the plain ones are divided by to get them, if they are
/// not plain.
fn rope(frequencies: &[f32]) -> (f32, Vec<f32>) {
    let width = 2.0 * frequencies.len() as f64;
    let plain = |theta: f32, pair: usize| libm::pow(f64::from(theta), -2.0 * pair as f64 / width);
    // From the last one, whose rounding is not magnified.
    let theta = match frequencies {
        [_, .., last] => libm::pow(f64::from(*last), -width / (width - 2.0)).round() as f32,
        _ => 10000.0,
    };
    if theta.is_finite()
        && frequencies.iter().enumerate().all(|(pair, f)| plain(theta, pair) as f32 == *f)
    {
        return (theta, vec![]);
    }
    let factors = frequencies.iter().enumerate().map(|(pair, f)| {
        let plain = plain(10000.0, pair);
        let factor = (plain / f64::from(*f)) as f32;
        // Rounding twice may miss the frequency by one step.
        let near = [factor, factor.next_up(), factor.next_down()];
        let exact = near.into_iter().find(|near| (plain / f64::from(*near)) as f32 == *f);
        exact.unwrap_or(factor)
    });
    (10000.0, factors.collect())
}

/// Metadata as it is stored.
#[derive(Default)]
struct Pairs {
    count: u64,
    bytes: Vec<u8>,
}

/// Types of metadata.
mod kind {
    pub(super) const UNSIGNED: u32 = 4;
    pub(super) const SIGNED: u32 = 5;
    pub(super) const FLOAT: u32 = 6;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Pairs {
    fn key(&mut self, key: &str, kind: u32) {
        self.count += 1;
        put_string(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
    }

    fn string(&mut self, key: &str, value: &str) {
        self.key(key, kind::STRING);
        put_string(&mut self.bytes, value);
    }

    fn unsigned(&mut self, key: &str, value: u32) {
        self.key(key, kind::UNSIGNED);
        self.bytes.extend(value.to_le_bytes());
    }

    fn float(&mut self, key: &str, value: f32) {
        self.key(key, kind::FLOAT);
        self.bytes.extend(value.to_le_bytes());
    }

    fn array(&mut self, key: &str, kind: u32, length: u32, bytes: &[u8]) {
        self.key(key, kind::ARRAY);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend(u64::from(length).to_le_bytes());
        self.bytes.extend(bytes);
    }

    /// Tokens without a meaning: llama.cpp opens no model without any.
    fn vocabulary(&mut self, size: u32) {
        let (unknown, control, byte, normal) = (2i32, 3i32, 6i32, 1i32);
        let token = |id: u32| match id {
            0 => ("<unk>".to_owned(), unknown),
            1 => ("<s>".to_owned(), control),
            2 => ("</s>".to_owned(), control),
            3..259 => (format!("<0x{:02X}>", id - 3), byte),
            _ => (format!("w{id}"), normal),
        };
        let (mut texts, mut scores, mut types) = (vec![], vec![], vec![]);
        for (text, kind) in (0..size).map(token) {
            put_string(&mut texts, &text);
            types.extend(kind.to_le_bytes());
        }
        (0..size).for_each(|id| scores.extend((-(id as f32)).to_le_bytes()));
        self.string("tokenizer.ggml.model", "llama");
        self.array("tokenizer.ggml.tokens", kind::STRING, size, &texts);
        self.array("tokenizer.ggml.scores", kind::FLOAT, size, &scores);
        self.array("tokenizer.ggml.token_type", kind::SIGNED, size, &types);
    }
}

/// Whether the file at `path` is what [`write()`] would make of the package, by its header and length.
///
/// # Errors
/// A package that is no Llama model.
pub fn is_of(package: &Package, path: &Path) -> Result<bool> {
    let (header, end) = Model::new(package)?.header();
    let mut found = vec![0; header.len()];
    let Ok(file) = input::open(path) else { return Ok(false) };
    let read = file.read_exact_at(&mut found, 0).and_then(|()| file.metadata());
    Ok(read.is_ok_and(|metadata| metadata.len() == end && found == header))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_frequencies_are_a_base_and_others_factors() {
        for (theta, pairs) in [(10000.0, 32), (500_000.0, 64), (1_000_000.0, 40), (10000.0, 1)] {
            let plain = |pair: usize| libm::pow(theta, -(pair as f64) / pairs as f64) as f32;
            let mut frequencies: Vec<_> = (0..pairs).map(plain).collect();
            assert!(rope(&frequencies).1.is_empty(), "{theta} {pairs}");
            if pairs > 1 {
                frequencies[pairs - 1] /= 8.0;
                let (theta, factors) = rope(&frequencies);
                for (pair, (factor, f)) in factors.iter().zip(&frequencies).enumerate() {
                    let plain = libm::pow(f64::from(theta), -(pair as f64) / pairs as f64);
                    let again = (plain / f64::from(*factor)) as f32;
                    assert!((again / f - 1.0).abs() < 1e-6, "{again} {f}");
                }
            }
        }
    }
}

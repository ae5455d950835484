//! llama2.c's legacy `.bin` files.
//!
//! Seven 32-bit integers, then the tensors as 32-bit floats in the order that
//! [run.c](https://github.com/karpathy/llama2.c/blob/master/run.c) maps them in
//! (`memory_map_weights`). Everything is little-endian.

use super::{
    Encoding, LlamaConfig, StoredModel, TokenizerSource,
    rope::{Rope, Scaling},
    stored::{SourceFile, StoredTensor},
};
use crate::Result;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

const HEADER_BYTES: u64 = 7 * 4;
/// Magic number of the versioned formats that came after.
const VERSIONED_MAGIC: i32 = 0x616b_3432;

/// Opens a llama2.c model. Its tokenizer is `tok<vocabulary size>.bin` beside it or, failing that,
/// `tokenizer.bin`.
///
/// # Errors
///
/// When the file cannot be read, its header holds hyperparameters that no model has, or its length
/// is not exactly what they call for.
pub fn open(path: &Path) -> Result<StoredModel> {
    let file = SourceFile::open(path)?;
    let config = read_config(&file)?;
    config.check(path)?;
    let files = vec![file];
    let tensors = place_tensors(&files, &config)?;
    let tokenizer = tokenizer_beside(path, config.vocab_size);
    let rope = Rope { theta: 10000.0, scaling: Scaling::Default };
    Ok(StoredModel::new(config, path, &rope, files, tensors)?.with_tokenizer(tokenizer))
}

/// Whether the file begins like a llama2.c model.
pub(super) fn is_plausible(file: &SourceFile) -> Result<bool> {
    if file.length < HEADER_BYTES {
        return Ok(false);
    }
    let header = read_header(file)?;
    let config = read_config(file).and_then(|config| config.check(&file.path));
    Ok(header[0] == VERSIONED_MAGIC || config.is_ok())
}

fn read_header(file: &SourceFile) -> Result<[i32; 7]> {
    let mut bytes = [0; HEADER_BYTES as usize];
    file.read("header", 0, &mut bytes)?;
    let mut header = [0; 7];
    for (value, bytes) in header.iter_mut().zip(bytes.as_chunks().0) {
        *value = i32::from_le_bytes(*bytes);
    }
    Ok(header)
}

fn read_config(file: &SourceFile) -> Result<LlamaConfig> {
    let header = read_header(file)?;
    if header[0] == VERSIONED_MAGIC {
        let found = "llama2.c's versioned format";
        let remedy = "export the model with --version 0";
        return Err(file.malformed("header", found, "the legacy format", remedy));
    }
    let field = |i: usize, name: &str| {
        u32::try_from(header[i]).ok().filter(|&value| value > 0).ok_or_else(|| {
            let remedy = "the file is damaged, or no llama2.c model";
            file.malformed(name, header[i].to_string(), "a positive number", remedy)
        })
    };
    let (hidden_size, heads) = (field(0, "dim")?, field(3, "n_heads")?);
    if hidden_size % heads != 0 {
        let expected = format!("a divisor of dim = {hidden_size}");
        let remedy = "the file is damaged, or no llama2.c model";
        return Err(file.malformed("n_heads", heads.to_string(), expected, remedy));
    }
    Ok(LlamaConfig {
        hidden_size,
        intermediate_size: field(1, "hidden_dim")?,
        layers: field(2, "n_layers")?,
        heads,
        kv_heads: field(4, "n_kv_heads")?,
        head_dim: hidden_size / heads,
        // Its sign says whether there is an output matrix.
        vocab_size: header[5].unsigned_abs(),
        context_length: field(6, "seq_len")?,
        rms_norm_epsilon: 1e-5,
        rope_frequencies: Vec::new(),
        tied_embeddings: header[5] > 0,
        bos: Some(1),
        // run.c stops at BOS, which separated the texts in training; EOS ends a chat's turn.
        eos: vec![1, 2],
    })
}

/// The tensors by name, with every layer's kinds side by side as the file has them.
fn place_tensors(
    files: &[SourceFile],
    config: &LlamaConfig,
) -> Result<BTreeMap<String, StoredTensor>> {
    const LAYER_PARTS: [&str; 9] = [
        "input_layernorm",
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "post_attention_layernorm",
        "mlp.gate_proj",
        "mlp.down_proj",
        "mlp.up_proj",
    ];
    let layer_names = LAYER_PARTS.iter().flat_map(|part| {
        (0..config.layers).map(move |layer| format!("model.layers.{layer}.{part}.weight"))
    });
    let shapes: BTreeMap<String, [u64; 2]> =
        config.tensors().map(|t| (t.name, [t.rows.into(), t.columns.into()])).collect();
    let mut tensors = BTreeMap::new();
    let mut offset = HEADER_BYTES;
    let mut place = |name: &str, skip: u64| -> Result<u64> {
        let mut tensor =
            StoredTensor::new(files, 0, name, &shapes[name], Encoding::F32, offset + skip)?;
        if name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") {
            tensor.interleaved = Some(config.head_dim);
        }
        offset = tensor.end();
        tensors.insert(name.to_owned(), tensor);
        Ok(offset)
    };
    place("model.embed_tokens.weight", 0)?;
    for name in layer_names {
        place(&name, 0)?;
    }
    let mut end = place("model.norm.weight", 0)?;
    // Cosines and sines, which no reader needs.
    let rope_tables = 2 * u64::from(config.context_length) * u64::from(config.head_dim / 2) * 4;
    if config.tied_embeddings {
        end += rope_tables;
    } else {
        end = place("lm_head.weight", rope_tables)?;
    }
    check_length(&files[0], end)?;
    Ok(tensors)
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

fn tokenizer_beside(path: &Path, vocab_size: u32) -> Option<TokenizerSource> {
    let named = |name: &str| -> PathBuf { path.with_file_name(name) };
    [named(&format!("tok{vocab_size}.bin")), named("tokenizer.bin")]
        .into_iter()
        .find(|path| path.is_file())
        .map(TokenizerSource::Llama2c)
}

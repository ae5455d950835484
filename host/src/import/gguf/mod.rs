//! GGUF files, as llama.cpp's converters write them for Llama models.

mod header;
mod vocabulary;

use super::{
    Encoding, LlamaConfig, StoredModel, TokenizerSource,
    rope::{Rope, Scaling},
    stored::{SourceFile, StoredTensor, unknown_tensor},
};
use crate::{Error, Result, tokenizer::GgufVocabulary};
use header::{Entry, Header, Value};
use std::{collections::BTreeMap, path::Path};

pub(super) use header::MAGIC;

/// Factors that divide the RoPE frequencies: how converters store Llama 3's scaling.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Opens a Llama model with its tokenizer.
///
/// # Errors
///
/// When the file cannot be read or is malformed, when its architecture is not Llama, or when a
/// tensor's type is not F32, F16, BF16, Q8_0 or Q4_0.
pub fn open(path: &Path) -> Result<StoredModel> {
    Gguf::open(path)?.into_model()
}

/// A GGUF file whose header has been read.
#[derive(Debug)]
pub struct Gguf {
    file: SourceFile,
    header: Header,
}

impl Gguf {
    /// Opens a file of any architecture.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or its header is malformed.
    pub fn open(path: &Path) -> Result<Self> {
        let file = SourceFile::open(path)?;
        let header = Header::read(&file)?;
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

    fn into_model(self) -> Result<StoredModel> {
        let path = self.file.path.clone();
        self.check_architecture()?;
        let vocabulary = self.vocabulary()?;
        let config = self.config()?;
        let scaling = self.scaling()?;
        let theta = self.number("llama.rope.freq_base")?.unwrap_or(10000.0);
        self.check_vocabulary_size(config.vocab_size, vocabulary.as_ref())?;
        let files = vec![self.file];
        let mut tensors = place_tensors(&files, &self.header.tensors, config.head_dim)?;
        let scaling = match tensors.remove(ROPE_FACTORS) {
            Some(factors) => read_factors(&files[0], &factors, &scaling)?,
            None => scaling,
        };
        let rope = Rope { theta, scaling };
        let model = StoredModel::new(config, &path, &rope, files, tensors)?;
        Ok(model.with_tokenizer(vocabulary.map(TokenizerSource::Gguf)))
    }

    /// Refuses what the Llama computation does not do.
    fn check_architecture(&self) -> Result<()> {
        let key = "general.architecture";
        let architecture = self.string(key)?.ok_or_else(|| self.missing(key))?;
        if architecture != "llama" {
            let remedy = "only Llama models are supported";
            return Err(self.file.malformed(key, architecture, "llama", remedy));
        }
        let remedy = "merge the parts with llama-gguf-split --merge";
        self.check_plain("split.count", 1, remedy)?;
        let remedy = "mixtures of experts are not supported";
        self.check_plain("llama.expert_count", 0, remedy)
    }

    fn check_plain(&self, key: &str, max: u32, remedy: &str) -> Result<()> {
        match self.integer(key)?.filter(|&value| value > max) {
            Some(found) => {
                Err(self.file.malformed(key, found.to_string(), max.to_string(), remedy))
            }
            None => Ok(()),
        }
    }

    fn config(&self) -> Result<LlamaConfig> {
        let required = |key: &str| self.integer(key)?.ok_or_else(|| self.missing(key));
        let hidden_size = required("llama.embedding_length")?;
        let heads = required("llama.attention.head_count")?;
        let epsilon = "llama.attention.layer_norm_rms_epsilon";
        let epsilon = self.number(epsilon)?.ok_or_else(|| self.missing(epsilon))?;
        let kv_heads = self.integer("llama.attention.head_count_kv")?.unwrap_or(heads);
        let output = self.header.tensors.iter().any(|entry| entry.name == "output.weight");
        Ok(LlamaConfig {
            hidden_size,
            intermediate_size: required("llama.feed_forward_length")?,
            layers: required("llama.block_count")?,
            heads,
            kv_heads,
            head_dim: self.head_dim(hidden_size, heads)?,
            vocab_size: self.embedding_rows()?,
            context_length: required("llama.context_length")?,
            rms_norm_epsilon: epsilon as f32,
            rope_frequencies: Vec::new(),
            tied_embeddings: !output,
            bos: self.integer("tokenizer.ggml.bos_token_id")?,
            eos: self.end_tokens()?,
        })
    }

    fn head_dim(&self, hidden_size: u32, heads: u32) -> Result<u32> {
        let head_dim = match self.integer("llama.attention.key_length")? {
            Some(head_dim) => head_dim,
            None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                let expected = format!("a divisor of llama.embedding_length = {hidden_size}");
                let (key, remedy) = ("llama.attention.head_count", "get the file again");
                return Err(self.file.malformed(key, heads.to_string(), expected, remedy));
            }
        };
        for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
            if let Some(other) = self.integer(key)?.filter(|&other| other != head_dim) {
                let expected = format!("{head_dim}, the width of a head");
                let remedy = "partial RoPE and values of another width are not supported";
                return Err(self.file.malformed(key, other.to_string(), expected, remedy));
            }
        }
        Ok(head_dim)
    }

    fn embedding_rows(&self) -> Result<u32> {
        let name = "token_embd.weight";
        let entry = self.header.tensors.iter().find(|entry| entry.name == name);
        let dimensions = entry.map_or(&[][..], |entry| &entry.dimensions);
        let rows = dimensions.get(1).and_then(|&rows| u32::try_from(rows).ok());
        rows.ok_or_else(|| {
            let found = format!("dimensions {dimensions:?}");
            self.file.malformed(name, found, "a matrix", "get the file again")
        })
    }

    /// Tokens that end a text, a turn of a chat, or a message.
    fn end_tokens(&self) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        for kind in ["eos", "eot", "eom"] {
            let token = self.integer(&format!("tokenizer.ggml.{kind}_token_id"))?;
            tokens.extend(token.filter(|token| !tokens.contains(token)));
        }
        Ok(tokens)
    }

    fn scaling(&self) -> Result<Scaling> {
        let key = "llama.rope.scaling.type";
        let factor = match self.number("llama.rope.scaling.factor")? {
            Some(factor) => Some(factor),
            // As older converters named it.
            None => self.number("llama.rope.scale_linear")?,
        };
        // llama.cpp takes 0 for "no factor", and a factor without a type for a linear one.
        match (self.string(key)?.unwrap_or("linear"), factor.filter(|&factor| factor != 0.0)) {
            ("none", _) | ("linear", None) => Ok(Scaling::Default),
            ("linear", Some(factor)) => Ok(Scaling::Linear { factor }),
            (other, _) => {
                let remedy = "models with this scaling are not supported";
                Err(self.file.malformed(key, other, "none or linear", remedy))
            }
        }
    }

    fn check_vocabulary_size(
        &self,
        embedding_rows: u32,
        vocabulary: Option<&GgufVocabulary>,
    ) -> Result<()> {
        let tokens = vocabulary.map(|vocabulary| vocabulary.tokens.len() as u64);
        let declared = self.integer("llama.vocab_size")?.map(u64::from);
        for (field, size) in [("tokenizer.ggml.tokens", tokens), ("llama.vocab_size", declared)] {
            if let Some(size) = size.filter(|&size| size != u64::from(embedding_rows)) {
                let expected = format!("{embedding_rows}, the rows of token_embd.weight");
                let (found, remedy) = (format!("{size} tokens"), "convert the model again");
                return Err(self.file.malformed(field, found, expected, remedy));
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

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let number = |value: &Value| match *value {
            Value::Float(x) => Some(x),
            _ => None,
        };
        self.typed(key, number, "a floating-point number")
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

/// The tensors by their Hugging Face names, and the RoPE factors by their own.
fn place_tensors(
    files: &[SourceFile],
    entries: &[Entry],
    head_dim: u32,
) -> Result<BTreeMap<String, StoredTensor>> {
    let file = &files[0];
    let (mut tensors, mut spans) = (BTreeMap::new(), Vec::new());
    for entry in entries {
        let name = hugging_face_name(&entry.name);
        let name = name.ok_or_else(|| unknown_tensor(file, &entry.name))?;
        let encoding = encoding(file, entry)?;
        let shape: Vec<u64> = entry.dimensions.iter().rev().copied().collect();
        let mut tensor = StoredTensor::new(files, 0, &entry.name, &shape, encoding, entry.offset)?;
        if name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") {
            tensor.interleaved = Some(head_dim);
        }
        spans.push((tensor.offset, tensor.end(), &entry.name));
        if tensors.insert(name, tensor).is_some() {
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
    Ok(tensors)
}

/// The Hugging Face name of a tensor of a Llama model.
fn hugging_face_name(name: &str) -> Option<String> {
    let whole = match name {
        "token_embd.weight" => "model.embed_tokens.weight",
        "output_norm.weight" => "model.norm.weight",
        "output.weight" => "lm_head.weight",
        ROPE_FACTORS => ROPE_FACTORS,
        _ => {
            let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
            let part = match part.strip_suffix(".weight")? {
                "attn_norm" => "input_layernorm",
                "attn_q" => "self_attn.q_proj",
                "attn_k" => "self_attn.k_proj",
                "attn_v" => "self_attn.v_proj",
                "attn_output" => "self_attn.o_proj",
                "ffn_norm" => "post_attention_layernorm",
                "ffn_gate" => "mlp.gate_proj",
                "ffn_up" => "mlp.up_proj",
                "ffn_down" => "mlp.down_proj",
                _ => return None,
            };
            return Some(format!("model.layers.{layer}.{part}.weight"));
        }
    };
    Some(whole.to_owned())
}

/// The encoding with ggml's number.
fn encoding(file: &SourceFile, entry: &Entry) -> Result<Encoding> {
    let name = match entry.kind {
        0 => return Ok(Encoding::F32),
        1 => return Ok(Encoding::F16),
        2 => return Ok(Encoding::Q4_0),
        8 => return Ok(Encoding::Q8_0),
        30 => return Ok(Encoding::Bf16),
        3 => "Q4_1",
        6 => "Q5_0",
        7 => "Q5_1",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        12 => "Q4_K",
        13 => "Q5_K",
        14 => "Q6_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => "a type that is not known",
    };
    let found = format!("{name} (type {})", entry.kind);
    let remedy = "convert the original model to one of these types";
    let field = format!("type of {}", entry.name);
    Err(file.malformed(field, found, "F32, F16, BF16, Q8_0 or Q4_0", remedy))
}

/// The RoPE factors, which a linear scaling multiplies.
fn read_factors(file: &SourceFile, tensor: &StoredTensor, linear: &Scaling) -> Result<Scaling> {
    let (name, info) = (ROPE_FACTORS, tensor.info);
    if info.rows != 1 || info.encoding != Encoding::F32 {
        let remedy = "convert the model again";
        return Err(file.malformed(name, format!("{info:?}"), "a vector of F32", remedy));
    }
    let mut bytes = vec![0; (tensor.end() - tensor.offset) as usize];
    file.read(name, tensor.offset, &mut bytes)?;
    let mut factors = vec![0.0; info.columns as usize];
    info.encoding.decode(&bytes, &mut factors);
    let scale = match linear {
        Scaling::Linear { factor } => *factor,
        _ => 1.0,
    };
    Ok(Scaling::Factors(factors.into_iter().map(|factor| f64::from(factor) * scale).collect()))
}

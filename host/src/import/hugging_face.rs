//! Hugging Face folders: `config.json`, safetensors files, and perhaps `tokenizer.json`.

use super::{
    LlamaConfig, StoredModel, TokenizerSource,
    rope::{Rope, Scaling},
    safetensors,
    stored::{SourceFile, StoredTensor},
};
use crate::{Error, Result};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

/// The longest `config.json` that is read.
const MAX_CONFIG: u64 = 1 << 20;
/// The longest index that is read. Those of the largest models have some 10 MB.
const MAX_INDEX: u64 = 64 << 20;
const INDEX: &str = "model.safetensors.index.json";

/// Opens the model in a folder.
///
/// Weights are in `model.safetensors`, or else in the files that `model.safetensors.index.json`
/// names, or else in all files that end in `.safetensors`.
///
/// # Errors
///
/// When files are missing or malformed, or the model is not a plain Llama.
pub fn open(folder: &Path) -> Result<StoredModel> {
    let config_path = folder.join("config.json");
    let fields = read_json(&config_path, MAX_CONFIG)?;
    let fields = Fields { file: &config_path, prefix: "", map: &fields };
    check_architecture(&fields)?;
    let config = read_config(&fields)?;
    let rope = read_rope(&fields)?;
    let (files, mut tensors) = open_weights(folder)?;
    drop_derived(&mut tensors, config.tied_embeddings);
    let tokenizer = folder.join("tokenizer.json");
    let tokenizer = tokenizer.is_file().then_some(TokenizerSource::HuggingFace(tokenizer));
    Ok(StoredModel::new(config, &config_path, &rope, files, tensors)?.with_tokenizer(tokenizer))
}

/// The hyperparameters in a `config.json`.
///
/// # Errors
///
/// When the file is missing or malformed, or is not a plain Llama's.
pub fn config(path: &Path) -> Result<LlamaConfig> {
    let fields = read_json(path, MAX_CONFIG)?;
    let fields = Fields { file: path, prefix: "", map: &fields };
    check_architecture(&fields)?;
    let mut config = read_config(&fields)?;
    config.check(path)?;
    config.rope_frequencies = read_rope(&fields)?.frequencies(config.head_dim, path)?;
    Ok(config)
}

fn read_json<T: DeserializeOwned>(path: &Path, max: u64) -> Result<T> {
    let file = SourceFile::open(path)?;
    if file.length > max {
        let (found, expected) = (format!("{} bytes", file.length), format!("at most {max}"));
        return Err(file.malformed("file length", found, expected, "get the file again"));
    }
    let mut bytes = vec![0; file.length as usize];
    file.read("the file", 0, &mut bytes)?;
    serde_json::from_slice(&bytes).map_err(|e| {
        file.malformed(
            "JSON",
            e.to_string(),
            "an object with certain fields",
            "correct the file, or get it again",
        )
    })
}

/// The fields of a JSON object. `null` is the same as no field, except for tokens.
struct Fields<'a> {
    file: &'a Path,
    /// What to put before a field's name in errors.
    prefix: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>> {
        let object = |value: &'a Value| {
            value.as_object().ok_or_else(|| self.bad(name, value, "an object or null"))
        };
        self.get(name).map(object).transpose()
    }

    fn integer(&self, name: &str) -> Result<Option<u32>> {
        let integer = |value: &Value| {
            let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
            number.ok_or_else(|| self.bad(name, value, "a whole number below 2^32"))
        };
        self.get(name).map(integer).transpose()
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        let number =
            |value: &Value| value.as_f64().ok_or_else(|| self.bad(name, value, "a number"));
        self.get(name).map(number).transpose()
    }

    fn boolean(&self, name: &str, default: bool) -> Result<bool> {
        self.get(name).map_or(Ok(default), |value| {
            value.as_bool().ok_or_else(|| self.bad(name, value, "true or false"))
        })
    }

    /// A token, several, or none (`null`).
    fn tokens(&self, name: &str, default: u32) -> Result<Vec<u32>> {
        let token = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| self.bad(name, value, "a token's number, several in a list, or null"))
        };
        match self.map.get(name) {
            None => Ok(vec![default]),
            Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(token).collect(),
            Some(id) => Ok(vec![token(id)?]),
        }
    }

    fn bad(&self, name: &str, found: &Value, expected: &str) -> Error {
        let remedy = "correct the file, or get it again";
        Error::malformed(self.file, self.full_name(name), found.to_string(), expected, remedy)
    }

    fn unsupported(&self, name: &str, found: &Value, expected: &str) -> Error {
        let remedy = "only plain Llama models are supported";
        Error::malformed(self.file, self.full_name(name), found.to_string(), expected, remedy)
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// Refuses what the Llama computation does not do.
fn check_architecture(fields: &Fields<'_>) -> Result<()> {
    let causal = |value: &Value| {
        value.as_array().is_some_and(|names| names.iter().any(|name| name == "LlamaForCausalLM"))
    };
    let architectures = fields.get("architectures");
    match fields.get("model_type") {
        Some(kind) if kind != "llama" => {
            return Err(fields.unsupported("model_type", kind, "\"llama\""));
        }
        None if architectures.is_none() => {
            return Err(fields.unsupported("model_type", &Value::Null, "\"llama\""));
        }
        _ => {}
    }
    if let Some(value) = architectures.filter(|value| !causal(value)) {
        return Err(fields.unsupported("architectures", value, "\"LlamaForCausalLM\""));
    }
    for (name, plain) in [
        ("attention_bias", Value::from(false)),
        ("mlp_bias", Value::from(false)),
        ("hidden_act", Value::from("silu")),
        ("partial_rotary_factor", Value::from(1.0)),
        ("sliding_window", Value::Null),
        ("quantization_config", Value::Null),
    ] {
        let same = |value: &Value| {
            *value == plain || (value.is_number() && value.as_f64() == plain.as_f64())
        };
        if let Some(value) = fields.get(name).filter(|value| !same(value)) {
            return Err(fields.unsupported(name, value, &plain.to_string()));
        }
    }
    let full = |value: &Value| {
        value.as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind == "full_attention"))
    };
    match fields.get("layer_types").filter(|value| !full(value)) {
        Some(value) => Err(fields.unsupported("layer_types", value, "only \"full_attention\"")),
        None => Ok(()),
    }
}

/// The hyperparameters, with the defaults of transformers' `LlamaConfig`.
fn read_config(fields: &Fields<'_>) -> Result<LlamaConfig> {
    let integer = |name, default| Ok::<_, Error>(fields.integer(name)?.unwrap_or(default));
    let hidden_size = integer("hidden_size", 4096)?;
    let heads = integer("num_attention_heads", 32)?;
    let head_dim = match fields.integer("head_dim")? {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let expected = format!("a divisor of hidden_size = {hidden_size}, or head_dim");
            return Err(fields.bad("num_attention_heads", &heads.into(), &expected));
        }
    };
    Ok(LlamaConfig {
        hidden_size,
        intermediate_size: integer("intermediate_size", 11008)?,
        layers: integer("num_hidden_layers", 32)?,
        heads,
        kv_heads: integer("num_key_value_heads", heads)?,
        head_dim,
        vocab_size: integer("vocab_size", 32000)?,
        context_length: integer("max_position_embeddings", 2048)?,
        rms_norm_epsilon: fields.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        rope_frequencies: Vec::new(),
        tied_embeddings: fields.boolean("tie_word_embeddings", false)?,
        bos: fields.tokens("bos_token_id", 1)?.first().copied(),
        eos: fields.tokens("eos_token_id", 2)?,
    })
}

/// RoPE's parameters, as transformers 5 writes them (`rope_parameters`) or as earlier versions did
/// (`rope_theta`, `rope_scaling`).
fn read_rope(config: &Fields<'_>) -> Result<Rope> {
    let empty = Map::new();
    let (file, new, old) = (config.file, "rope_parameters", "rope_scaling");
    let (prefix, map) = match (config.object(new)?, config.object(old)?) {
        (Some(parameters), None) => ("rope_parameters.", parameters),
        (None, Some(scaling)) => ("rope_scaling.", scaling),
        (None, None) => ("", &empty),
        (Some(_), Some(scaling)) => {
            return Err(config.bad(
                old,
                &scaling.clone().into(),
                "no such field beside rope_parameters",
            ));
        }
    };
    let rope = Fields { file, prefix, map };
    let theta = rope.number("rope_theta")?.or(config.number("rope_theta")?).unwrap_or(10000.0);
    if let Some(value) = rope.get("partial_rotary_factor").filter(|v| v.as_f64() != Some(1.0)) {
        return Err(rope.unsupported("partial_rotary_factor", value, "1.0"));
    }
    let required =
        |name: &str| rope.number(name)?.ok_or_else(|| rope.bad(name, &Value::Null, "a number"));
    let kind = rope.get("rope_type").or(rope.get("type"));
    let scaling = match kind.map_or(Some("default"), Value::as_str) {
        Some("default") => Scaling::Default,
        Some("linear") => Scaling::Linear { factor: required("factor")? },
        Some("llama3") => {
            let name = "original_max_position_embeddings";
            // transformers falls back in this order, too.
            let original = match (rope.number(name)?, config.number(name)?) {
                (Some(original), _) | (None, Some(original)) => original,
                (None, None) => config.number("max_position_embeddings")?.unwrap_or(2048.0),
            };
            Scaling::Llama3 {
                factor: required("factor")?,
                low_freq_factor: required("low_freq_factor")?,
                high_freq_factor: required("high_freq_factor")?,
                original_max_position_embeddings: original,
            }
        }
        _ => {
            let found = kind.unwrap_or(&Value::Null);
            return Err(rope.unsupported("rope_type", found, "default, linear or llama3"));
        }
    };
    Ok(Rope { theta, scaling })
}

type Weights = (Vec<SourceFile>, BTreeMap<String, StoredTensor>);

fn open_weights(folder: &Path) -> Result<Weights> {
    let single = folder.join("model.safetensors");
    let index = folder.join(INDEX);
    if single.exists() {
        read_shards([single])
    } else if index.exists() {
        open_index(folder, &index)
    } else {
        read_shards(list_shards(folder)?)
    }
}

fn read_shards(paths: impl IntoIterator<Item = PathBuf>) -> Result<Weights> {
    let (mut files, mut tensors) = (Vec::new(), BTreeMap::new());
    for path in paths {
        files.push(SourceFile::open(&path)?);
        safetensors::add_tensors(&files, &mut tensors)?;
    }
    Ok((files, tensors))
}

fn list_shards(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let failed = |e| Error::io(folder, "list", e);
    let mut paths = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            paths.insert(path);
        }
    }
    if paths.is_empty() {
        let remedy = "convert other weights, such as pytorch_model.bin, to safetensors";
        let (found, expected) = ("no weights", "model.safetensors");
        return Err(Error::malformed(folder, "the folder", found, expected, remedy));
    }
    Ok(paths)
}

/// Says which file holds which tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens the shards that an index names, and checks that each holds the tensors that it should.
fn open_index(folder: &Path, index: &Path) -> Result<Weights> {
    let Index { weight_map } = read_json(index, MAX_INDEX)?;
    let mut shards = BTreeMap::new();
    for (tensor, shard) in &weight_map {
        if !is_plain_name(shard) {
            let expected = "the name of a .safetensors file in the folder";
            let (field, remedy) = (format!("weight_map.{tensor}"), "get the file again");
            return Err(Error::malformed(index, field, shard, expected, remedy));
        }
        shards.entry(folder.join(shard)).or_insert_with(Vec::new).push(tensor);
    }
    if shards.is_empty() {
        let (found, expected) = ("no tensors", "at least one tensor");
        return Err(Error::malformed(index, "weight_map", found, expected, "get the file again"));
    }
    let (files, tensors) = read_shards(shards.keys().cloned())?;
    for (shard, (path, names)) in shards.iter().enumerate() {
        let absent = |name: &&&String| tensors.get(**name).is_none_or(|t| t.file != shard);
        if let Some(name) = names.iter().find(absent) {
            let expected = format!("it here, as {INDEX} says");
            return Err(Error::malformed(
                path,
                name.as_str(),
                "no tensor",
                expected,
                "get the shard again",
            ));
        }
    }
    Ok((files, tensors))
}

fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    plain && name.ends_with(".safetensors")
}

/// Forgets what the hyperparameters determine: an output matrix that the embedding replaces, and
/// the RoPE frequencies that early versions of transformers stored.
fn drop_derived(tensors: &mut BTreeMap<String, StoredTensor>, tied_embeddings: bool) {
    tensors.retain(|name, _| {
        let replaced = tied_embeddings && name == "lm_head.weight";
        let frequencies = name.ends_with(".self_attn.rotary_emb.inv_freq");
        !(replaced || frequencies)
    });
}

//! Keys into Hugging Face's fields.

use super::kinds::{DEEPSEEK, GEMMA4, KINDS, Kind, SIGMOID};
use super::names::{EMBEDDING, OUTPUT, ROPE_FACTORS};
use crate::arch::config::{Config, Names, Stacking};
use crate::arch::{ARCHITECTURES, Architecture, unknown};
use crate::import::{Container, Fields, TokenizerSource};
use crate::{Error, Result};
use serde_json::json;
use std::borrow::Cow;
use std::path::Path;

/// The metadata of a container.
pub(super) struct Keys<'a> {
    pub(super) container: &'a dyn Container,
    pub(super) path: &'a Path,
}

impl<'a> Keys<'a> {
    /// The architecture, and what its files hold.
    pub(super) fn kind(&self) -> Result<(&'static Architecture, &'static Kind)> {
        let name = self.architecture()?;
        let count =
            |key| Ok::<_, Error>(self.raw().integer(&format!("{name}.{key}"))?.unwrap_or(0));
        let (experts, window) = (count("expert_count")?, self.window(name));
        let scores = count("expert_gating_func")?;
        // Mixtrals are Llamas with experts there, and Mistrals Llamas with windows; DeepSeek-V3's experts have
        // other scores than V2's.
        let architecture = match (name, experts) {
            ("llama", 1..) => ARCHITECTURES.iter().find(|a| a.model_type == "mixtral"),
            ("llama", 0) if window => ARCHITECTURES.iter().find(|a| a.model_type == "mistral"),
            (DEEPSEEK, _) if scores == SIGMOID => {
                ARCHITECTURES.iter().find(|a| a.model_type == "deepseek_v3")
            }
            _ => ARCHITECTURES.iter().find(|a| a.gguf == Some(name)),
        };
        let kind = KINDS.iter().find(|kind| kind.name == name);
        let unknown = || unknown(&self.raw(), "general.architecture", &name.into(), |a| a.gguf);
        architecture.zip(kind).ok_or_else(unknown)
    }

    /// True if the file says that windows slide.
    fn window(&self, name: &str) -> bool {
        let key = format!("{name}.attention.sliding_window");
        self.container.config().get(&key).is_some_and(|window| *window != 0)
    }

    /// The architecture's name.
    fn architecture(&self) -> Result<&'a str> {
        let key = "general.architecture";
        let architecture = self.container.config().get(key).ok_or_else(|| self.missing(key))?;
        Ok(architecture.as_str().unwrap_or_default())
    }

    /// The hyperparameters under Hugging Face's names, or all that is wrong with them.
    pub(super) fn config(&self, kind: &Kind) -> Result<Config<'a>, Vec<Error>> {
        let metadata = self.container.config();
        let (mut fields, mut names, mut problems) = (Fields::new(), Names::new(), vec![]);
        let required = kind.fields.iter().chain([&kind.epsilon]).map(|pair| (pair, true));
        let optional = kind.optional().map(|pair| (pair, false));
        for (&(name, key), required) in required.chain(optional) {
            let key = format!("{}.{key}", kind.name);
            match metadata.get(&key) {
                Some(value) => _ = fields.insert(name.to_owned(), value.clone()),
                None if required => problems.push(self.missing(&key)),
                None => {}
            }
            names.insert(name, key);
        }
        problems.extend(self.add_tokens(&mut fields).err());
        problems.extend(self.add_scaling(kind.name, &mut fields, &mut names).err());
        problems.extend(self.add_vocabulary(kind.name, &mut fields).err());
        problems.extend(self.adjust(kind, &mut fields).err());
        if let Some(name) = kind.bias {
            let biased = |part: &str| self.container.tensor(&format!("blk.0.{part}.bias"));
            let there = biased("attn_q").or(biased("attn_qkv")).is_some();
            fields.insert(name.to_owned(), there.into());
        }
        let config = self.with_widths(kind, Config::renamed(self.path, fields, names));
        // Gemma 4 has them for some of its layers, and as something else.
        let factors = match kind.name {
            GEMMA4 => Ok(None),
            _ => self.rope_factors(ROPE_FACTORS),
        };
        match (config, factors) {
            (Ok(mut config), Ok(factors)) if problems.is_empty() => {
                config.rope_factors = factors;
                config.interleaved = kind.interleaved;
                config.converted = true;
                config.stacking = self.stacking();
                Ok(config)
            }
            (config, factors) => {
                problems.extend(config.err().into_iter().chain(factors.err()));
                Err(problems)
            }
        }
    }

    /// How experts are stored: newer converters put gates and up matrices of each into one tensor.
    fn stacking(&self) -> Stacking {
        let joint = |name: &String| name.ends_with(".ffn_gate_up_exps.weight");
        match self.container.names().iter().any(joint) {
            true => Stacking::Joint,
            false => Stacking::Parts,
        }
    }

    /// The metadata as they are.
    pub(super) fn raw(&self) -> Config<'a> {
        Config::new(self.path, Cow::Borrowed(self.container.config()))
    }

    /// Tokens that begin a text, and that end a text, a turn of a chat, or a message.
    fn add_tokens(&self, fields: &mut Fields) -> Result<()> {
        let raw = self.raw();
        let bos = raw.integer("tokenizer.ggml.bos_token_id")?;
        let mut eos = Vec::new();
        for key in ["eos", "eot", "eom"].map(|kind| format!("tokenizer.ggml.{kind}_token_id")) {
            let token = raw.integer(&key)?;
            eos.extend(token.filter(|token| !eos.contains(token)));
        }
        let padding = raw.integer("tokenizer.ggml.padding_token_id")?;
        fields.insert("bos_token_id".into(), json!(bos));
        fields.insert("pad_token_id".into(), json!(padding));
        fields.insert("eos_token_id".into(), json!(eos));
        Ok(())
    }

    /// The vocabulary's size, which no key has to hold, and whether the output matrix is missing.
    fn add_vocabulary(&self, architecture: &str, fields: &mut Fields) -> Result<()> {
        let rows = self.container.tensor(EMBEDDING).map(|info| info.rows).ok_or_else(|| {
            let (found, expected) = ("no such tensor", "a matrix with a row for each token");
            Error::malformed(self.path, EMBEDDING, found, expected, "get the file again")
        })?;
        let tokens = match self.container.tokenizer() {
            Some(TokenizerSource::Gguf(vocabulary)) => Some(vocabulary.tokens.len() as u64),
            _ => None,
        };
        let key = format!("{architecture}.vocab_size");
        let declared = self.raw().integer(&key)?.map(u64::from);
        for (field, size) in [("tokenizer.ggml.tokens", tokens), (&key, declared)] {
            if let Some(size) = size.filter(|&size| size != u64::from(rows)) {
                let expected = format!("{rows}, the rows of {EMBEDDING}");
                let (found, remedy) = (format!("{size} tokens"), "convert the model again");
                return Err(Error::malformed(self.path, field, found, expected, remedy));
            }
        }
        let tied = self.container.tensor(OUTPUT).is_none();
        fields.insert("vocab_size".into(), json!(rows));
        fields.insert("tie_word_embeddings".into(), json!(tied));
        Ok(())
    }

    /// Checks that values are as wide as keys, and adds the fields that follow from a head's width.
    fn with_widths(&self, kind: &Kind, config: Config<'a>) -> Result<Config<'a>> {
        let [hidden, heads] = [kind.fields[0].0, kind.fields[3].0].map(|name| config.integer(name));
        let divided = hidden?.zip(heads?).and_then(|(hidden, heads)| hidden.checked_div(heads));
        let Some(width) = config.integer("head_dim")?.or(divided) else { return Ok(config) };
        if kind.own_widths {
            return Ok(config);
        }
        let of = |key| Ok::<_, Error>((format!("{}.{key}", kind.name), self.integer(kind, key)?));
        let (key, values) = of("attention.value_length")?;
        let (turned_key, turned) = of("rope.dimension_count")?;
        let turned_key = Some(turned_key).filter(|_| !kind.partial);
        for (key, other) in [(Some(key), values), (turned_key, turned)] {
            if let Some((key, other)) = key.zip(other).filter(|(_, other)| *other != width) {
                let expected = format!("{width}, the width of a head");
                let remedy = "partial RoPE and values of another width are not supported";
                return Err(Error::malformed(self.path, key, other.to_string(), expected, remedy));
            }
        }
        // The largest Gemmas divide by the width that heads would have if they were as wide as hidden
        // states together, as llama.cpp knows by their number of layers.
        let layers = config.integer("num_hidden_layers")?;
        let largest = matches!((kind.name, layers), ("gemma2", Some(46)) | ("gemma3", Some(62)));
        Ok(config.with(|fields| {
            if kind.name.starts_with("gemma") {
                let scalar = divided.filter(|_| largest).unwrap_or(width);
                fields.insert("query_pre_attn_scalar".into(), scalar.into());
            }
            if let Some(turned) = turned.filter(|_| kind.partial) {
                let part = f64::from(turned) / f64::from(width.max(1));
                fields.insert("partial_rotary_factor".into(), part.into());
            }
        }))
    }

    /// One of the architecture's keys.
    pub(super) fn integer(&self, kind: &Kind, key: &str) -> Result<Option<u32>> {
        self.raw().integer(&format!("{}.{key}", kind.name))
    }

    fn missing(&self, key: &str) -> Error {
        Error::malformed(self.path, key, "no such key", "a value", "convert the model again")
    }
}

//! Reading hyperparameters: every error names the field as its file does, and what no architecture
//! may ignore is refused unless it was read.

use crate::import::Fields;
use crate::{Error, Result};
use omex_core::ops::Activation;
use serde_json::Value;
use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::Path,
};

/// What the file calls a field that Hugging Face calls otherwise. Those of an object within begin
/// with its name and a dot.
pub(super) type Names = BTreeMap<&'static str, String>;

/// How the matrices of a layer's experts are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stacking {
    /// Each in a tensor of its own.
    Apart,
    /// All gates in one tensor, and so up and down matrices.
    Parts,
    /// The gate and the up matrix of each in one tensor, and all down matrices in another.
    Joint,
}

/// The fields of a JSON object by Hugging Face's names. `null` is the same as no field, except for
/// tokens.
pub(super) struct Config<'a> {
    file: &'a Path,
    /// What to put before a field's name in errors.
    prefix: &'static str,
    fields: Cow<'a, Fields>,
    names: Names,
    /// Fields that were asked for.
    read: RefCell<BTreeSet<String>>,
    /// What was read of sizes, numbers and switches, or what stood in for what was absent.
    noted: RefCell<BTreeMap<String, Value>>,
    /// Queries and keys are stored for a RoPE that turns neighbours instead of halves.
    pub(super) interleaved: bool,
    pub(super) stacking: Stacking,
    /// Tensors are as converters to GGUF leave them.
    pub(super) converted: bool,
    /// Factors that divide the RoPE frequencies, where the file stores them as a tensor.
    pub(super) rope_factors: Option<Vec<f64>>,
}

impl<'a> Config<'a> {
    /// Fields that have Hugging Face's names.
    pub(super) fn new(file: &'a Path, fields: Cow<'a, Fields>) -> Self {
        let read = RefCell::new(BTreeSet::new());
        let (interleaved, converted) = (false, false);
        let (stacking, rope_factors) = (Stacking::Apart, None);
        let (prefix, names) = ("", Names::new());
        let noted = RefCell::new(BTreeMap::new());
        Self {
            file,
            prefix,
            fields,
            names,
            read,
            noted,
            interleaved,
            stacking,
            converted,
            rope_factors,
        }
    }

    /// Fields that were given Hugging Face's names.
    pub(super) fn renamed(file: &'a Path, fields: Fields, names: Names) -> Self {
        Self { names, ..Self::new(file, Cow::Owned(fields)) }
    }

    /// The same with other fields.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Fields)) -> Self {
        change(self.fields.to_mut());
        self
    }

    /// The file that holds the fields.
    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    /// A field that is neither absent nor `null`.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(name.to_owned());
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// All fields.
    pub(super) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// True if tensors are as converters to GGUF leave them.
    pub(super) fn is_converted(&self) -> bool {
        self.converted
    }

    /// True if `architectures` names this class.
    pub(super) fn has_class(&self, class: &str) -> bool {
        let classes = self.get("architectures").and_then(Value::as_array);
        classes.is_some_and(|classes| classes.iter().any(|name| name == class))
    }

    /// True if `architectures` names a class that ends so.
    pub(super) fn has_class_like(&self, end: &str) -> bool {
        let classes = self.get("architectures").and_then(Value::as_array);
        let ends = |name: &Value| name.as_str().is_some_and(|name| name.ends_with(end));
        classes.is_some_and(|classes| classes.iter().any(ends))
    }

    /// How many fields there are.
    pub(super) fn length(&self) -> u32 {
        self.fields.len() as u32
    }

    /// Notes what counts for a field.
    pub(super) fn note(&self, name: &str, value: impl Into<Value>) {
        self.noted.borrow_mut().insert(name.to_owned(), value.into());
    }

    /// What counts for a field that was read.
    pub(super) fn noted(&self, name: &str) -> Option<Value> {
        self.noted.borrow().get(name).cloned()
    }

    /// A field that is there and `null`.
    pub(super) fn is_null(&self, name: &str) -> bool {
        self.get(name).is_none() && self.fields.contains_key(name)
    }

    /// An object within this one; `prefix` is its name and a dot.
    pub(super) fn object(&self, name: &str, prefix: &'static str) -> Result<Option<Config<'_>>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => {
                let inner = Config::new(self.file, Cow::Borrowed(fields));
                let (names, stacking) = (self.names.clone(), self.stacking);
                let converted = self.converted;
                Ok(Some(Config { prefix, names, stacking, converted, ..inner }))
            }
            Some(other) => Err(self.bad(name, other, "an object or null")),
        }
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<u32>> {
        let integer = |value: &Value| {
            let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
            number.ok_or_else(|| self.bad(name, value, "a whole number below 2^32"))
        };
        let found = self.get(name).map(integer).transpose()?;
        found.into_iter().for_each(|number| self.note(name, number));
        Ok(found)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>> {
        let number =
            |value: &Value| value.as_f64().ok_or_else(|| self.bad(name, value, "a number"));
        let found = self.get(name).map(number).transpose()?;
        found.into_iter().for_each(|number| self.note(name, number));
        Ok(found)
    }

    /// A list of numbers that nothing can stand in for.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        let value = self.get(name).unwrap_or(&Value::Null);
        let numbers = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        numbers.ok_or_else(|| self.bad(name, value, "a list of numbers"))
    }

    /// A number that makes sense as a 32-bit float above 0.
    pub(super) fn positive(&self, name: &str) -> Result<Option<f64>> {
        let number = self.number(name)?;
        let range = f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX);
        match number.filter(|number| !range.contains(number)) {
            Some(number) => Err(self.bad(name, &number.into(), "a positive number of usual size")),
            None => Ok(number),
        }
    }

    /// A number that nothing can stand in for.
    pub(super) fn required_number(&self, name: &str) -> Result<f64> {
        self.number(name)?.ok_or_else(|| self.bad(name, &Value::Null, "a number"))
    }

    pub(super) fn boolean(&self, name: &str, default: bool) -> Result<bool> {
        let switch = self.get(name).map_or(Ok(default), |value| {
            value.as_bool().ok_or_else(|| self.bad(name, value, "true or false"))
        })?;
        self.note(name, switch);
        Ok(switch)
    }

    /// Refuses a switch in the other position; absent, it is in this one.
    pub(super) fn only(&self, name: &str, value: bool) -> Result<()> {
        match self.boolean(name, value)? == value {
            true => Ok(()),
            false => Err(self.unsupported(name, &(!value).into(), &value.to_string())),
        }
    }

    /// A field that must be there, and is not.
    pub(super) fn missing(&self, name: &str, expected: &str) -> Error {
        self.bad(name, &Value::Null, expected)
    }

    /// A size, which arithmetic may rely on to be from 1 to `max`.
    pub(super) fn size(&self, name: &str, default: u32, max: u32) -> Result<u32> {
        self.size_within(name, default, 1..=max)
    }

    /// A size that arithmetic may rely on to be within these bounds.
    pub(super) fn size_within(
        &self,
        name: &str,
        default: u32,
        bounds: RangeInclusive<u32>,
    ) -> Result<u32> {
        let size = self.integer(name)?.unwrap_or(default);
        if bounds.contains(&size) {
            self.note(name, size);
            return Ok(size);
        }
        let expected = format!("a number from {} to {}", bounds.start(), bounds.end());
        Err(self.bad(name, &size.into(), &expected))
    }

    /// A size that has several names: that of the first that is there. Others must say the same.
    pub(super) fn count(&self, names: &[&str], default: u32, max: u32) -> Result<u32> {
        let there = names.iter().copied().filter(|name| self.get(name).is_some());
        let first = there.clone().next().or(names.first().copied()).unwrap_or_default();
        let size = self.size(first, default, max)?;
        for name in there {
            if self.integer(name)? != Some(size) {
                let found = self.get(name).unwrap_or(&Value::Null);
                return Err(self.bad(name, found, &format!("{size}, as {first} says")));
            }
        }
        names.iter().for_each(|name| self.note(name, size));
        Ok(size)
    }

    /// A list of whole numbers; none if it is absent.
    pub(super) fn integers(&self, name: &str) -> Result<Vec<u32>> {
        let Some(value) = self.get(name) else { return Ok(vec![]) };
        let integer = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let numbers = value.as_array().and_then(|list| list.iter().map(integer).collect());
        numbers.ok_or_else(|| self.bad(name, value, "a list of whole numbers"))
    }

    /// What a norm adds so as not to divide by 0.
    pub(super) fn epsilon(&self, name: &str, default: f64) -> Result<f32> {
        let epsilon = self.number(name)?.unwrap_or(default);
        if (0.0..1.0).contains(&epsilon) {
            self.note(name, epsilon);
            return Ok(epsilon as f32);
        }
        Err(self.bad(name, &epsilon.into(), "a number from 0 to 1"))
    }

    /// A token, several, or none (`null`).
    pub(super) fn tokens(&self, name: &str, default: Option<u32>) -> Result<Vec<u32>> {
        let token = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| self.bad(name, value, "a token's number, several in a list, or null"))
        };
        match self.fields.get(name) {
            None => Ok(default.into_iter().collect()),
            Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(token).collect(),
            Some(id) => Ok(vec![token(id)?]),
        }
    }

    /// The kind of each layer, if they are given: each one of `supported`.
    pub(super) fn layer_types(
        &self,
        layers: u32,
        supported: &[&str],
    ) -> Result<Option<Vec<String>>> {
        self.kinds("layer_types", layers, supported)
    }

    /// The same by another name.
    pub(super) fn kinds(
        &self,
        name: &str,
        layers: u32,
        supported: &[&str],
    ) -> Result<Option<Vec<String>>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let kinds = value.as_array().filter(|kinds| kinds.len() == layers as usize);
        let kinds = kinds.ok_or_else(|| {
            let expected = format!("a list of {layers} kinds, as num_hidden_layers says");
            self.bad(name, value, &expected)
        })?;
        let kind = |kind: &Value| {
            let known = kind.as_str().filter(|kind| supported.contains(kind));
            let known = known.map(str::to_owned);
            known.ok_or_else(|| self.unsupported(name, kind, &supported.join(" or ")))
        };
        kinds.iter().map(kind).collect::<Result<_>>().map(Some)
    }

    /// Refuses a field that is there and is not one of `supported`; absent, it has the first value.
    pub(super) fn one_of<'s>(&self, name: &str, supported: &[&'s str]) -> Result<Option<&'s str>> {
        let Some(value) = self.get(name) else { return Ok(supported.first().copied()) };
        let found = supported.iter().find(|supported| value == **supported);
        match found {
            Some(found) => Ok(Some(*found)),
            None => Err(self.unsupported(name, value, &supported.join(" or "))),
        }
    }

    /// An activation function by transformers' name; absent, it is the default.
    pub(super) fn activation(&self, name: &str, default: Activation) -> Result<Activation> {
        const KNOWN: [(&str, Activation); 8] = [
            ("quick_gelu", Activation::QuickGelu),
            ("silu", Activation::Silu),
            ("swish", Activation::Silu),
            ("gelu", Activation::Gelu),
            ("gelu_new", Activation::GeluTanh),
            ("gelu_fast", Activation::GeluTanh),
            ("gelu_pytorch_tanh", Activation::GeluTanh),
            ("relu", Activation::Relu),
        ];
        let Some(value) = self.get(name) else { return Ok(default) };
        let found = KNOWN.iter().find(|(known, _)| value == known).map(|(_, known)| *known);
        found.ok_or_else(|| self.unsupported(name, value, &KNOWN.map(|(name, _)| name).join(", ")))
    }

    /// Refusals of fields that change what some model computes, unless they have the value that changes
    /// nothing, or the architecture has read them.
    pub(super) fn unread(&self) -> Vec<Error> {
        let neutral = neutral_values().into_iter().filter_map(|(name, neutral)| {
            let same = |value: &Value| match neutral.as_f64() {
                Some(number) => value.as_f64() == Some(number),
                None => *value == neutral,
            };
            let read = self.read.borrow().contains(name);
            let value = self.get(name).filter(|value| !read && !same(value))?;
            Some(self.unsupported(name, value, &neutral.to_string()))
        });
        let mut refused: Vec<_> = neutral.collect();
        let full = |value: &Value| {
            value.as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind == "full_attention"))
        };
        let read = self.read.borrow().contains("layer_types");
        if let Some(value) = self.get("layer_types").filter(|value| !read && !full(value)) {
            refused.push(self.unsupported("layer_types", value, "only \"full_attention\""));
        }
        refused
    }

    /// # Errors
    /// The first of [`Self::unread`].
    pub(super) fn refuse_unread(&self) -> Result<()> {
        self.unread().into_iter().next().map_or(Ok(()), Err)
    }

    /// A field that does not hold what it must.
    pub(super) fn bad(&self, name: &str, found: &Value, expected: &str) -> Error {
        let remedy = "correct the file, or get it again";
        Error::malformed(self.file, self.full_name(name), found.to_string(), expected, remedy)
    }

    /// A field with a meaning that nothing here computes.
    pub(super) fn unsupported(&self, name: &str, found: &Value, expected: &str) -> Error {
        let remedy = "models with any other value are not supported";
        Error::malformed(self.file, self.full_name(name), found.to_string(), expected, remedy)
    }

    fn full_name(&self, name: &str) -> String {
        let name = format!("{}{name}", self.prefix);
        self.names.get(name.as_str()).cloned().unwrap_or(name)
    }
}

/// Fields by which models differ in what they compute, each with the value that changes nothing.
fn neutral_values() -> [(&'static str, Value); 28] {
    let (off, none) = (|| Value::from(false), || Value::Null);
    let (one, zero) = (|| Value::from(1.0), || Value::from(0.0));
    [
        ("attention_bias", off()),
        ("mlp_bias", off()),
        ("use_bias", off()),
        ("sliding_window", none()),
        ("attention_chunk_size", none()),
        ("no_rope_layers", none()),
        ("partial_rotary_factor", one()),
        ("rotary_pct", one()),
        ("attn_logit_softcapping", none()),
        ("final_logit_softcapping", none()),
        ("clip_qkv", none()),
        ("use_qk_norm", off()),
        ("qk_layernorm", off()),
        ("use_qkv_bias", off()),
        ("attention_multiplier", none()),
        ("use_parallel_residual", off()),
        ("use_bidirectional_attention", off()),
        ("embedding_multiplier", one()),
        ("residual_multiplier", one()),
        ("logits_scaling", one()),
        ("num_local_experts", zero()),
        ("num_experts", zero()),
        ("n_routed_experts", zero()),
        ("n_shared_experts", zero()),
        ("routed_scaling_factor", one()),
        ("alibi", off()),
        ("add_cross_attention", off()),
        ("quantization_config", none()),
    ]
}

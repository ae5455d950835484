//! Metadata as GGUF files store them.

use crate::tokenizer::GgufVocabulary;
use serde_json::Value;

/// Pairs of keys and values.
#[derive(Default)]
pub(super) struct Pairs {
    pub(super) count: u64,
    pub(super) bytes: Vec<u8>,
}

/// Types of metadata.
mod kind {
    pub(super) const BYTE: u32 = 0;
    pub(super) const UNSIGNED: u32 = 4;
    pub(super) const SIGNED: u32 = 5;
    pub(super) const FLOAT: u32 = 6;
    pub(super) const BOOLEAN: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

/// A value's type, and its bytes; none of what has no type.
fn typed(value: &Value) -> Option<(u32, Vec<u8>)> {
    let mut bytes = vec![];
    let kind = match value {
        Value::Bool(value) => {
            bytes.push(u8::from(*value));
            kind::BOOLEAN
        }
        Value::Number(number) if number.is_f64() => {
            bytes.extend((number.as_f64()? as f32).to_le_bytes());
            kind::FLOAT
        }
        Value::Number(number) => {
            bytes.extend(u32::try_from(number.as_u64()?).ok()?.to_le_bytes());
            kind::UNSIGNED
        }
        Value::String(text) => {
            put_string(&mut bytes, text.as_bytes());
            kind::STRING
        }
        Value::Array(values) => {
            let values = values.iter().map(typed).collect::<Option<Vec<_>>>()?;
            bytes.extend(values.first()?.0.to_le_bytes());
            bytes.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|(_, value)| bytes.extend(value));
            kind::ARRAY
        }
        Value::Null | Value::Object(_) => return None,
    };
    Some((kind, bytes))
}

impl Pairs {
    fn key(&mut self, key: &str, kind: u32) {
        self.count += 1;
        put_string(&mut self.bytes, key.as_bytes());
        self.bytes.extend(kind.to_le_bytes());
    }

    /// Adds a value: floats are numbers with a point. What has no type is left out.
    pub(super) fn add(&mut self, key: &str, value: impl Into<Value>) {
        if let Some((kind, bytes)) = typed(&value.into()) {
            self.key(key, kind);
            self.bytes.extend(bytes);
        }
    }

    fn array<const N: usize>(
        &mut self,
        key: &str,
        kind: u32,
        items: impl ExactSizeIterator<Item = [u8; N]>,
    ) {
        self.key(key, kind::ARRAY);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((items.len() as u64).to_le_bytes());
        items.for_each(|item| self.bytes.extend(item));
    }

    fn strings<'s>(&mut self, key: &str, items: impl ExactSizeIterator<Item = &'s [u8]>) {
        self.key(key, kind::ARRAY);
        self.bytes.extend(kind::STRING.to_le_bytes());
        self.bytes.extend((items.len() as u64).to_le_bytes());
        items.for_each(|item| put_string(&mut self.bytes, item));
    }

    pub(super) fn vocabulary(&mut self, of: &GgufVocabulary) {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        self.add(&key("model"), of.model.as_str());
        self.add(&key("pre"), of.pre.clone());
        self.strings(&key("tokens"), of.tokens.iter().map(Vec::as_slice));
        if !of.scores.is_empty() {
            self.array(&key("scores"), kind::FLOAT, of.scores.iter().map(|x| x.to_le_bytes()));
        }
        let types = of.token_types.iter().map(|kind| kind.to_le_bytes());
        self.array(&key("token_type"), kind::SIGNED, types);
        if !of.merges.is_empty() {
            self.strings(&key("merges"), of.merges.iter().map(String::as_bytes));
        }
        for (name, id) in [("bos", of.bos), ("eos", of.eos), ("unknown", of.unknown)] {
            self.add(&key(&format!("{name}_token_id")), id);
        }
        for (name, switch) in [
            ("add_bos_token", of.add_bos),
            ("add_eos_token", of.add_eos),
            ("add_space_prefix", of.add_space_prefix),
            ("remove_extra_whitespaces", of.remove_extra_whitespaces),
        ] {
            self.add(&key(name), switch);
        }
        if !of.charsmap.is_empty() {
            let bytes = of.charsmap.iter().map(|byte| [*byte]);
            self.array(&key("precompiled_charsmap"), kind::BYTE, bytes);
        }
    }
}

//! How a model is quantized, as its `quantization_config` says.

use super::packed::{Order, Packing};
use crate::import::Fields;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// The field of `config.json`.
pub(super) const FIELD: &str = "quantization_config";
/// The most columns that share a scale.
const MAX_GROUP: u32 = 1 << 20;

/// How matrices are quantized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Method {
    /// Integers, several in a word.
    Packed(Packing),
    /// Floats of 8 bits with scales, each for a block with these sides, where the field says so.
    Scaled(Option<[u32; 2]>),
    /// Floats of 4 bits in blocks with an exponent.
    Microscaled,
}

/// The method of a model, if it is quantized by one that is decoded here.
pub(super) fn of(path: &Path, config: &Fields) -> Result<Option<Method>> {
    let Some(field) = config.get(FIELD).filter(|field| !field.is_null()) else { return Ok(None) };
    let empty = Map::new();
    let settings = Settings { path, fields: field.as_object().unwrap_or(&empty) };
    let method = settings.get("quant_method").and_then(Value::as_str);
    Ok(Some(match method {
        Some("mxfp4") => Method::Microscaled,
        Some("fp8") => Method::Scaled(settings.block(settings.get("weight_block_size"))?),
        Some("compressed-tensors") => settings.compressed_tensors()?,
        Some("gptq") => Method::Packed(settings.gptq()?),
        Some("awq") => Method::Packed(settings.awq()?),
        _ => {
            return Err(settings.bad("quant_method", "fp8, compressed-tensors, gptq, awq or mxfp4"));
        }
    }))
}

/// The fields of a `quantization_config`.
struct Settings<'s> {
    path: &'s Path,
    fields: &'s Fields,
}

impl Settings<'_> {
    /// A field that is neither absent nor `null`.
    fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn bad(&self, name: &str, expected: &str) -> Error {
        let mut value = Some(self.fields);
        let mut found = &Value::Null;
        for part in name.split('.') {
            found = value.and_then(|fields| fields.get(part)).unwrap_or(&Value::Null);
            value = found.as_object();
        }
        let remedy = "get the model's original weights, or let transformers write them: \
                      model.dequantize() and model.save_pretrained(FOLDER)";
        Error::malformed(self.path, format!("{FIELD}.{name}"), found.to_string(), expected, remedy)
    }

    /// Refuses a field that has another value than these; absent, it has the first.
    fn only(&self, name: &str, values: &[Value]) -> Result<()> {
        match self.get(name).is_none_or(|value| values.contains(value)) {
            true => Ok(()),
            false => {
                let values: Vec<_> = values.iter().map(Value::to_string).collect();
                Err(self.bad(name, &values.join(" or ")))
            }
        }
    }

    fn gptq(&self) -> Result<Packing> {
        self.only("is_marlin_format", &[false.into()])?;
        self.only("pack_dtype", &["int32".into()])?;
        // Settings for single modules.
        self.only("dynamic", &[Value::Object(Map::new())])?;
        self.only("checkpoint_format", &["gptq".into(), "gptq_v2".into()])?;
        let bits = self.get("bits").and_then(Value::as_u64);
        let bits = match bits {
            Some(4) => 4,
            Some(8) => 8,
            _ => return Err(self.bad("bits", "4 or 8")),
        };
        // The first version stores zero points less one.
        let second = self.get("checkpoint_format").is_some_and(|format| format == "gptq_v2");
        let order = Order::Rows { zero: u32::from(!second) };
        Ok(Packing { bits, order, group: self.group("group_size")? })
    }

    fn awq(&self) -> Result<Packing> {
        self.only("version", &["gemm".into(), "GEMM".into()])?;
        self.only("zero_point", &[true.into()])?;
        let bits = if self.get("bits").is_some() { "bits" } else { "w_bit" };
        if self.get(bits).and_then(Value::as_u64) != Some(4) {
            return Err(self.bad(bits, "4"));
        }
        let group = if self.get("group_size").is_some() { "group_size" } else { "q_group_size" };
        Ok(Packing { bits: 4, order: Order::Columns, group: self.group(group)? })
    }

    /// How many columns share a scale; none where all of a row do.
    fn group(&self, name: &str) -> Result<Option<u32>> {
        let group = self.get(name).and_then(Value::as_i64);
        match group {
            Some(-1) => Ok(None),
            Some(group) if (1..=i64::from(MAX_GROUP)).contains(&group) => Ok(Some(group as u32)),
            _ => Err(self.bad(name, "the number of columns that share a scale, or -1 for all")),
        }
    }

    fn compressed_tensors(&self) -> Result<Method> {
        self.only("format", &["float-quantized".into(), "naive-quantized".into()])?;
        let groups = self.get("config_groups").and_then(Value::as_object);
        let mut block = None;
        for (name, group) in groups.into_iter().flatten() {
            let weights = group.get("weights").unwrap_or(&Value::Null);
            let kind = weights.get("type").and_then(Value::as_str);
            let bits = weights.get("num_bits").and_then(Value::as_u64);
            if (kind, bits) != (Some("float"), Some(8)) {
                let name = format!("config_groups.{name}.weights");
                return Err(self.bad(&name, "floats (type) of 8 bits (num_bits)"));
            }
            let found = self.block(weights.get("block_structure").filter(|b| !b.is_null()))?;
            block = found.or(block);
        }
        Ok(Method::Scaled(block))
    }

    /// The sides of the blocks that have a scale.
    fn block(&self, value: Option<&Value>) -> Result<Option<[u32; 2]>> {
        let Some(value) = value else { return Ok(None) };
        let side = |at: usize| {
            let side = value.get(at)?.as_u64()?;
            u32::try_from(side).ok().filter(|side| *side > 0)
        };
        match (side(0), side(1)) {
            (Some(rows), Some(columns)) => Ok(Some([rows, columns])),
            _ => Err(self.bad("weight_block_size", "rows and columns of a block")),
        }
    }
}

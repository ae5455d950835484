//! How RoPE is stretched.

use super::keys::Keys;
use super::names::LONG_ROPE;
use crate::arch::config::Names;
use crate::arch::rope::yarn_mscale;
use crate::import::Fields;
use crate::{Error, Result};
use serde_json::{Value, json};

impl Keys<'_> {
    /// How RoPE is stretched.
    pub(super) fn add_scaling(
        &self,
        architecture: &str,
        fields: &mut Fields,
        names: &mut Names,
    ) -> Result<()> {
        let raw = self.raw();
        let named = |key: &str| format!("{architecture}.rope.{key}");
        let kind = named("scaling.type");
        let factor = match raw.number(&named("scaling.factor"))? {
            Some(factor) => Some(factor),
            // As older converters named it.
            None => raw.number(&named("scale_linear"))?,
        };
        if let Some(short) = self.rope_factors(LONG_ROPE[0].1)? {
            let long = self.rope_factors(LONG_ROPE[1].1)?;
            let attention_factor = raw.number(&named("scaling.attn_factor"))?;
            let scaling = json!({
                "rope_type": "longrope", "short_factor": short, "long_factor": long,
                "attention_factor": attention_factor,
            });
            fields.insert("rope_scaling".into(), scaling);
            return Ok(());
        }
        // llama.cpp takes 0 for "no factor", and a factor without a type for a linear one.
        let default = Value::from("linear");
        let found = raw.get(&kind).unwrap_or(&default);
        match (found.as_str(), factor.filter(|&factor| factor != 0.0)) {
            (Some("none"), _) | (Some("linear"), None) => {}
            (Some("linear"), Some(factor)) => {
                let scaling = json!({ "rope_type": "linear", "factor": factor });
                fields.insert("rope_scaling".into(), scaling);
                names.insert("rope_scaling.factor", named("scaling.factor"));
            }
            (Some("yarn"), Some(factor)) => {
                let original = raw.integer(&named("scaling.original_context_length"))?;
                let number = |key: &str| raw.number(&named(&format!("scaling.{key}")));
                // The file has it as a part of what it would be.
                let part = number("attn_factor")?.filter(|part| *part != 1.0);
                // What it says of scores it takes away from queries and keys.
                let scores = number("yarn_log_multiplier")?.map(|multiplier| multiplier / 0.1);
                let scaling = json!({
                    "rope_type": "yarn", "factor": factor,
                    "original_max_position_embeddings": original,
                    "attention_factor": part.map(|part| part * yarn_mscale(factor, 1.0)),
                    "mscale": scores, "mscale_all_dim": scores,
                    "beta_fast": number("yarn_beta_fast")?, "beta_slow": number("yarn_beta_slow")?,
                    "truncate": architecture != "gpt-oss",
                });
                fields.insert("rope_scaling".into(), scaling);
                names.insert("rope_scaling.factor", named("scaling.factor"));
            }
            _ => return Err(raw.unsupported(&kind, found, "none, linear or yarn")),
        }
        Ok(())
    }

    /// The factors that a tensor holds.
    pub(super) fn rope_factors(&self, name: &str) -> Result<Option<Vec<f64>>> {
        let Some(info) = self.container.tensor(name) else { return Ok(None) };
        if info.rows != 1 {
            let (found, remedy) = (format!("{} rows", info.rows), "convert the model again");
            return Err(Error::malformed(self.path, name, found, "a vector", remedy));
        }
        let mut factors = vec![0.0; info.columns as usize];
        self.container.read_row(name, 0, &mut factors)?;
        Ok(Some(factors.into_iter().map(f64::from).collect()))
    }
}

//! Which model is planned: one that can be run, or one that is to be converted.

use super::convert::{Quantization, parse_quantization};
use crate::output;
use omex::quantize::Precision;
use omex::session::Tables;
use omex::synth::tables_of_config;
use omex::{Error, Result};
use std::path::{Path, PathBuf};

/// The model: shared by the commands that plan.
#[derive(clap::Args)]
pub(crate) struct ModelArgs {
    /// A package, a flash image, the config.json of a Hugging Face model that is to be converted, or
    /// hf:ORGANISATION/NAME, of which that is got
    model: PathBuf,
    /// Precision to plan a config.json for [default: int8]
    #[arg(long, value_name = "f32|f16|int8|int4|int4+4", value_parser = parse_quantization)]
    quantization: Option<Quantization>,
}

impl ModelArgs {
    /// Where the model lies.
    pub(crate) fn path(&mut self) -> &mut PathBuf {
        &mut self.model
    }

    /// Where the model lies, or what it is called.
    pub(super) fn given(&self) -> &Path {
        &self.model
    }

    /// The tables of a package or an image, or of the package that a Hugging Face model will become.
    pub(super) fn tables(&self) -> Result<Tables> {
        let (model, quantization) = (self.model.as_path(), self.quantization);
        let in_folder = model.join("config.json");
        let config = match model.extension() {
            Some(extension) if extension == "json" => Some(model),
            _ if model.join("metadata.json").exists() || !in_folder.is_file() => None,
            _ => Some(in_folder.as_path()),
        };
        match (config, quantization) {
            (Some(config), quantization) => {
                let (precision, residual) = quantization.unwrap_or((Precision::Int8, false));
                output::note("note: the tokenizer is not counted");
                tables_of_config(config, precision, residual)
            }
            (None, None) => Tables::open(model),
            (None, Some(_)) => Err(Error::Usage(format!(
                "{}: the weights have a precision already: --quantization is for a config.json",
                model.display()
            ))),
        }
    }
}

//! Which model is converted, and how: what is the same makes the same weights.

use super::options::{Calibration, ConvertOptions, TokenizerChoice};
use crate::import::{Container, TokenizerSource};
use crate::package::OMEX_VERSION;
use crate::quantize::Precision;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Files beside a model that say where the texts end that it is calibrated with.
const ENDS: [&str; 2] = ["generation_config.json", "tokenizer_config.json"];

/// All that weights depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// The program, and the format that it writes.
    version: [String; 2],
    source: Vec<Stamp>,
    precision: Option<Precision>,
    residual: bool,
    long_context: bool,
    calibration: String,
    calibration_text: Option<Stamp>,
    /// Texts become other tokens with another one.
    tokenizer: String,
    tokenizer_file: Option<Stamp>,
}

/// A file as it was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stamp {
    path: String,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: [i64; 2],
}

impl Stamp {
    fn of(path: &Path) -> Result<Self> {
        let failed = |e| Error::io(path, "read", e);
        let (path, found) =
            (path.canonicalize().map_err(failed)?, path.metadata().map_err(failed)?);
        let modified = [found.mtime(), found.mtime_nsec()];
        Ok(Self { path: path.to_string_lossy().into_owned(), bytes: found.len(), modified })
    }
}

impl Identity {
    pub(super) fn new(source: &dyn Container, options: &ConvertOptions<'_>) -> Result<Self> {
        let mut files: Vec<_> = source.files().into_iter().map(Path::to_owned).collect();
        if !files.is_empty() {
            files.extend(source.tokenizer().and_then(TokenizerSource::path).map(Path::to_owned));
            let beside = ENDS.map(|name| source.path().with_file_name(name));
            files.extend(beside.into_iter().filter(|path| path.is_file()));
        }
        let (calibration, text) = match options.calibration {
            Calibration::Auto => ("auto", None),
            Calibration::Off => ("off", None),
            Calibration::Text(file) => ("text", Some(file)),
        };
        let (tokenizer, tokenizer_file) = match options.tokenizer {
            TokenizerChoice::Own => ("own", None),
            TokenizerChoice::File(file) => ("file", Some(file)),
            TokenizerChoice::None => ("none", None),
        };
        Ok(Self {
            version: [env!("CARGO_PKG_VERSION"), OMEX_VERSION].map(String::from),
            source: files.iter().map(|path| Stamp::of(path)).collect::<Result<_>>()?,
            precision: options.precision,
            residual: options.residual,
            long_context: options.long_context,
            calibration: calibration.to_owned(),
            calibration_text: text.map(Stamp::of).transpose()?,
            tokenizer: tokenizer.to_owned(),
            tokenizer_file: tokenizer_file.map(Stamp::of).transpose()?,
        })
    }

    /// True if what is converted lies in files, by which it can be known again.
    pub(super) fn is_of_files(&self) -> bool {
        !self.source.is_empty()
    }

    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|e| Error::Usage(format!("what is converted can't be noted: {e}")))
    }

    /// In what another one differs, in words; of an unknown one, nothing is known.
    pub(super) fn changed(&self, other: Option<&Self>) -> Vec<&'static str> {
        let Some(other) = other else { return vec!["form"] };
        let parts = [
            ("version of omex", self.version == other.version),
            ("model", self.source == other.source),
            ("precision", (self.precision, self.residual) == (other.precision, other.residual)),
            ("context", self.long_context == other.long_context),
            (
                "calibration",
                (&self.calibration, &self.calibration_text)
                    == (&other.calibration, &other.calibration_text),
            ),
            (
                "tokenizer",
                (&self.tokenizer, &self.tokenizer_file)
                    == (&other.tokenizer, &other.tokenizer_file),
            ),
        ];
        parts.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }
}

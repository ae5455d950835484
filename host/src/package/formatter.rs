//! `postprocessors/NAME_formatter.json`: what becomes of a text that the model has written.

use super::{Package, read_written};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The version of its format.
const FORMAT: u32 = 1;

/// What becomes of a text that the model has written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FormatterSettings {
    /// Version of this file's format: 1.
    pub format: u32,
    /// What is made of it.
    #[serde(default, rename = "as")]
    pub style: Style,
    /// Leaves out white space at both ends.
    #[serde(default)]
    pub trim: bool,
    /// Strings that end the text, which goes up to the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// What stands between the texts of the parts of one that was too long.
    #[serde(default = "blank_line")]
    pub join: String,
}

fn blank_line() -> String {
    "\n\n".to_owned()
}

/// What is made of a text.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// Nothing.
    #[default]
    Text,
    /// Text without the marks of Markdown (CommonMark and its tables).
    Plain,
    /// Markdown whose last fenced block is closed.
    Markdown,
    /// What stands in fenced blocks; all of a text that has none.
    Code,
    /// The first object or list in JSON; a text without one is an error.
    Json,
}

impl FormatterSettings {
    /// The one of this name that is always there: `text`, `plain`, `markdown`, `code` or `json`.
    #[must_use]
    pub fn built_in(name: &str) -> Option<Self> {
        let style = match name {
            "text" => Style::Text,
            "plain" => Style::Plain,
            "markdown" => Style::Markdown,
            "code" => Style::Code,
            "json" => Style::Json,
            _ => return None,
        };
        let trim = style != Style::Text;
        let join = if style == Style::Json { "\n".to_owned() } else { blank_line() };
        Some(Self { format: FORMAT, style, trim, stop: vec![], join })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that can't be read, or that is malformed.
    pub fn read(path: &Path) -> Result<Self> {
        let settings: Self = read_written(path)?;
        settings.check(path)?;
        Ok(settings)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let wrong = |field: &str, found: &str, expected: &str| {
            Err(Error::malformed(path, field, found, expected, "correct the file"))
        };
        match () {
            () if self.format != FORMAT => wrong("format", &self.format.to_string(), "1"),
            () if self.stop.iter().any(String::is_empty) => wrong("stop[]", "\"\"", "some text"),
            () => Ok(()),
        }
    }
}

impl Package {
    /// The formatter of a name, as `text`, if the package has it.
    ///
    /// # Errors
    /// A file that is damaged or malformed.
    pub fn formatter(&self, name: &str) -> Result<Option<FormatterSettings>> {
        self.processor(super::FORMATTERS, name, FormatterSettings::check)
    }
}

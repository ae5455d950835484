//! What becomes of a text that the model has written: shared by the commands that show some.

use super::preprocess::{chosen, unknown};
use omex::Result;
use omex::format::Formatter;
use omex::package::{FormatterSettings, Package};
use std::path::Path;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct FormatArgs {
    /// What becomes of what the model writes: a JSON file, or a name, as code for the package's
    /// postprocessors/code_formatter.json. There are always text, which does nothing; plain, without
    /// the marks of Markdown; markdown, whose last fenced block is closed; code, only what stands in
    /// such blocks; and json, only the first object or list. What was given to begin with is not
    /// printed then [default: the package's text, if it has one]
    #[arg(long, value_name = "NAME|FILE")]
    formatter: Option<String>,
    /// Show texts as the model writes them, whatever the package has
    #[arg(long, conflicts_with = "formatter")]
    no_format: bool,
}

/// What becomes of a text, if anything.
#[derive(Clone)]
pub(crate) struct Format(Option<FormatterSettings>);

impl FormatArgs {
    pub(crate) fn open(&self, model: &Path) -> Result<Format> {
        if self.no_format {
            return Ok(Format(None));
        }
        let name = self.formatter.as_deref();
        let found = chosen(model, name, FormatterSettings::read, Package::formatter)?;
        let found = found.or_else(|| name.and_then(FormatterSettings::built_in));
        let always = "; there are always text, plain, markdown, code and json";
        match name {
            Some(name) if found.is_none() => Err(unknown(model, "formatter", name, always)),
            _ => Ok(Format(found)),
        }
    }
}

impl Format {
    pub(crate) fn settings(&self) -> Option<&FormatterSettings> {
        self.0.as_ref()
    }

    /// For a text that begins.
    pub(crate) fn begin(&self) -> Option<Formatter> {
        self.0.as_ref().map(Formatter::new)
    }

    /// All of a text.
    pub(crate) fn whole(&self, text: String) -> Result<String> {
        match &self.0 {
            Some(settings) => Formatter::whole(settings, &text),
            None => Ok(text),
        }
    }

    /// What stands between the texts of parts.
    pub(crate) fn join(&self) -> &str {
        self.0.as_ref().map_or("\n\n", |settings| &settings.join)
    }

    /// The strings that end a text, with these.
    pub(crate) fn stop(&self, more: &[String]) -> Vec<String> {
        let own = self.0.iter().flat_map(|settings| &settings.stop);
        own.chain(more).cloned().collect()
    }
}

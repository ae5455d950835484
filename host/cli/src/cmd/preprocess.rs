//! What texts go through before they become tokens: shared by the commands that take some.

use super::text::longest;
use crate::{choices, output};
use omex::chat::Moment;
use omex::package::{Blocks, Package, PreprocessorSettings};
use omex::preprocess::Preprocessor;
use omex::{Error, Result};
use std::path::Path;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PreprocessArgs {
    /// What texts go through before they become tokens: a JSON file, or a name, as code for the
    /// package's preprocessors/code_preprocessor.json [default: its text, if it has one]
    #[arg(long, value_name = "NAME|FILE")]
    preprocessor: Option<String>,
    /// Take texts as they are, whatever the package has
    #[arg(long, conflicts_with = "preprocessor")]
    no_preprocess: bool,
}

/// Whether long texts become several: shared by the commands that take some as parts.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ChunkArgs {
    /// Make several of a text that is longer than the context, cut between paragraphs of documents or
    /// blocks of code, instead of forgetting some of it
    #[arg(long, value_name = "BLOCKS", value_parser = choices::blocks())]
    chunk: Option<Blocks>,
}

impl PreprocessArgs {
    /// What texts go through, if anything.
    pub(crate) fn settings(&self, model: &Path) -> Result<Option<PreprocessorSettings>> {
        if self.no_preprocess {
            return Ok(None);
        }
        let name = self.preprocessor.as_deref();
        let found = chosen(model, name, PreprocessorSettings::read, Package::preprocessor)?;
        match name {
            Some(name) if found.is_none() => Err(unknown(model, "preprocessor", name, "")),
            _ => Ok(found),
        }
    }

    /// What texts go through, within some memory.
    pub(crate) fn open(
        &self,
        model: &Path,
        memory: Option<u64>,
        now: Moment,
    ) -> Result<Option<Preprocessor>> {
        self.ready(self.settings(model)?, memory, now)
    }

    /// With long texts cut where that is asked for.
    pub(crate) fn open_with(
        &self,
        chunk: &ChunkArgs,
        model: &Path,
        memory: Option<u64>,
        now: Moment,
    ) -> Result<Option<Preprocessor>> {
        let mut settings = self.settings(model)?;
        if let Some(blocks) = chunk.chunk {
            let before = settings.unwrap_or_else(|| PreprocessorSettings::new(vec![]));
            settings = Some(before.cutting(blocks));
        }
        self.ready(settings, memory, now)
    }

    fn ready(
        &self,
        settings: Option<PreprocessorSettings>,
        memory: Option<u64>,
        now: Moment,
    ) -> Result<Option<Preprocessor>> {
        let Some(settings) = settings else { return Ok(None) };
        let ready = Preprocessor::new(&settings, self.origin(), now)?;
        Ok(Some(ready.within(longest(memory))))
    }

    /// What errors call it.
    fn origin(&self) -> &str {
        self.preprocessor.as_deref().unwrap_or("the package's text_preprocessor.json")
    }
}

/// What a file has, or a package by a name, which is `text` where none is given; a flash image has nothing.
pub(super) fn chosen<T>(
    model: &Path,
    name: Option<&str>,
    read: fn(&Path) -> Result<T>,
    own: fn(&Package, &str) -> Result<Option<T>>,
) -> Result<Option<T>> {
    match name {
        Some(file) if file.contains(['/', '.', '\\']) => read(file.as_ref()).map(Some),
        _ if model.is_dir() => own(&Package::open(model)?, name.unwrap_or("text")),
        _ => Ok(None),
    }
}

/// Notes that a model is written without what its package has texts go through.
pub(super) fn note_left_out(package: &Package) -> Result<()> {
    if package.preprocessor("text")?.is_some() || package.formatter("text")?.is_some() {
        output::note("note: the package's preprocessor and formatter of texts are not taken along");
    }
    Ok(())
}

pub(super) fn unknown(model: &Path, what: &str, name: &str, others: &str) -> Error {
    let model = model.display();
    Error::Usage(format!(
        "--{what} {name}: {model} has no {what} of that name{others}; the name of a file has a dot or a slash"
    ))
}

//! `model.omex/`: the folder that holds a model.

mod chat;
mod checksums;
mod embedding;
mod formatter;
mod index;
mod metadata;
mod preprocessor;
mod rerank;
pub mod validate;

pub use chat::Chat;
pub(crate) use chat::{DEFAULT_TEMPLATE, FILE as CHAT_FILE};
pub use checksums::renew_checksums;
pub(crate) use embedding::EMBEDDING;
pub use embedding::{EmbeddingSettings, Pooling};
pub use formatter::{FormatterSettings, Style};
pub use index::{FileEntry, TensorEntry, WeightIndex, parse_crc};
pub use metadata::{Architecture, Metadata, TokenIds};
pub(crate) use preprocessor::TEXT_PREPROCESSOR;
pub use preprocessor::{Blocks, PreprocessorSettings, Step, UnicodeForm};
pub(crate) use rerank::RERANK;
pub use rerank::{PairPart, RerankSettings, ScoreActivation};

use crate::compile::{Compiled, compile};
use crate::graph::Graph;
use crate::import::{Fields, unconverted};
use crate::{Error, Result, input};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder of preprocessors, and how their files' names end.
const PREPROCESSORS: (&str, &str) = ("preprocessors", "_preprocessor.json");
/// The same of formatters.
const FORMATTERS: (&str, &str) = ("postprocessors", "_formatter.json");

/// Whether this is the name of a preprocessor or a formatter.
fn is_processor(name: &str) -> bool {
    [PREPROCESSORS, FORMATTERS].iter().any(|(folder, end)| {
        let file = name.strip_prefix(folder).and_then(|name| name.strip_prefix('/'));
        file.and_then(|file| file.strip_suffix(end)).is_some_and(is_processor_name)
    })
}

/// Whether preprocessors and formatters may be called so.
fn is_processor_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !name.is_empty() && name.chars().all(allowed)
}

/// The file of the hyperparameters.
pub(crate) const HYPERPARAMETERS: &str = "hyperparameters.json";

/// The version of the package format that this build writes; it reads any `0.4.x`.
pub const OMEX_VERSION: &str = "0.4.0";

/// A package whose JSON files were read and agree with one another and with the files' sizes.
/// Weights are checked page by page as they are used, or all at once by [`validate`].
#[derive(Clone, Debug)]
pub struct Package {
    /// The folder.
    pub path: PathBuf,
    /// `metadata.json`.
    pub metadata: Metadata,
    /// `graph.json`.
    pub graph: Graph,
    /// `weights/quantization.json`.
    pub index: WeightIndex,
    /// The program and the tensor table.
    pub compiled: Compiled,
    /// The files of weights, in the order of the index. Under their names may lie those of another
    /// package by now.
    pub files: Vec<Arc<File>>,
    tokenizer: Option<Vec<u8>>,
    /// `postprocessors/embedding.json`, if there is one.
    pub embedding: Option<EmbeddingSettings>,
    /// `postprocessors/rerank.json`, if there is one.
    pub rerank: Option<RerankSettings>,
}

impl Package {
    /// Reads a package; where another takes its place meanwhile, one of the two.
    ///
    /// # Errors
    /// A file that is missing, malformed, or disagrees with another.
    pub fn open(path: &Path) -> Result<Self> {
        steadily(path, || Self::read(path))
    }

    fn read(path: &Path) -> Result<Self> {
        let foreign = if path.join("metadata.json").exists() { None } else { unconverted(path) };
        if let Some(error) = foreign {
            return Err(error);
        }
        let metadata = Metadata::read(path)?;
        let graph_path = path.join("graph.json");
        let graph: Graph = metadata.read_json(path, "graph.json")?;
        if graph.format != crate::graph::FORMAT {
            let found = graph.format.to_string();
            return Err(Error::malformed(
                &graph_path,
                "format",
                found,
                crate::graph::FORMAT.to_string(),
                CONVERT_AGAIN,
            ));
        }
        let index: WeightIndex = metadata.read_json(path, "weights/quantization.json")?;
        let files = index.check(path)?;
        let compiled = compiled(&graph, &metadata, &index).map_err(|found| {
            let expected = "a graph over the tensors of weights/quantization.json";
            Error::malformed(&graph_path, "nodes", found, expected, CONVERT_AGAIN)
        })?;
        let tokenizer = metadata.read_tokenizer(path)?;
        let embedding = metadata.read_optional(path, EMBEDDING)?;
        let rerank = metadata.read_optional(path, RERANK)?;
        let path = path.to_owned();
        let package =
            Self { path, metadata, graph, index, compiled, files, tokenizer, embedding, rerank };
        package.program()?;
        Ok(package)
    }

    /// The same package with another graph over the same tensors, in memory only.
    ///
    /// # Errors
    /// A sentence that names what does not fit.
    pub(crate) fn with_graph(mut self, graph: Graph) -> std::result::Result<Self, String> {
        self.compiled = compiled(&graph, &self.metadata, &self.index)?;
        Ok(Self { graph, ..self })
    }

    /// The program, checked.
    ///
    /// # Errors
    /// An operation that does not fit the values or tensors.
    pub fn program(&self) -> Result<omex_core::program::Program<'_>> {
        let Compiled { program, tensors, names } = &self.compiled;
        let space = 0..self.index.space();
        omex_core::program::Program::parse(program, tensors, space).map_err(|error| {
            let (field, found) = match error {
                omex_core::error::LoadError::Tensor(i) => {
                    (format!("tensor \"{}\"", names[i as usize].0), error.to_string())
                }
                _ => ("nodes".to_owned(), error.to_string()),
            };
            let expected = "operations that fit their values and tensors";
            Error::malformed(&self.path.join("graph.json"), field, found, expected, CONVERT_AGAIN)
        })
    }

    /// What the model's `config.json` says that it was converted from, or would say; none where no such
    /// file describes it, or it was converted before packages had it.
    ///
    /// # Errors
    /// A file that is damaged.
    pub fn hyperparameters(&self) -> Result<Option<Fields>> {
        self.metadata.read_optional(&self.path, HYPERPARAMETERS)
    }

    /// The compiled tokenizer, if the model has one.
    #[must_use]
    pub fn tokenizer_tables(&self) -> Option<&[u8]> {
        self.tokenizer.as_deref()
    }

    /// A preprocessor or formatter of a name, if the package has it.
    fn processor<T: DeserializeOwned>(
        &self,
        (folder, end): (&str, &str),
        name: &str,
        check: fn(&T, &Path) -> Result<()>,
    ) -> Result<Option<T>> {
        if !is_processor_name(name) {
            return Ok(None);
        }
        let file = format!("{folder}/{name}{end}");
        let settings = self.metadata.read_own(&self.path, &file)?;
        settings.iter().try_for_each(|settings| check(settings, &self.path.join(&file)))?;
        Ok(settings)
    }

    /// The file of weights with this name.
    ///
    /// # Errors
    /// None for a name that the index has.
    pub fn file(&self, name: &str) -> Result<&File> {
        let place = self.index.files.iter().position(|file| file.name == name);
        let file = place.and_then(|place| self.files.get(place)).map(|file| &**file);
        let missing = || Error::Usage(format!("{}: no file {name}", self.path.display()));
        file.ok_or_else(missing)
    }
}

/// A graph compiled over a package's tensors.
fn compiled(
    graph: &Graph,
    metadata: &Metadata,
    index: &WeightIndex,
) -> std::result::Result<Compiled, String> {
    let tensors = index.by_name();
    compile(graph, &metadata.tokens.eos, |name, plane| tensors.get(&(name, plane)).copied())
}

/// Times that a package is read anew because another took its place.
const MAX_READS: u32 = 100;

/// Reads a package or an image, and does so again if its name came to mean another one meanwhile:
/// what was read may be parts of both.
///
/// # Errors
/// Those of `read`.
pub(crate) fn steadily<T>(path: &Path, mut read: impl FnMut() -> Result<T>) -> Result<T> {
    // Folders that are moved get a new time, so one whose number is used again is another, too.
    let identity = || path.metadata().ok().map(|m| (m.dev(), m.ino(), m.ctime(), m.ctime_nsec()));
    let mut before = identity();
    for _ in 1..MAX_READS {
        let result = read();
        let after = identity();
        if before == after || matches!(result, Err(Error::Interrupted)) {
            return result;
        }
        before = after;
    }
    read()
}

/// What to do about a package that does not hold together.
pub(crate) const CONVERT_AGAIN: &str = "the package is damaged: convert the model again";

/// Reads a JSON file into a type.
///
/// # Errors
/// A file that can't be read or is too long, or JSON of another shape, with line and column.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse_json(path, &input::read(path, input::MAX_JSON_BYTES)?, &mut |_| {})
}

/// Reads a JSON file of a package, and reports the path of every field that the type does not know.
fn read_part<T: DeserializeOwned>(
    package: &Path,
    name: &str,
    unknown: &mut dyn FnMut(String),
) -> Result<T> {
    let text = input::read_part(package, name, input::MAX_JSON_BYTES)?;
    parse_json(&package.join(name), &text, unknown)
}

/// As [`read_json`], of a file that people write.
fn read_written<T: DeserializeOwned>(path: &Path) -> Result<T> {
    read_json(path).map_err(by_hand)
}

/// What is wrong with a file that people write, they correct.
fn by_hand(error: Error) -> Error {
    match error {
        Error::Malformed(mut malformed) => {
            malformed.remedy = "correct the file".to_owned();
            Error::Malformed(malformed)
        }
        error => error,
    }
}

fn parse_json<T: DeserializeOwned>(
    path: &Path,
    text: &[u8],
    unknown: &mut dyn FnMut(String),
) -> Result<T> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let value = serde_ignored::deserialize(tracked, |field| unknown(field.to_string()));
    value.and_then(|value| json.end().map(|()| value)).map_err(|error| {
        let field = format!("{} (line {}, column {})", track.path(), error.line(), error.column());
        Error::malformed(path, field, error.to_string(), "JSON as in docs/format.md", CONVERT_AGAIN)
    })
}

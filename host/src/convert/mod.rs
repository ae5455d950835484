//! Other programs' models into packages.

mod calibration;
mod chat;
mod check;
mod embedding;
mod ends;
mod found;
mod fuse;
mod identity;
mod job;
mod options;
mod partial;
mod planned;
mod range;
mod rerank;
mod room;
mod rows;
mod settings;
mod told;
mod unrounded;
mod weights;
mod writing;

use crate::arch::{self, Blueprint, Role, TensorPlan};
use crate::compile::{Compiled, compile};
use crate::durable::{link, put_in_place};
use crate::import::{Container, TokenizerSource};
use crate::package::{
    Architecture, CHAT_FILE, EMBEDDING, HYPERPARAMETERS, Metadata, OMEX_VERSION, Package, RERANK,
    TEXT_PREPROCESSOR, TokenIds, WeightIndex,
};
use crate::quantize::Precision;
use crate::tokenizer::Spec;
use crate::{Error, Result};
use calibration::Calibrator;
pub use check::{Checked, Comparison, check};
pub(crate) use embedding::POOLINGS;
use ends::end_tokens;
pub use found::{CONTEXT, Found, Outlook, best_precision, found, outlook};
use identity::Identity;
use job::{Job, tables};
use omex_core::quant::Format;
pub use options::{Calibration, ConvertOptions, SELF_CALIBRATED, TokenizerChoice};
pub use partial::partial_path;
use partial::{Partial, Stage};
use planned::Planned;
use room::Room;
#[cfg(test)]
pub(crate) use rows::read_vector;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
pub use told::{Note, Told};
use weights::WeightLayout;
use writing::Writing;

/// Converts a model into a package at `output`, which appears whole or not at all.
/// `progress` is called with the bytes of weights that are written and those in all.
///
/// Until then it lies at [`partial_path`]. What is finished there stays when the process is killed, or
/// after [`Error::Io`], and the next conversion of the same files with the same settings goes on with it.
///
/// # Errors
/// A source that can't be read or that no architecture here computes, an output that exists or can't be written,
/// or that another conversion is writing; [`Error::Interrupted`].
pub fn convert(
    source: &dyn Container,
    source_format: &str,
    name: &str,
    output: &Path,
    options: &ConvertOptions<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Package> {
    check_output(output, options.force)?;
    let blueprint = blueprint(source, options)?;
    convert_drawn(source, blueprint, source_format, name, output, options, progress)
}

/// As [`convert`], of a model whose blueprint there is already.
pub(crate) fn convert_drawn(
    source: &dyn Container,
    blueprint: Blueprint,
    source_format: &str,
    name: &str,
    output: &Path,
    options: &ConvertOptions<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Package> {
    check_output(output, options.force)?;
    let job = Job { source, blueprint: &blueprint, source_format, name, options };
    let layout = WeightLayout::new(source, &blueprint, options.precision, options.residual);
    let room = job.room(&layout)?;
    let identity = Identity::new(source, options)?;
    let mut partial = Partial::open(output, options.wait, &options.cancel)?;
    partial.begin(&identity, options.told)?;
    match job.run(&layout, room, &partial, output, progress) {
        Ok(()) => {
            partial.remove("remove what is left beside the new package, which is in place")?
        }
        Err(error @ Error::Io { .. }) if partial.is_worth_keeping() => return Err(error),
        Err(error) => {
            // The error that is reported is the first one.
            let _ = partial.remove("remove");
            return Err(error);
        }
    }
    Package::open(output)
}

/// What a model computes in texts as long as is asked for.
fn blueprint(source: &dyn Container, options: &ConvertOptions<'_>) -> Result<Blueprint> {
    as_asked(arch::blueprint(source)?, source, options)
}

/// The same of a blueprint.
fn as_asked(
    blueprint: Blueprint,
    source: &dyn Container,
    options: &ConvertOptions<'_>,
) -> Result<Blueprint> {
    if !options.long_context {
        return Ok(blueprint);
    }
    let context = blueprint.graph.context_length;
    blueprint.lengthened().ok_or_else(|| {
        let found = format!("no factors for texts longer than its context of {context} tokens");
        let (expected, remedy) = ("those of a LongRoPE", "convert it without --long-context");
        Error::malformed(source.path(), "rope_scaling", found, expected, remedy)
    })
}

/// Refuses [`ConvertOptions::memory`] that a conversion can't do with.
///
/// # Errors
/// [`Error::Room`], or a model that no architecture here computes.
pub fn check_memory(source: &dyn Container, options: &ConvertOptions<'_>) -> Result<()> {
    let blueprint = blueprint(source, options)?;
    let job = Job { source, blueprint: &blueprint, source_format: "", name: "", options };
    let layout = WeightLayout::new(source, &blueprint, options.precision, options.residual);
    job.room(&layout).map(|_| ())
}

/// What a conversion without calibration would make of a model, without reading its weights: the
/// program, and an index whose checksums are zeros.
///
/// # Errors
/// A model that no architecture here computes, or that no program can be made of.
pub fn outline(
    source: &dyn Container,
    precision: Option<Precision>,
    residual: bool,
) -> Result<(Compiled, WeightIndex)> {
    let blueprint = arch::blueprint(source)?;
    let layout = WeightLayout::new(source, &blueprint, precision, residual);
    let index = layout.index();
    let tensors = index.by_name();
    let find = |name: &str, plane| tensors.get(&(name, plane)).copied();
    let compiled = compile(&layout.graph, &blueprint.eos, find).map_err(Error::Usage)?;
    Ok((compiled, index))
}

/// The tensors that a package of this model may have, by name: those of the blueprint, and those that
/// some of them become where they have one format.
pub(crate) fn plans(blueprint: &Blueprint) -> BTreeMap<String, TensorPlan> {
    let planned = |plan: &TensorPlan| {
        let format = if plan.role == Role::Vector { Format::Vector } else { Format::F32 };
        Planned { plan: plan.clone(), format, plane: 0 }
    };
    let files = blueprint.files.iter().map(|file| file.iter().map(planned).collect());
    let (mut graph, mut files) = (blueprint.graph.clone(), files.collect::<Vec<_>>());
    fuse::fuse(&mut graph, &mut files);
    let fused = files.into_iter().flatten().map(|tensor| tensor.plan);
    blueprint.tensors().cloned().chain(fused).map(|plan| (plan.name.clone(), plan)).collect()
}

impl Job<'_> {
    /// What it may take of memory, if that is enough.
    fn room(&self, layout: &WeightLayout) -> Result<Room> {
        let calibrating = match self.options.memory {
            Some(_) => calibration::least(self, layout)?,
            None => 0,
        };
        Room::new(self, layout, calibrating)
    }

    /// Makes the package, and puts it in its place.
    fn run(
        &self,
        layout: &WeightLayout,
        room: Room,
        partial: &Partial,
        output: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let mut calibrator = Calibrator::new(self, layout, room, partial)?;
        let stage = partial.stage();
        self.write(layout, room, Some(&mut calibrator), &stage, progress)?;
        Package::open(&stage.package)?;
        put_in_place(&stage.package, output, &partial.replaced())
    }

    /// Writes a package.
    fn write(
        &self,
        layout: &WeightLayout,
        room: Room,
        calibrator: Option<&mut Calibrator<'_>>,
        stage: &Stage,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let mut step = |done, all| {
            progress(done, all);
            self.options.cancel.check()
        };
        let weights = Writing::begin(layout, stage, &mut step)?;
        let path = stage.package.as_path();
        let vocabulary = self.blueprint.graph.vocab_size as usize;
        let spec = tokenizer(self.source, vocabulary, self.options.tokenizer)?;
        if let Some(spec) = &spec {
            spec.write_package(&path.join("tokenizer"))?;
        }
        if let Some(settings) = embedding::embedding_settings(self.source)? {
            write_within(path, EMBEDDING, &settings)?;
            if let Some(settings) = embedding::preprocessor(self.source)? {
                write_within(path, TEXT_PREPROCESSOR, &settings)?;
            }
        }
        let rerank = rerank::rerank_settings(self.source, self.blueprint, spec.as_ref())?;
        if let Some(settings) = rerank {
            write_within(path, RERANK, &settings)?;
        }
        let ends = end_tokens(self.source, &self.blueprint.eos, spec.as_ref(), vocabulary as u32)?;
        let chat = chat::chat(self.source, spec.as_ref())?;
        drop(spec);
        let told = (room, self.options.told);
        let index = weights.finish(self.source, calibrator, told, &mut step)?;
        let file = path.join("graph.json");
        let text = layout.graph.to_json().map_err(|e| Error::io(&file, "write", e.into()))?;
        std::fs::write(&file, text).map_err(|e| Error::io(&file, "write", e))?;
        write_json(&path.join("weights/quantization.json"), &index)?;
        if let Some(chat) = chat {
            write_json(&path.join(CHAT_FILE), &chat)?;
        }
        if !self.blueprint.hyperparameters.is_empty() {
            write_json(&path.join(HYPERPARAMETERS), &self.blueprint.hyperparameters)?;
        }
        metadata(self.blueprint, ends, self.source_format, self.name, layout).write(path)
    }
}

/// Refuses a place that can't take a package: a package that is there is replaced if that is asked
/// for, an empty folder is filled, and anything else stays.
///
/// # Errors
/// Such a place, with what to do.
pub fn check_output(output: &Path, force: bool) -> Result<()> {
    let Ok(found) = output.symlink_metadata() else { return Ok(()) };
    if found.is_symlink() {
        return Err(link(output));
    }
    let mut entries = std::fs::read_dir(output).into_iter().flatten();
    if found.is_dir() && entries.next().is_none() {
        return Ok(());
    }
    let shown = output.display();
    if !output.join("metadata.json").is_file() {
        let remedy = "it is not replaced: name a new folder";
        return Err(Error::Usage(format!(
            "{shown}: exists already, and is not a package: {remedy}"
        )));
    }
    if force {
        return Ok(());
    }
    Err(Error::Usage(format!("{shown}: exists already; use --force to replace it")))
}

fn tokenizer(
    source: &dyn Container,
    vocabulary: usize,
    choice: TokenizerChoice<'_>,
) -> Result<Option<Spec>> {
    let from_file = |path: &Path| match path.extension().and_then(|e| e.to_str()) {
        Some("bin") => Spec::from_llama2c(path, vocabulary),
        Some("model" | "tiktoken") => Spec::from_model(path),
        Some("txt") => Spec::from_vocab_txt(path),
        _ => Spec::from_hf_json(path),
    };
    let own = match choice {
        TokenizerChoice::Own => source.tokenizer(),
        TokenizerChoice::File(_) | TokenizerChoice::None => None,
    };
    let spec = match (choice, own) {
        (TokenizerChoice::File(path), _) => from_file(path)?,
        (_, Some(TokenizerSource::HuggingFace(path))) => Spec::from_hf_json(path)?,
        (_, Some(TokenizerSource::Vocabulary(path))) => Spec::from_vocab_txt(path)?,
        (_, Some(TokenizerSource::Model(path))) => Spec::from_model(path)?,
        (_, Some(TokenizerSource::Llama2c(path))) => Spec::from_llama2c(path, vocabulary)?,
        (_, Some(TokenizerSource::Gguf(vocabulary))) => {
            Spec::from_gguf(Path::new("tokenizer.ggml"), vocabulary.clone())?
        }
        (_, None) => return Ok(None),
    };
    // Added tokens may lie beyond the embedding: a prompt that has one is refused, others are not.
    let added: BTreeSet<u32> = spec.added.iter().map(|token| token.id).collect();
    let surplus = (0..spec.pieces.len() as u32).skip(vocabulary);
    let always = spec.before.iter().chain(&spec.after).any(|id| *id as usize >= vocabulary);
    if always || surplus.into_iter().any(|id| !added.contains(&id)) {
        let found = format!("{} tokens", spec.pieces.len());
        let expected = format!("at most the model's {vocabulary}, but for added tokens");
        return Err(Error::malformed(
            &spec.origin,
            "vocabulary",
            found,
            expected,
            "give the model's own tokenizer",
        ));
    }
    Ok(Some(spec))
}

/// Writes a file of a package, and the folder that it lies in.
fn write_within(package: &Path, name: &str, value: &impl serde::Serialize) -> Result<()> {
    let file = package.join(name);
    let folder = file.parent().unwrap_or(package);
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
    write_json(&file, value)
}

pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|e| Error::io(path, "write", e.into()))?;
    text.push('\n');
    std::fs::write(path, text).map_err(|e| Error::io(path, "write", e))
}

fn metadata(
    blueprint: &Blueprint,
    eos: Vec<u32>,
    source_format: &str,
    name: &str,
    layout: &WeightLayout,
) -> Metadata {
    let sizes = blueprint.sizes;
    Metadata {
        omex_version: OMEX_VERSION.into(),
        name: name.into(),
        model_architecture: Architecture {
            family: blueprint.family.into(),
            parameters: blueprint.parameters(),
            quantization: precisions(layout),
            hidden_size: sizes.hidden,
            intermediate_size: sizes.intermediate,
            layers: sizes.layers,
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            head_width: sizes.head_width,
        },
        source_format: source_format.into(),
        tokens: TokenIds { bos: blueprint.bos, eos },
        files: BTreeMap::new(),
        crc32c: String::new(),
    }
}

/// The precisions of the matrices, that of most numbers first.
fn precisions(layout: &WeightLayout) -> String {
    let tensors: Vec<_> = layout.files.iter().flatten().collect();
    let residuals: BTreeSet<_> =
        tensors.iter().filter(|t| t.plane == 1).map(|t| t.plan.name.as_str()).collect();
    let mut weights: BTreeMap<String, u64> = BTreeMap::new();
    for tensor in tensors.iter().filter(|t| t.plane == 0 && t.format != Format::Vector) {
        let residual = if residuals.contains(tensor.plan.name.as_str()) { "+4" } else { "" };
        let precision = format!("{:?}{residual}", tensor.format).to_lowercase();
        *weights.entry(precision).or_default() +=
            u64::from(tensor.plan.rows) * u64::from(tensor.plan.columns);
    }
    let mut precisions: Vec<_> = weights.into_iter().collect();
    precisions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let precisions: Vec<_> = precisions.into_iter().map(|(precision, _)| precision).collect();
    precisions.join("+")
}

//! Models by names of a hub: `hf:ORGANISATION/NAME`, where a package is expected.

use super::Need;
use super::convert::{Quantization, convert_plainly};
use crate::{bytes, output, signals};
use omex::forecast::{Forecast, forecast};
use omex::hub::{Found, Hub, Name, Options};
use omex::plan::MemoryPlan;
use omex::profile::Profile;
use omex::quantize::Precision;
use omex::session::{SessionOptions, Tables};
use omex::synth::tables_of_config;
use omex::system::{cache_folder, cores};
use omex::{Error, Result, memory};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How a model is named that is on a hub.
const PREFIX: &str = "hf:";

/// The digits of a commit that are shown.
const COMMIT_DIGITS: usize = 12;

/// The name on a hub, if it is one.
pub(super) fn name(model: &Path) -> Result<Option<Name>> {
    let text = model.to_str().and_then(|text| text.strip_prefix(PREFIX));
    text.map(Name::from_str).transpose()
}

/// As a value of an option: with or without the prefix.
pub(super) fn parse_name(text: &str) -> Result<Name, String> {
    Name::from_str(text.strip_prefix(PREFIX).unwrap_or(text)).map_err(|error| error.to_string())
}

/// The hub that the environment names.
pub(super) fn open(offline: bool) -> Result<Hub> {
    let mut options = Options::of_environment(signals::cancel())?;
    options.offline |= offline;
    Hub::new(options)
}

/// Puts what a command needs in the place of a name on a hub, got and converted where that was not done
/// before.
pub(crate) fn make_local(model: &mut PathBuf, need: Need, offline: bool) -> Result<()> {
    let Some(name) = name(model)? else { return Ok(()) };
    let hub = open(offline)?;
    let commit = hub.cached_commit(&name);
    let known = commit.map(|commit| package(&name, &commit)).transpose()?;
    let known = known.filter(|package| need == Need::Package && package.exists());
    *model = match (known, need) {
        (Some(package), _) => package,
        (None, Need::Package) => got(&hub, &name)?,
        (None, Need::Source) => {
            let found = find(&hub, &name)?;
            output::note(&describe(&name, &found));
            fetch(&found)?
        }
        (None, Need::Config) => find(&hub, &name)?.config().ok_or_else(|| {
            let remedy = "get it (omex pull), convert it (omex convert), and plan the package";
            Error::Usage(format!("{name}: has no config.json to plan it by: {remedy}"))
        })?,
    };
    Ok(())
}

/// Finds a model; where the hub does not help, all of one that is here.
fn find<'h>(hub: &'h Hub, name: &Name) -> Result<Found<'h>> {
    hub.find(name).or_else(|error| match (&error, hub.find_here(name)) {
        (Error::Hub { .. }, Ok(found)) => {
            output::note(&format!("note: {error}; what is in the cache is used"));
            Ok(found)
        }
        _ => Err(error),
    })
}

fn got(hub: &Hub, name: &Name) -> Result<PathBuf> {
    let found = find(hub, name)?;
    output::note(&describe(name, &found));
    let mut quantization = None;
    if let Some(config) = found.config() {
        let options = SessionOptions { cancel: signals::cancel(), ..SessionOptions::default() };
        let best = best(&config, &options)?;
        output::note(&Outlook::of(&config, best, &options, true)?.text());
        quantization = Some(best);
    }
    let source = fetch(&found)?;
    let package = package(name, found.commit())?;
    convert_plainly(&source, &package, quantization)?;
    Ok(package)
}

/// Where the package of a model lies.
pub(super) fn package(name: &Name, commit: &str) -> Result<PathBuf> {
    let caches = cache_folder().ok_or_else(|| {
        Error::Usage("no folder for the converted model: set XDG_CACHE_HOME".to_owned())
    })?;
    let folder = caches.join("models");
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, "create", e))?;
    let file = name.file.iter().map(|file| format!("--{}", file.replace('/', "--")));
    let repository = name.repository.replace('/', "--");
    let file = file.collect::<String>();
    Ok(folder.join(format!("{repository}@{}{file}.omex", short(commit))))
}

fn short(commit: &str) -> &str {
    commit.get(..COMMIT_DIGITS).unwrap_or(commit)
}

/// Gets what is missing, with a bar.
pub(super) fn fetch(found: &Found<'_>) -> Result<PathBuf> {
    let bar = output::progress("getting", found.bytes(), true);
    let path = found.fetch(&mut |progress| bar.set_position(progress.done));
    bar.finish_and_clear();
    path
}

/// What was found.
pub(super) fn describe(name: &Name, found: &Found<'_>) -> String {
    let (files, all) = (found.files().len(), found.bytes());
    let here = all - found.missing_bytes();
    let (commit, all, here) = (short(found.commit()), bytes::show(all), bytes::show(here));
    format!("{name} at {commit}: {files} files, {all}, {here} of it here")
}

/// The best precision for a model that is to run in some memory: int8, unless that holds int4 only.
pub(super) fn best(config: &Path, options: &SessionOptions) -> Result<Quantization> {
    let options =
        SessionOptions { memory: options.memory.or_else(memory::usable), ..options.clone() };
    let plan = tables_of_config(config, Precision::Int8, false)?.plan(&options);
    let fits = plan.is_ok_and(|plan| plan.streamed_bytes == 0);
    Ok((if fits { Precision::Int8 } else { Precision::Int4 }, false))
}

/// A precision as metadata call it.
pub(super) fn shown((precision, residual): Quantization) -> String {
    let second = if residual { "+4" } else { "" };
    format!("{precision:?}{second}").to_lowercase()
}

/// What can be done with a model that is not here yet.
pub(super) struct Outlook {
    quantization: Quantization,
    pub(super) plan: MemoryPlan,
    /// `None` for another machine.
    pub(super) forecast: Option<Forecast>,
}

impl Outlook {
    /// By its hyperparameters; on this machine, or on one of which only the memory is known.
    pub(super) fn of(
        config: &Path,
        quantization: Quantization,
        options: &SessionOptions,
        is_here: bool,
    ) -> Result<Self> {
        let tables = tables_of_config(config, quantization.0, quantization.1)?;
        let plan = tables.plan(options)?;
        let forecast = if is_here { speed(&tables, &plan, options)? } else { None };
        Ok(Self { quantization, plan, forecast })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let planned = bytes::show(self.plan.total);
        let read = match self.plan.streamed_bytes {
            0 => String::new(),
            bytes => format!(", {} read from storage for each token", bytes::show(bytes)),
        };
        let speed = self.forecast.as_ref().map(in_words).unwrap_or_default();
        format!("as {}: {planned} of memory planned{read}{speed}", shown(self.quantization))
    }
}

fn speed(tables: &Tables, plan: &MemoryPlan, options: &SessionOptions) -> Result<Option<Forecast>> {
    if !Profile::is_kept() {
        output::note("note: measuring this machine, which takes up to a minute, once");
    }
    let profile = Profile::of_this_machine(false, &options.cancel)?;
    let threads = options.threads.unwrap_or_else(cores);
    Ok(forecast(&profile, &tables.program()?, plan, threads))
}

fn in_words(forecast: &Forecast) -> String {
    let Forecast { decode_tok_s, decode_limit, prompt_tok_s, prompt_tokens, .. } = forecast;
    format!(
        "; decode {decode_tok_s:.2} tok/s, limited by {decode_limit}; a prompt of {prompt_tokens} tokens \
         at {prompt_tok_s:.1} tok/s"
    )
}

//! `omex` without a command: the main job, on the model that ships with it.

use super::convert;
use super::run::run;
use crate::{bytes, output, signals};
use omex::draft::Drafting;
use omex::generate::Request;
use omex::session::{Session, SessionOptions};
use omex::system::cache_folder;
use omex::{Error, Result};
use omex_core::sample::Sampling;
use std::path::{Path, PathBuf};
use std::time::Instant;

macro_rules! shipped {
    ($name:literal) => {
        ($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-stories/", $name)))
    };
}

/// The model's files: the command has them in it, since it may be far from the repository.
const MODEL: [(&str, &[u8]); 3] =
    [shipped!("config.json"), shipped!("model.safetensors"), shipped!("tokenizer.json")];

const PROMPT: &str = "Once upon a time";

pub(crate) fn main() -> Result<()> {
    let package = place()?;
    let start = Instant::now();
    convert_model(&package)?;
    let mut session = Session::open(
        &package,
        &SessionOptions { cancel: signals::cancel(), ..SessionOptions::default() },
    )?;
    let plan = *session.plan();
    output::note(&format!(
        "models/tiny-stories -> {}: {} of weights, {} planned in all\n",
        package.display(),
        bytes::show(plan.bytes.weights),
        bytes::show(plan.total)
    ));
    let ids = session.encode(PROMPT)?;
    let sampling = Sampling::GREEDY;
    let cancel = signals::cancel();
    let request = Request {
        saved: None,
        prompt: &ids,
        max_tokens: 256,
        sampling,
        mask: None,
        stop: &[],
        cancel,
    };
    output::text(PROMPT)?;
    let plain = Drafting::new(None, 0, &session);
    let generated = run(&mut session, request, plain, start, &mut |_, text| output::text(text))?;
    output::text("\n")?;
    let omex = command();
    output::note(&format!(
        "\n{} tokens. Try next:\n{}  {omex} convert --help",
        generated.ids.len(),
        examples(omex, &package)
    ));
    Ok(())
}

/// How the command is typed inside of the repository, and elsewhere.
fn command() -> &'static str {
    if in_repository() { "cargo run --release --" } else { "omex" }
}

fn in_repository() -> bool {
    Path::new("models/tiny-stories").is_dir()
}

/// Where the package goes: beside what cargo builds, or where this user's programs keep what they can
/// make again.
fn place() -> Result<PathBuf> {
    if in_repository() {
        return Ok(PathBuf::from("target/tiny-stories.omex"));
    }
    let caches = cache_folder().ok_or_else(|| {
        Error::Usage("no folder for the model that ships: set XDG_CACHE_HOME".to_owned())
    })?;
    Ok(caches.join("tiny-stories.omex"))
}

/// Converts the model that this program has in it.
fn convert_model(package: &Path) -> Result<()> {
    let parent = package.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|e| Error::io(parent, "create", e))?;
    let folder =
        tempfile::tempdir().map_err(|e| Error::io(&std::env::temp_dir(), "write into", e))?;
    // The package gets the name of the folder.
    let source = folder.path().join("tiny-stories");
    std::fs::create_dir(&source).map_err(|e| Error::io(&source, "create", e))?;
    for (name, content) in MODEL {
        let file = source.join(name);
        std::fs::write(&file, content).map_err(|e| Error::io(&file, "write", e))?;
    }
    convert::convert_plainly(&source, package, None)
}

/// What to try next.
fn examples(omex: &str, package: &Path) -> String {
    let (model, image) = (package.display(), package.with_file_name("card.img"));
    let mut text = format!(
        "  {omex} run {model} \"The robot\" --temperature 0.8 --stats\n  \
         {omex} plan {model} --memory 1MB\n  \
         {omex} pack {model} --ram 64K -o {}\n",
        image.display()
    );
    if in_repository() {
        let board = "cargo xtask board lm3s6965evb target/card.img --prompt \"The robot\"";
        text.push_str(&format!("  {board}\n"));
    }
    text
}

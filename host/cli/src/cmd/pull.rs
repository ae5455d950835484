//! `omex pull`.

use super::hub::{self, Outlook, describe};
use crate::{output, signals};
use omex::hub::{Found, Name};
use omex::quantize::Precision;
use omex::session::SessionOptions;
use omex::{Error, Result};
use serde::Serialize;
use std::path::PathBuf;

/// Get a model from a hub that speaks Hugging Face's protocol.
///
/// It lies where Hugging Face's programs keep theirs, and is shared with them. A download that was
/// interrupted goes on where it was.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex pull Qwen/Qwen3-0.6B
  omex pull Qwen/Qwen3-0.6B --dry-run (how large it is, and how fast it would be here)
  omex pull bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_0
  omex pull HuggingFaceTB/SmolLM2-135M@main:config.json
  omex run hf:Qwen/Qwen3-0.6B \"Once upon a time\" (gets and converts what is not here)

HF_ENDPOINT names another hub, HF_TOKEN who asks, HF_HUB_CACHE and HF_HOME where models lie.
HF_HUB_OFFLINE=1 is --offline. SSL_CERT_FILE names certificates to trust instead of Mozilla's, and
HTTPS_PROXY, ALL_PROXY and NO_PROXY a way out of a network.")]
pub(crate) struct Args {
    /// ORGANISATION/NAME, perhaps with @REVISION, perhaps with :FILE or a part of a GGUF file's name
    #[arg(value_name = "REPO[@REVISION][:FILE]", value_parser = hub::parse_name)]
    model: Name,
    /// Say what there is and what this machine can do with it, and get no more than its config.json
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output<'o> {
    /// Lossy, where a path is no UTF-8; `None` if it was not got.
    path: Option<String>,
    repository: &'o str,
    commit: &'o str,
    files: Vec<&'o str>,
    bytes: u64,
    /// Of these, what was to come when the command began.
    missing_bytes: u64,
    /// At int8, here; `None` where that is unknown.
    decode_tok_s: Option<f64>,
    planned_bytes: Option<u64>,
}

pub(crate) fn main(args: &Args, offline: bool) -> Result<()> {
    let hub = hub::open(offline)?;
    let found = hub.find(&args.model)?;
    output::note(&describe(&args.model, &found));
    let outlook = outlook(&found)?;
    if let Some(outlook) = &outlook {
        output::note(&outlook.text());
    }
    let missing_bytes = found.missing_bytes();
    let path = if args.dry_run { None } else { Some(hub::fetch(&found)?) };
    let path = path.map(|path: PathBuf| path.display().to_string());
    if args.json {
        let files = found.files().iter().map(|file| file.name.as_str()).collect();
        let forecast = outlook.as_ref().and_then(|outlook| outlook.forecast.as_ref());
        return output::json(&Output {
            path,
            repository: &args.model.repository,
            commit: found.commit(),
            files,
            bytes: found.bytes(),
            missing_bytes,
            decode_tok_s: forecast.map(|forecast| forecast.decode_tok_s),
            planned_bytes: outlook.as_ref().map(|outlook| outlook.plan.total),
        });
    }
    path.map_or(Ok(()), |path| output::text(&format!("{path}\n")))
}

/// What this machine can do with it; `None` where its hyperparameters do not say. A model that can't be
/// run here can be wanted all the same.
fn outlook(found: &Found<'_>) -> Result<Option<Outlook>> {
    let Some(config) = found.config() else { return Ok(None) };
    let options = SessionOptions { cancel: signals::cancel(), ..SessionOptions::default() };
    match Outlook::of(&config, (Precision::Int8, false), &options, true) {
        Ok(outlook) => Ok(Some(outlook)),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(error) => {
            output::note(&format!("note: no forecast: {error}"));
            Ok(None)
        }
    }
}

//! `omex validate`.

use crate::{bytes, output, signals};
use omex::package::renew_checksums;
use omex::package::validate::{Report, validate};
use omex::{Error, Result};
use std::path::PathBuf;

/// Check every file, checksum and cross-reference of a package or image.
///
/// Exit code 0 if it is valid, 1 if not.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex validate tinyllama.omex
  omex validate card.img --json
  omex validate tinyllama.omex --renew-checksums")]
pub(crate) struct Args {
    /// A package, or a flash image
    pub(crate) path: PathBuf,
    /// Compute the checksums of a package's JSON files and tokenizer anew, where they were changed
    /// on purpose
    #[arg(long)]
    renew_checksums: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    if args.renew_checksums {
        renew_checksums(&args.path)?;
    }
    let cancel = signals::cancel();
    let bar = output::progress("checking", 0, true);
    let mut progress = |bytes| {
        bar.inc_length(bytes);
        bar.inc(bytes);
    };
    let report = match args.path.is_dir() {
        true => validate(&args.path, &cancel, &mut progress)?,
        false => omex::pack::validate(&args.path, &cancel)?,
    };
    bar.finish_and_clear();
    if args.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    match report.problems.len() {
        0 => Ok(()),
        count => Err(Error::Invalid { path: args.path.clone(), count }),
    }
}

fn print(report: &Report) -> Result<()> {
    report.notes.iter().for_each(|note| output::note(&format!("note: {note}")));
    report.problems.iter().for_each(|problem| output::note(&format!("problem: {problem}")));
    if report.problems.is_empty() {
        let size = bytes::show(report.bytes);
        output::text(&format!("valid: {} files, {size} of weights checked\n", report.files))?;
    }
    Ok(())
}

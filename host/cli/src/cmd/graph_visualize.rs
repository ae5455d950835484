//! `omex graph-visualize`.

use super::RunArgs;
use super::draft::with_drafts;
use super::model::ModelArgs;
use crate::output;
use omex::picture::Picture;
use omex::profile::Profile;
use omex::{Result, durable};
use std::path::PathBuf;

/// Draw what a model computes: each operation with its weights' bytes and formats, its multiply-adds
/// (MACs), and the part of the time that it takes.
///
/// For a pass of one token. Times are forecast from what omex profile has measured on this machine, or
/// from --profile; without either there are none. In SVG, the first of equal layers is drawn in full,
/// and each other is a line; a page (html) holds all, folds them, and finds words.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex graph-visualize tinyllama.omex -o tinyllama.html
  omex graph-visualize tinyllama.omex --memory 200MB -o tinyllama.svg
  omex graph-visualize tinyllama.omex --format dot | dot -Tpdf -o tinyllama.pdf
  omex graph-visualize config.json --quantization int4 -o planned.html")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to write [default: as the file's name ends, or svg]
    #[arg(long, value_enum, value_name = "svg|html|dot", hide_possible_values = true)]
    format: Option<Format>,
    /// What a machine can do, as its omex profile --json says [default: this machine's, if it was
    /// measured]
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// Print the graph as one JSON object, besides what goes to a file
    #[arg(long)]
    json: bool,
}

/// How a graph is written.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Svg,
    Html,
    Dot,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let tables = args.model.tables()?;
    let options = with_drafts(&tables, args.run.options(1), None)?;
    let plan = tables.plan(&options)?;
    let profile = args.profile()?;
    let threads = match (&args.profile, &profile) {
        (Some(_), Some(there)) => options.threads.unwrap_or(there.cores),
        _ => args.run.threads(),
    };
    let title = args.model.given().display().to_string();
    let picture = Picture::new(&title, &tables, profile.as_ref(), &plan, threads)?;
    if let Some(file) = &args.output {
        durable::write(file, args.draw(&picture).as_bytes())?;
    }
    match (args.json, &args.output) {
        (true, _) => output::json(&picture),
        (false, None) => output::text(&args.draw(&picture)),
        (false, Some(_)) => Ok(()),
    }
}

impl Args {
    fn draw(&self, picture: &Picture) -> String {
        let ending = self.output.as_ref().and_then(|file| file.extension()?.to_str());
        let format = self.format.unwrap_or(match ending {
            Some("html" | "htm") => Format::Html,
            Some("dot" | "gv") => Format::Dot,
            _ => Format::Svg,
        });
        match format {
            Format::Svg => picture.svg(),
            Format::Html => picture.html(),
            Format::Dot => picture.dot(),
        }
    }

    /// What a machine can do, without measuring it.
    fn profile(&self) -> Result<Option<Profile>> {
        match &self.profile {
            Some(file) => Profile::read(file).map(Some),
            None => Ok(Profile::of_this_machine_if_kept()),
        }
    }
}

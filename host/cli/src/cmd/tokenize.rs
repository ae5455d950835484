//! `omex tokenize`.

use super::parse_ids;
use super::text::{TextArgs, longest};
use crate::{bytes, output, standard_input};
use omex::Result;
use omex::session::Tables;
use serde::Serialize;
use std::path::PathBuf;

/// Turn text into token ids, or ids into text.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex tokenize stories.omex \"Once upon a time\"
  omex tokenize stories.omex --ids 1,403,407 --json")]
pub(crate) struct Args {
    /// A package, or a flash image
    pub(crate) model: PathBuf,
    /// The text; - reads it from standard input
    #[arg(required_unless_present = "ids", default_value = "", hide_default_value = true)]
    text: String,
    /// Token ids to turn into text
    #[arg(long, value_name = "1,2,3", value_parser = parse_ids, conflicts_with = "text")]
    ids: Option<::std::vec::Vec<u32>>,
    #[command(flatten)]
    special: TextArgs,
    /// Memory to stay within: bytes, or with KB, MB, GB (powers of 1000), KiB, MiB, GiB (of 1024)
    #[arg(long, value_name = "SIZE", value_parser = bytes::parse)]
    memory: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    ids: Vec<u32>,
    text: String,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let (tables, memory) = (Tables::open(&args.model)?, args.memory);
    let encode = |text: &str| args.special.encode(memory, &tables, text, true);
    let ids = match &args.ids {
        Some(ids) => ids.clone(),
        None if args.text == "-" => encode(&standard_input::read(longest(memory))?)?,
        None => encode(&args.text)?,
    };
    if args.json {
        let text = tables.decode(&ids)?;
        return output::json(&Output { ids, text });
    }
    match args.ids {
        Some(_) => output::text(&format!("{}\n", tables.decode(&ids)?)),
        None => output::ids(&ids),
    }
}

//! `omex` without a command: the main job, on the model that ships in the repository.

use super::convert;
use super::run::{Request, generate};
use crate::cli::{bytes, output};
use omex::draft::Drafting;
use omex::session::{Options, Session};
use omex::{Error, Result};
use omex_core::sample::Sampling;
use std::path::{Path, PathBuf};
use std::time::Instant;

const PROMPT: &str = "Once upon a time";

pub(crate) fn main() -> Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let places = [PathBuf::from("models/tiny-stories"), repository.join("models/tiny-stories")];
    let Some(source) = places.iter().find(|p| p.is_dir()) else {
        let message = "models/tiny-stories is not here: run this inside of the repository, or see omex --help";
        return Err(Error::Usage(message.into()));
    };
    let package = source.with_file_name("../target/tiny-stories.omex");
    let start = Instant::now();
    convert::convert_plainly(source, &package)?;
    let mut session = Session::open(&package, &Options::default())?;
    let plan = *session.plan();
    output::note(&format!(
        "{} -> target/tiny-stories.omex: {} of weights, {} planned in all\n",
        source.display(),
        bytes::show(plan.bytes.weights),
        bytes::show(plan.total)
    ));
    let ids = session.encode(PROMPT)?;
    let sampling = Sampling::GREEDY;
    let request = Request { saved: None, prompt: &ids, max_tokens: 256, sampling, start };
    output::text(PROMPT)?;
    let plain = Drafting::new(None, 0, &session);
    let generated = generate(&mut session, request, plain, &mut output::text)?;
    output::text("\n")?;
    output::note(&format!(
        "\n{} tokens. Try next:\n  \
         cargo run --release -- run target/tiny-stories.omex \"The robot\" --temperature 0.8 --stats\n  \
         cargo run --release -- plan target/tiny-stories.omex --memory 1MB\n  \
         cargo run --release -- pack target/tiny-stories.omex --ram 64K -o target/card.img\n  \
         cargo xtask board lm3s6965evb target/card.img --prompt \"The robot\"\n  \
         cargo run --release -- convert --help",
        generated.ids.len()
    ));
    Ok(())
}

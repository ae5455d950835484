//! `omex chat`: which way the arguments lead.

pub(super) mod answer;
mod args;
mod history;
mod lines;
pub(super) mod prompt;
mod talk;

pub(crate) use args::Args;

use crate::output;
use omex::{Error, Result};

pub(crate) fn main(args: &Args) -> Result<()> {
    match (&args.model, &args.messages) {
        (model, Some(messages)) if args.render => {
            let chat = args.template.open(model.as_deref())?;
            let messages = history::read(messages)?;
            output::text(&chat.render(messages, !args.no_generation_prompt)?)
        }
        (Some(model), _) => talk::talk(args, model),
        (None, _) => Err(Error::Usage(
            "a template alone can only be rendered: add --render and --messages FILE, or name a package"
                .into(),
        )),
    }
}

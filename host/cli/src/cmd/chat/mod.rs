//! `omex chat`: the arguments, and which way they lead.

mod answer;
mod history;
mod lines;
pub(super) mod prompt;
mod talk;

use super::RunArgs;
use super::sampling::SamplingArgs;
use crate::output;
use omex::{Error, Result};
use prompt::TemplateArgs;
use std::path::PathBuf;

/// Talk with a model, or show the prompt that its chat template makes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex chat qwen.omex --system \"You answer in one sentence.\"
  echo \"Name a bird.\" | omex chat qwen.omex
  omex chat qwen.omex --set enable_thinking=false --temperature 0.7 --stats
  omex chat qwen.omex --render --messages talk.json --tools tools.json
  omex chat --template chat_template.jinja --render --messages talk.json --date 2026-07-04

In a chat, a line is a message; one that ends with \\ goes on in the next, and \"\"\" begins and ends
a message of many lines. Ctrl-C stops an answer. Commands:
  /system TEXT  begin anew with this system message   /retry   answer once more
  /save FILE    write the messages as JSON            /stats   times of the last answer
  /load FILE    go on with messages from a file       /quit    leave")]
pub(crate) struct Args {
    /// A package
    #[arg(required_unless_present = "template")]
    model: Option<PathBuf>,
    #[command(flatten)]
    template: TemplateArgs,
    /// Print the prompt that the template makes of --messages, and run nothing
    #[arg(long, requires = "messages")]
    render: bool,
    /// Messages to begin with: JSON, a list of objects with role and content, or an object with
    /// such a list as messages
    #[arg(long, value_name = "FILE")]
    messages: Option<PathBuf>,
    /// Leave the answer's beginning out of a rendered prompt
    #[arg(long, requires = "render")]
    no_generation_prompt: bool,
    /// The system message
    #[arg(long, value_name = "TEXT", conflicts_with = "render")]
    system: Option<String>,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_tokens: u32,
    /// What to do once a chat is longer than the context: stop and say so, or forget its oldest
    /// messages, and say which
    #[arg(long, value_name = "WAY", value_parser = ["stop", "forget-oldest"], default_value = "stop")]
    when_full: String,
    /// Print times of each answer to standard error
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    run: RunArgs,
}

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

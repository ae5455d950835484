//! The arguments of `omex chat`.

use super::prompt::TemplateArgs;
use crate::cmd::RunArgs;
use crate::cmd::constrain::RuleArgs;
use crate::cmd::format::FormatArgs;
use crate::cmd::preprocess::PreprocessArgs;
use crate::cmd::sampling::SamplingArgs;
use std::path::PathBuf;

/// Talk with a model, or show the prompt that its chat template makes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex chat qwen.omex --system \"You answer in one sentence.\"
  echo \"Name a bird.\" | omex chat qwen.omex
  omex chat qwen.omex --set enable_thinking=false --temperature 0.7 --stats
  omex chat qwen.omex --json-schema person.json (each answer is such a value)
  omex chat qwen.omex --render --messages talk.json --tools tools.json
  omex chat --template chat_template.jinja --render --messages talk.json --date 2026-07-04

In a chat, a line is a message; one that ends with \\ goes on in the next, and \"\"\" begins and ends
a message of many lines. Ctrl-C stops an answer. Commands:
  /system TEXT  begin anew with this system message   /retry   answer once more
  /save FILE    write the messages as JSON            /stats   times of the last answer
  /load FILE    go on with messages from a file       /quit    leave
  /tool RESULT  answer the model's call of a tool (--tools), which then goes on")]
pub(crate) struct Args {
    /// A package
    #[arg(required_unless_present = "template")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(super) template: TemplateArgs,
    /// Print the prompt that the template makes of --messages, and run nothing
    #[arg(long, requires = "messages", conflicts_with_all = ["preprocessor", "formatter", "stop"])]
    pub(super) render: bool,
    /// Messages to begin with: JSON, a list of objects with role and content, or an object with
    /// such a list as messages
    #[arg(long, value_name = "FILE")]
    pub(super) messages: Option<PathBuf>,
    /// Leave the answer's beginning out of a rendered prompt
    #[arg(long, requires = "render")]
    pub(super) no_generation_prompt: bool,
    /// The system message
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["render", "messages"])]
    pub(super) system: Option<String>,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(super) max_tokens: u32,
    /// What to do once a chat is longer than the context: stop and say so, or forget its oldest
    /// messages, and say which
    #[arg(long, value_name = "WAY", value_parser = ["stop", "forget-oldest"], default_value = "stop")]
    pub(super) when_full: String,
    /// Print times of each answer to standard error
    #[arg(long)]
    pub(super) stats: bool,
    #[command(flatten)]
    pub(super) preprocess: PreprocessArgs,
    #[command(flatten)]
    pub(super) format: FormatArgs,
    #[command(flatten)]
    pub(super) sampling: SamplingArgs,
    #[command(flatten)]
    pub(super) rule: RuleArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

//! The `omex` command: arguments, output and exit codes; each command is one file in `cmd`.

mod arguments;
mod bytes;
mod choices;
mod cmd;
mod config;
mod output;
mod signals;
mod standard_input;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use config::Config;
use omex::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run AI models on hardware that is too small for them.
///
/// Without a command: runs the model that ships with it.
#[derive(Parser)]
#[command(name = "omex", version, after_help = EXAMPLES, arg_required_else_help = false)]
struct Args {
    /// Ask no hub: a model by a name there (hf:...) has to be here
    #[arg(long, global = true)]
    offline: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  omex convert ./TinyLlama --quantization int4 --output-dir tinyllama.omex
  omex run tinyllama.omex \"Once upon a time\" --memory 200MB --stats
  omex run hf:Qwen/Qwen3-0.6B \"Once upon a time\"
  omex chat tinyllama.omex --system \"Answer in one sentence.\"
  omex plan tinyllama.omex --memory 64MB
  omex pack stories.omex --ram 64K -o card.img

Exit codes: 0 success, 1 failure, 2 wrong usage, 130, 129 and 143 interrupted by
Ctrl-C, SIGHUP and SIGTERM. With --json, an error is also an object on standard output.

~/.omex/config.toml, or the file that OMEX_CONFIG names, may hold defaults for options:
  [device]
  memory_limit = \"200MB\"   # --memory
  cpu_threads = 2           # --threads
  enable_mmap = false       # --pages read";

/// What each does is said in its file.
#[derive(Subcommand)]
enum Command {
    Convert(cmd::convert::Args),
    Run(cmd::run::Args),
    Chat(cmd::chat::Args),
    Batch(cmd::batch::Args),
    Plan(cmd::plan::Args),
    Validate(cmd::validate::Args),
    Pack(cmd::pack::Args),
    Export(cmd::export::Args),
    Inspect(cmd::inspect::Args),
    Tokenize(cmd::tokenize::Args),
    Logits(cmd::logits::Args),
    Infer(cmd::infer::Args),
    Optimize(cmd::optimize::Args),
    Embed(cmd::embed::Args),
    Rerank(cmd::rerank::Args),
    Eval(cmd::eval::Args),
    Benchmark(cmd::benchmark::Args),
    Profile(cmd::profile::Args),
    LayerInspect(cmd::layer_inspect::Args),
    GraphVisualize(cmd::graph_visualize::Args),
    MemoryTrace(cmd::memory_trace::Args),
    Compare(cmd::compare::Args),
    #[cfg(feature = "hub")]
    Pull(cmd::pull::Args),
    #[cfg(feature = "hub")]
    LoadModel(cmd::load_model::Args),
    #[command(hide = true)]
    Synth(cmd::synth::Args),
}

fn main() -> ExitCode {
    let given = arguments::with_prompt_last(std::env::args_os().collect());
    let as_json = arguments::ask_for_json(&given);
    let config = Config::open();
    let defaults = config.as_ref().map_or_else(|_| Args::command(), |c| c.apply(Args::command()));
    let args = match parse(defaults, given) {
        Ok(args) => args,
        Err(error) => return arguments::refuse(error, as_json),
    };
    signals::install();
    // Where it can't be had, a model that is cut short ends the command.
    let _ = omex::pager::guard_mapped_files();
    match config.and_then(|config| args.run(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::error(&error);
            if let Some(kind) = kind(&error).filter(|_| as_json) {
                output::json_error(kind, &error.to_string());
            }
            ExitCode::from(match error {
                Error::Usage(_) => 2,
                Error::Interrupted => signals::exit_code(),
                _ => 1,
            })
        }
    }
}

fn parse(mut command: clap::Command, given: Vec<OsString>) -> Result<Args, clap::Error> {
    let matches = command.try_get_matches_from_mut(given)?;
    Args::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

impl Args {
    fn run(mut self, config: &Config) -> omex::Result<()> {
        config.tell();
        for (model, need) in self.command.as_mut().map(Command::models).unwrap_or_default() {
            cmd::hub::make_local(model, need, self.offline)?;
        }
        match &self.command {
            None => cmd::demo::main(),
            Some(Command::Convert(args)) => cmd::convert::main(args),
            Some(Command::Run(args)) => cmd::run::main(args),
            Some(Command::Chat(args)) => cmd::chat::main(args),
            Some(Command::Batch(args)) => cmd::batch::main(args),
            Some(Command::Plan(args)) => cmd::plan::main(args),
            Some(Command::Validate(args)) => cmd::validate::main(args),
            Some(Command::Pack(args)) => cmd::pack::main(args),
            Some(Command::Export(args)) => cmd::export::main(args),
            Some(Command::Inspect(args)) => cmd::inspect::main(args),
            Some(Command::Tokenize(args)) => cmd::tokenize::main(args),
            Some(Command::Logits(args)) => cmd::logits::main(args),
            Some(Command::Infer(args)) => cmd::infer::main(args),
            Some(Command::Optimize(args)) => cmd::optimize::main(args),
            Some(Command::Embed(args)) => cmd::embed::main(args),
            Some(Command::Rerank(args)) => cmd::rerank::main(args),
            Some(Command::Eval(args)) => cmd::eval::main(args),
            Some(Command::Benchmark(args)) => cmd::benchmark::main(args),
            Some(Command::Profile(args)) => cmd::profile::main(args),
            Some(Command::LayerInspect(args)) => cmd::layer_inspect::main(args),
            Some(Command::GraphVisualize(args)) => cmd::graph_visualize::main(args),
            Some(Command::MemoryTrace(args)) => cmd::memory_trace::main(args),
            Some(Command::Compare(args)) => cmd::compare::main(args),
            #[cfg(feature = "hub")]
            Some(Command::Pull(args)) => cmd::pull::main(args, self.offline),
            #[cfg(feature = "hub")]
            Some(Command::LoadModel(args)) => cmd::load_model::main(args, self.offline),
            Some(Command::Synth(args)) => cmd::synth::main(args),
        }
    }
}

impl Command {
    /// The models that are about to be opened, which may be names of some on a hub.
    fn models(&mut self) -> Vec<(&mut PathBuf, cmd::Need)> {
        use cmd::Need::{Config, Package, Source};
        let package = |model: Option<_>| model.map(|model| (model, Package)).into_iter().collect();
        let model = match self {
            Self::Convert(args) => {
                return args.path().map(|path| (path, Source)).into_iter().collect();
            }
            Self::Plan(args) => return vec![(args.model.path(), Config)],
            Self::LayerInspect(args) => return vec![(args.model.path(), Config)],
            Self::GraphVisualize(args) => return vec![(args.model.path(), Config)],
            Self::Run(args) => {
                let draft = args.draft.model().map(|draft| (draft, Package));
                return draft.into_iter().chain([(&mut args.model, Package)]).collect();
            }
            Self::Chat(args) => return package(args.model.as_mut()),
            Self::Profile(args) => return package(args.model.as_mut()),
            Self::Batch(args) => &mut args.model,
            Self::Validate(args) => &mut args.path,
            Self::Pack(args) => &mut args.model,
            Self::Export(args) => &mut args.model,
            Self::Inspect(args) => &mut args.path,
            Self::Tokenize(args) => &mut args.model,
            Self::Logits(args) => &mut args.model,
            Self::Infer(args) => &mut args.model,
            Self::Optimize(args) => &mut args.model,
            Self::Embed(args) => &mut args.model,
            Self::Rerank(args) => &mut args.model,
            Self::Eval(args) => &mut args.model,
            Self::Benchmark(args) => &mut args.model,
            Self::MemoryTrace(args) => &mut args.model,
            Self::Compare(args) => &mut args.model,
            Self::Synth(_) => return vec![],
            #[cfg(feature = "hub")]
            Self::Pull(_) | Self::LoadModel(_) => return vec![],
        };
        package(Some(model))
    }
}

/// What kind of error it is, by a name for programs; `None` if a report has been printed already.
fn kind(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::Invalid { .. } => return None,
        Error::Io { .. } => "io",
        Error::Malformed(_) => "malformed",
        Error::Usage(_) => "usage",
        Error::Budget { .. }
        | Error::Board { .. }
        | Error::Texts { .. }
        | Error::Room { .. }
        | Error::Text(_) => "budget",
        Error::Load { .. } => "load",
        Error::Run { .. } => "run",
        Error::Page { .. } => "page",
        Error::Kv { .. } => "kv",
        Error::Chat(_) => "chat",
        Error::NoJson { .. } => "format",
        Error::Hub { .. } => "hub",
        Error::Interrupted => "interrupted",
        _ => "other",
    })
}

//! Arguments, output and exit codes; each command is one file in `cmd`.

mod bytes;
mod cmd;
mod output;

use clap::{Parser, Subcommand};
use omex::{Error, interrupt};
use std::process::ExitCode;

/// Run AI models on hardware that is too small for them.
///
/// Without a command: runs the model that ships in the repository.
#[derive(Parser)]
#[command(name = "omex", version, after_help = EXAMPLES, arg_required_else_help = false)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  omex convert --model-path ./TinyLlama --output-dir tinyllama.omex --quantization int4
  omex run tinyllama.omex \"Once upon a time\" --memory 200MB --stats
  omex plan tinyllama.omex --memory 64MB
  omex pack stories.omex --ram 64K -o card.img

Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted.";

#[derive(Subcommand)]
enum Command {
    /// Turn another program's model into a package
    Convert(cmd::convert::Args),
    /// Generate text
    Run(cmd::run::Args),
    /// Show where every byte goes under a memory budget
    Plan(cmd::plan::Args),
    /// Check every file, checksum and cross-reference of a package or image
    Validate(cmd::validate::Args),
    /// Make the flash image for a board
    Pack(cmd::pack::Args),
    /// Show what is in a package or image
    Inspect(cmd::inspect::Args),
    /// Turn text into token ids, or ids into text
    Tokenize(cmd::tokenize::Args),
    /// Compute the logits at every position
    Logits(cmd::logits::Args),
    /// Measure perplexity on a text
    Eval(cmd::eval::Args),
    /// Measure how fast a model runs
    Benchmark(cmd::benchmark::Args),
    /// Show what this machine can do, and what that means for a model
    Profile(cmd::profile::Args),
    /// Run the same work on OMEX and on other programs
    Compare(cmd::compare::Args),
    /// Write a package with random weights
    #[command(hide = true)]
    Synth(cmd::synth::Args),
}

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    interrupt::install();
    let result = match &args.command {
        None => cmd::demo::main(),
        Some(Command::Convert(args)) => cmd::convert::main(args),
        Some(Command::Run(args)) => cmd::run::main(args),
        Some(Command::Plan(args)) => cmd::plan::main(args),
        Some(Command::Validate(args)) => cmd::validate::main(args),
        Some(Command::Pack(args)) => cmd::pack::main(args),
        Some(Command::Inspect(args)) => cmd::inspect::main(args),
        Some(Command::Tokenize(args)) => cmd::tokenize::main(args),
        Some(Command::Logits(args)) => cmd::logits::main(args),
        Some(Command::Eval(args)) => cmd::eval::main(args),
        Some(Command::Benchmark(args)) => cmd::benchmark::main(args),
        Some(Command::Profile(args)) => cmd::profile::main(args),
        Some(Command::Compare(args)) => cmd::compare::main(args),
        Some(Command::Synth(args)) => cmd::synth::main(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::error(&error);
            ExitCode::from(match error {
                Error::Usage(_) => 2,
                Error::Interrupted => 130,
                _ => 1,
            })
        }
    }
}

//! The `omex` command: arguments, output and exit codes; each command is one file in `cmd`.

mod bytes;
mod choices;
mod cmd;
mod output;
mod signals;

use clap::{Parser, Subcommand};
use omex::Error;
use std::process::ExitCode;

/// Run AI models on hardware that is too small for them.
///
/// Without a command: runs the model that ships with it.
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

/// What each does is said in its file.
#[derive(Subcommand)]
enum Command {
    Convert(cmd::convert::Args),
    Run(cmd::run::Args),
    Batch(cmd::batch::Args),
    Plan(cmd::plan::Args),
    Validate(cmd::validate::Args),
    Pack(cmd::pack::Args),
    Inspect(cmd::inspect::Args),
    Tokenize(cmd::tokenize::Args),
    Logits(cmd::logits::Args),
    Infer(cmd::infer::Args),
    Eval(cmd::eval::Args),
    Benchmark(cmd::benchmark::Args),
    Profile(cmd::profile::Args),
    LayerInspect(cmd::layer_inspect::Args),
    MemoryTrace(cmd::memory_trace::Args),
    Compare(cmd::compare::Args),
    #[command(hide = true)]
    Synth(cmd::synth::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    signals::install();
    let result = match &args.command {
        None => cmd::demo::main(),
        Some(Command::Convert(args)) => cmd::convert::main(args),
        Some(Command::Run(args)) => cmd::run::main(args),
        Some(Command::Batch(args)) => cmd::batch::main(args),
        Some(Command::Plan(args)) => cmd::plan::main(args),
        Some(Command::Validate(args)) => cmd::validate::main(args),
        Some(Command::Pack(args)) => cmd::pack::main(args),
        Some(Command::Inspect(args)) => cmd::inspect::main(args),
        Some(Command::Tokenize(args)) => cmd::tokenize::main(args),
        Some(Command::Logits(args)) => cmd::logits::main(args),
        Some(Command::Infer(args)) => cmd::infer::main(args),
        Some(Command::Eval(args)) => cmd::eval::main(args),
        Some(Command::Benchmark(args)) => cmd::benchmark::main(args),
        Some(Command::Profile(args)) => cmd::profile::main(args),
        Some(Command::LayerInspect(args)) => cmd::layer_inspect::main(args),
        Some(Command::MemoryTrace(args)) => cmd::memory_trace::main(args),
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

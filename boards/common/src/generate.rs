//! Text from a model that takes tokens.

use crate::command::Command;
use crate::failure::Failure;
use crate::host;
use crate::image::{Image, split};
use crate::medium::Medium;
use crate::report::Report;
use crate::text::{Ids, Text};
use omex_core::engine::{Engine, Model};
use omex_core::generate::Generation;
use omex_core::sample::{Sampler, Sampling};
use omex_hal::{Pager, Serial};
use omex_hal_adapters::BLOCK_BYTES;

const EXPECTED: &str = "expected MAX_TOKENS ids 1,2,3 or MAX_TOKENS text PROMPT";

/// Generates what the command line asks for.
///
/// # Errors
/// A command that is none, or a device or an image that is damaged, or does not fit the board.
#[inline(never)]
pub fn run<M: Medium>(
    image: &Image<'_, M>,
    model: &Model<'_>,
    memory: &mut [u8],
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let (block, memory) =
        split(memory, if M::COPIES { BLOCK_BYTES as u64 } else { 0 }).map_err(|e| image.load(e))?;
    let mut text = Text::open(image.medium, image.header.tokenizer, block)?;
    let mut task = Task { max_tokens: 0, prompt: Ids::new() };
    command(&mut text, &mut task)?;
    image.with_engine(model, memory, &Serial, |engine, [used, ring]| {
        report.memory(used, ring);
        generate(image, engine, &task, &mut text, report)
    })
}

/// What to generate.
struct Task {
    max_tokens: u32,
    prompt: Ids,
}

/// Reads the command line.
#[inline(never)]
fn command<P: Pager>(text: &mut Text<P>, task: &mut Task) -> Result<(), Failure> {
    let mut line = [0; host::COMMAND_BYTES];
    let line = host::command_line(&mut line).map(|line| line.to_bytes());
    let command = line.and_then(Command::parse).ok_or(Failure::Task(EXPECTED))?;
    task.max_tokens = command.max_tokens;
    text.encode(command.prompt, &mut task.prompt)
}

/// Generates the text.
fn generate<M: Medium, P: Pager>(
    image: &Image<'_, M>,
    engine: &mut Engine<'_>,
    task: &Task,
    text: &mut Text<P>,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let run = |error| Failure::run(error, image.header.page_size);
    let sampler = Sampler::new(Sampling::GREEDY);
    let mut generation = Generation::prefill(engine, sampler, &task.prompt).map_err(run)?;
    let counter = image.medium.counter();
    for _ in 0..task.max_tokens {
        let start = counter.map(|counter| (counter.ticks)());
        let Some(token) = generation.next_token().map_err(run)? else { break };
        if let Some((counter, start)) = counter.zip(start) {
            report.pass(counter.since(start));
        }
        report.begin_token(token, generation.logits(), image.medium.bytes_read());
        text.decode(token, |piece| report.text(piece))?;
        report.end_line();
    }
    report.positions(engine.position(), engine.plan().kv_capacity);
    report.begin_end();
    text.finish(|piece| report.text(piece));
    report.end_line();
    report.summary(["logits_checksum", "sd_bytes_per_token"], image.medium.bytes_read());
    Ok(())
}

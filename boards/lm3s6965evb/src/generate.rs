//! The main path: from the card to text.

use crate::card::Card;
use crate::command::Command;
use crate::failure::Failure;
use crate::host::{self, Output};
use crate::report::Report;
use crate::text::{Ids, Text};
use omex_core::arena::{ALIGNMENT, Layout};
use omex_core::engine::{Engine, Model};
use omex_core::error::LoadError;
use omex_core::generate::Generation;
use omex_core::image::{self, Header};
use omex_core::sample::{Sampler, Sampling};
use omex_core::simd::PORTABLE;
use omex_hal::Serial;
use omex_hal_adapters::{BLOCK_BYTES, Blocks, BufferedPager, SetupError};

/// The longest command line, in bytes.
const COMMAND_BYTES: usize = 512;

/// Generates what the command line asks for, within `arena`.
///
/// The arena holds, front to back: a block of the tokenizer's tables, the image's tables, the engine's memory, and pages of weights,
/// as many as fit. Each step is a function that is never inlined, so that what it needs of the
/// stack is free again before the next.
///
/// # Errors
/// A command that is none, a card or an image that is damaged, or does not fit the board.
pub fn run(arena: &mut [u8], output: &mut Output) -> Result<(), Failure> {
    let card = Card::start()?;
    let header = card.header()?;
    let load = |error| Failure::load(error, header.page_size);
    let (block, arena) = split(arena, BLOCK_BYTES as u64).map_err(load)?;
    let mut text = Text::open(&card, header.tokenizer, block)?;
    let mut task = Task { max_tokens: 0, prompt: Ids::new() };
    command(&mut text, &mut task)?;
    let tables_bytes = header.resident_bytes();
    let (tables, rest) = split(arena, tables_bytes).map_err(load)?;
    let model = open(&card, &header, tables, rest)?;
    let mut report = Report::new(output, tables_bytes);
    generate(&card, &header, model, rest, &task, &mut text, &mut report)
}

/// What to generate.
struct Task {
    max_tokens: u32,
    prompt: Ids,
}

/// Reads the command line.
#[inline(never)]
fn command(text: &mut Text<'_>, task: &mut Task) -> Result<(), Failure> {
    let mut line = [0; COMMAND_BYTES];
    let command = host::command_line(&mut line).and_then(Command::parse);
    let command = command.ok_or(Failure::CommandLine)?;
    task.max_tokens = command.max_tokens;
    text.encode(command.prompt, &mut task.prompt)
}

/// Loads the tables of the image, through pages in memory that is free afterwards.
#[inline(never)]
fn open<'a>(
    card: &Card,
    header: &Header,
    tables: &'a mut [u8],
    free: &mut [u8],
) -> Result<Model<'a>, Failure> {
    let mut pager = pages(card, header, free)?;
    let opened = image::open(&mut pager, PORTABLE.crc32c, tables);
    opened.map(|(_, model, _)| model).map_err(|error| Failure::load(error, header.page_size))
}

/// Generates the text.
#[inline(never)]
fn generate(
    card: &Card,
    header: &Header,
    model: Model<'_>,
    memory: &mut [u8],
    task: &Task,
    text: &mut Text<'_>,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let load = |error| Failure::load(error, header.page_size);
    let run = |error| Failure::run(error, header.page_size);
    let layout = Layout::new(&model.program, &model.plan, 0).map_err(load)?;
    let (needed, given) = (layout.total() + u64::from(header.page_size), memory.len() as u64);
    if given < needed {
        return Err(load(LoadError::Memory { needed, given }));
    }
    let (memory, ring) = split(memory, layout.total()).map_err(load)?;
    report.memory(memory.len(), ring.len());
    let mut pager = pages(card, header, ring)?;
    let mut engine = Engine::new(model, memory, &mut pager, &PORTABLE, &Serial).map_err(load)?;
    let sampler = Sampler::new(Sampling::GREEDY);
    let mut generation = Generation::prefill(&mut engine, sampler, &task.prompt).map_err(run)?;
    for _ in 0..task.max_tokens {
        let Some(token) = generation.next_token().map_err(run)? else { break };
        report.begin_token(token, generation.logits(), card.bytes_read());
        text.decode(token, |piece| report.text(piece))?;
        report.end_line();
    }
    report.finish(text);
    report.summary(card.bytes_read());
    Ok(())
}

/// The pages of the image on `card`, read through `ring`.
fn pages<'a>(
    card: &'a Card,
    header: &Header,
    ring: &'a mut [u8],
) -> Result<BufferedPager<'a, Blocks<&'a Card>>, SetupError> {
    let length = header.pages.offset.saturating_add(header.pages.length);
    BufferedPager::new(Blocks(card), ring, header.page_size, length)
}

/// The first `bytes` bytes, rounded up so that what follows is aligned, and the rest.
fn split(memory: &mut [u8], bytes: u64) -> Result<(&mut [u8], &mut [u8]), LoadError> {
    let given = memory.len() as u64;
    let place = usize::try_from(bytes).ok().and_then(|b| b.checked_next_multiple_of(ALIGNMENT));
    place
        .and_then(|place| memory.split_at_mut_checked(place))
        .ok_or(LoadError::Memory { needed: bytes, given })
}

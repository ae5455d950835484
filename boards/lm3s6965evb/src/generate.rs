//! From the card to text.

use crate::card::Card;
use crate::command::{self, Command, Prompt};
use crate::failure::{Failure, PageSize};
use crate::host::{self, Output};
use crate::report::Report;
use heapless::Vec;
use omex_core::arena::{ALIGNMENT, Layout};
use omex_core::engine::Engine;
use omex_core::error::LoadError;
use omex_core::generate::Generation;
use omex_core::image::{self, Header};
use omex_core::sample::{Sampler, Sampling};
use omex_core::simd::PORTABLE;
use omex_hal::Serial;
use omex_hal_adapters::{Blocks, BufferedPager, SetupError};

/// The longest prompt, in tokens.
const PROMPT_TOKENS: usize = 256;
/// The longest command line, in bytes.
const COMMAND_BYTES: usize = 1024;

/// Generates what the command line asks for, within `arena`.
///
/// The arena holds, front to back: the image's tables, the engine's memory, and pages of weights,
/// as many as fit.
pub fn run(arena: &mut [u8], output: &mut Output) -> Result<(), Failure> {
    let mut command = [0; COMMAND_BYTES];
    let command = host::command_line(&mut command).and_then(Command::parse);
    let Command { max_tokens, prompt } = command.ok_or(Failure::CommandLine)?;
    let card = Card::start()?;
    let header = card.header()?;
    let load = |error| Failure::Load(error, PageSize(header.page_size));
    let run = |error| Failure::Run(error, PageSize(header.page_size));

    let (tables, rest) = split(arena, header.resident_bytes()).map_err(load)?;
    let (_, model, _) = image::open(&mut pages(&card, &header, rest)?, PORTABLE.crc32c, tables).map_err(load)?;
    let prompt = encode(prompt)?;

    let layout = Layout::new(&model.program, &model.plan, 0).map_err(load)?;
    let (memory, ring) = split(rest, layout.total()).map_err(load)?;
    let (engine_bytes, ring_bytes) = (memory.len(), ring.len());
    let mut pager = pages(&card, &header, ring)?;
    let mut engine = Engine::new(model, memory, &mut pager, &PORTABLE, &Serial).map_err(load)?;

    let sampler = Sampler::new(Sampling::GREEDY);
    let mut generation = Generation::prefill(&mut engine, sampler, &prompt).map_err(run)?;
    let mut report = Report::new(output);
    for _ in 0..max_tokens {
        let Some(token) = generation.next_token().map_err(run)? else { break };
        report.token(token, generation.logits(), card.bytes_read());
        report.end_token();
    }
    report.summary(engine_bytes, ring_bytes, card.bytes_read());
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
    let place = usize::try_from(bytes).ok().and_then(|bytes| bytes.checked_next_multiple_of(ALIGNMENT));
    place
        .and_then(|place| memory.split_at_mut_checked(place))
        .ok_or(LoadError::Memory { needed: bytes, given })
}

/// The prompt's tokens.
fn encode(prompt: Prompt<'_>) -> Result<Vec<u32, PROMPT_TOKENS>, Failure> {
    let mut ids = Vec::new();
    match prompt {
        Prompt::Ids(list) => {
            for id in list.split(',') {
                let id = command::number(id).ok_or(Failure::Prompt)?;
                ids.push(id).map_err(|_| Failure::Prompt)?;
            }
        }
        Prompt::Text(_) => return Err(Failure::Prompt),
    }
    Ok(ids)
}

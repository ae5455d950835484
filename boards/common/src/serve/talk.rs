//! Prompts, and what a language model makes of them.

use super::{Console, LINE_BYTES};
use crate::failure::Failure;
use crate::image::{Image, split};
use crate::medium::Medium;
use crate::text::{Ids, Prompt, Text};
use core::convert::Infallible;
use core::fmt::Write;
use omex_core::engine::{Engine, Model};
use omex_core::generate::Generation;
use omex_core::sample::{Sampler, Sampling};
use omex_hal::{Pager, Parallel};
use omex_hal_adapters::BLOCK_BYTES;

/// Tokens of an answer at most.
const ANSWER_TOKENS: u32 = 128;
const NOT_UTF8: Failure = Failure::Task("the prompt is not UTF-8");

/// Answers prompts for ever.
///
/// # Errors
/// A device or an image that is damaged, or does not fit the board.
pub fn run<M: Medium>(
    image: &Image<'_, M>,
    model: &Model<'_>,
    memory: &mut [u8],
    cores: &dyn Parallel,
    console: &mut Console<'_>,
) -> Result<Infallible, Failure> {
    let (block, memory) =
        split(memory, if M::COPIES { BLOCK_BYTES as u64 } else { 0 }).map_err(|e| image.load(e))?;
    let mut text = Text::open(image.medium, image.header.tokenizer, block)?;
    image.with_engine(model, memory, cores, |engine, bytes| {
        console.greet(bytes);
        loop {
            let mut line = [0; LINE_BYTES];
            let prompt = core::str::from_utf8(console.line(&mut line)).map_err(|_| NOT_UTF8);
            let answered = prompt.and_then(|prompt| {
                answer(engine, &mut text, prompt, image.header.page_size, console)
            });
            if let Err(failure) = answered {
                console.fail(&failure);
            }
        }
    })
}

/// Writes what follows the prompt, and how long it took.
fn answer<P: Pager>(
    engine: &mut Engine<'_>,
    text: &mut Text<P>,
    prompt: &str,
    page_size: u32,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let run = |error| Failure::run(error, page_size);
    let mut ids = Ids::new();
    let are_ids = prompt.bytes().all(|byte| byte.is_ascii_digit() || byte == b',');
    let prompt = if are_ids { Prompt::Ids(prompt.as_bytes()) } else { Prompt::Text(prompt) };
    text.encode(prompt, &mut ids)?;
    engine.reset();
    let (read, mut tokens) = ((console.micros)(), 0);
    let sampler = Sampler::new(Sampling::GREEDY);
    let mut generation = Generation::prefill(engine, sampler, &ids).map_err(run)?;
    let begun = (console.micros)();
    while tokens < ANSWER_TOKENS {
        let Some(token) = generation.next_token().map_err(run)? else { break };
        text.decode(token, |piece| (console.write)(piece.as_bytes()))?;
        tokens += 1;
    }
    text.finish(|piece| (console.write)(piece.as_bytes()));
    let (prompt, answer) = (begun.saturating_sub(read), (console.micros)().saturating_sub(begun));
    let _ = write!(
        console,
        "\r\n{} tokens read in {prompt} us, {tokens} written in {answer} us\r\n",
        ids.len()
    );
    Ok(())
}

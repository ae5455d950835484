//! From the card to a model that is ready; what it takes says how it is played.

use crate::failure::Failure;
#[cfg(not(all(feature = "text", feature = "int8")))]
use crate::failure::OTHER_KIND;
#[cfg(feature = "text")]
use crate::generate;
use crate::host::Output;
use crate::image::{Image, header, split};
#[cfg(feature = "int8")]
use crate::infer;
use crate::medium::Medium;
use crate::report::Report;

/// Plays the image on `medium` within `arena`, as the command line asks.
///
/// The arena holds, front to back: the image's tables, a block of the tokenizer's tables, the
/// engine's memory, and pages of weights, as many as fit. Each step is a function that is never
/// inlined, so that what it needs of the stack is free again before the next.
///
/// # Errors
/// A command that is none, a device or an image that is damaged, or does not fit the board.
pub fn run(medium: &impl Medium, arena: &mut [u8], output: &mut Output) -> Result<(), Failure> {
    let image = Image { header: header(medium, arena)?, medium };
    let tables_bytes = image.header.resident_bytes();
    let (tables, rest) = split(arena, tables_bytes).map_err(|e| image.load(e))?;
    let model = image.open(tables, rest)?;
    let mut report = Report::new(output, tables_bytes);
    match model.program.header().vocab_size > 0 {
        #[cfg(feature = "text")]
        true => generate::run(&image, &model, rest, &mut report),
        #[cfg(feature = "int8")]
        false => infer::run(&image, &model, rest, &mut report),
        #[cfg(not(all(feature = "text", feature = "int8")))]
        _ => Err(Failure::Task(OTHER_KIND)),
    }
}

//! Texts that are run whole, several in a pass.

use crate::graph::CLASSES;
use crate::plan::MemoryPlan;
use crate::session::Session;
use crate::{Error, Result};
use omex_core::engine::Engine;
use omex_core::pass::Input;
use omex_core::program::{Per, Port};
use std::ops::Range;

/// A token, and the segment of its text that it is in.
pub type Placed = (u32, u8);

/// Sees an output of a pass, and which columns each of its texts has.
pub type Show<'s> = &'s mut dyn FnMut(&Engine<'_>, &Port<'_>, &[Range<usize>]);

/// Tokens of a text that count, where so many may.
#[must_use]
pub fn longest(plan: &MemoryPlan, max_tokens: Option<u32>) -> usize {
    let context = plan.context.min(plan.prefill_chunk);
    max_tokens.map_or(context, |most| most.min(context)).max(1) as usize
}

/// Runs texts, of which `tokens` gives the tokens. `show` sees what each pass gives out under a name, and
/// which columns its texts have. Of the scores of classes, which are those of a text's first token, there is
/// a column for each text.
///
/// # Errors
/// A model that gives out nothing of that name, a text without tokens or with more than a pass has
/// columns, a pass that fails, or being cancelled.
pub fn run<'t, T, I: ExactSizeIterator<Item = Placed>>(
    session: &mut Session,
    output: &str,
    texts: &'t [T],
    tokens: impl Fn(&'t T) -> I,
    show: Show<'_>,
) -> Result<()> {
    let (failed, cancel) = (session.failure(), session.cancel().clone());
    let mut engine = session.engine()?;
    let program = engine.program().clone();
    let port = program.outputs().find(|port| port.name == output).ok_or_else(|| {
        let outputs = program.outputs().map(|port| port.name).collect::<Vec<_>>().join(", ");
        Error::Usage(format!("the model gives out no \"{output}\", only {outputs}"))
    })?;
    let asked = program.slot(port.value.slot).is_some_and(|slot| slot.per == Per::Output);
    let logits = |position| asked && (position == 0 || output != CLASSES);
    let (columns, sequences) = (engine.plan().columns as usize, engine.plan().sequences as usize);
    let mut done = 0;
    while let Some(first) = texts.get(done) {
        let found = tokens(first).len();
        if found == 0 || found > columns {
            let number = done + 1;
            let message = format!("text {number}: found {found} tokens, expected 1 to {columns}");
            return Err(Error::Usage(message));
        }
        let (mut inputs, mut places) = (vec![], vec![]);
        for text in texts[done..].iter().take(sequences).map(&tokens) {
            let place = inputs.len()..inputs.len() + text.len();
            if place.is_empty() || place.end > columns {
                break;
            }
            inputs.extend(whole(text, places.len() as u32, logits));
            places.push(place);
        }
        engine.pass(inputs).map_err(&failed)?;
        show(&engine, &port, &places);
        done += places.len();
        cancel.check()?;
    }
    Ok(())
}

/// All tokens of a text that is a sequence.
fn whole(
    text: impl Iterator<Item = Placed>,
    sequence: u32,
    logits: impl Fn(u32) -> bool,
) -> impl Iterator<Item = Input> {
    (0..).zip(text).map(move |(position, (token, segment))| Input {
        token,
        sequence,
        position,
        logits: logits(position),
        adapter: 0,
        segment,
    })
}

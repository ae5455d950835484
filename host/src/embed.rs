//! Texts as vectors: an encoder's hidden states, pooled as the model's `postprocessors/embedding.json`
//! says.

use crate::package::{EmbeddingSettings, Pooling};
use crate::session::Session;
use crate::{Error, Result};
use omex_core::engine::Engine;
use omex_core::pass::Input;
use omex_core::program::Port;

/// The output that vectors are made of.
pub const HIDDEN: &str = "hidden";

/// A vector for each text, given as tokens; `done` is told after each pass how many there are.
/// Several texts share a pass.
///
/// # Errors
/// A model that gives out no hidden states, a text without tokens or with more than [`longest`], a
/// pass that fails, or being cancelled.
pub fn embed(
    session: &mut Session,
    settings: &EmbeddingSettings,
    texts: &[Vec<u32>],
    done: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<f32>>> {
    let (failed, cancel) = (session.failure(), session.cancel().clone());
    let mut engine = session.engine()?;
    let program = engine.program().clone();
    let port = program.outputs().find(|port| port.name == HIDDEN).ok_or_else(|| {
        let message = "the model gives out no hidden states: omex embed takes an encoder";
        Error::Usage(message.to_owned())
    })?;
    let (columns, sequences) = (engine.plan().columns as usize, engine.plan().sequences as usize);
    let mut vectors = vec![];
    while let Some(first) = texts.get(vectors.len()) {
        if first.is_empty() || first.len() > columns {
            let (number, found) = (vectors.len() + 1, first.len());
            let message = format!("text {number}: found {found} tokens, expected 1 to {columns}");
            return Err(Error::Usage(message));
        }
        let (mut inputs, mut lengths) = (vec![], vec![]);
        for text in texts[vectors.len()..].iter().take(sequences) {
            if text.is_empty() || inputs.len() + text.len() > columns {
                break;
            }
            inputs.extend(whole(text, lengths.len() as u32));
            lengths.push(text.len());
        }
        engine.pass(inputs).map_err(&failed)?;
        let mut column = 0;
        for length in lengths {
            vectors.push(pool(&engine, &port, column..column + length, settings));
            column += length;
        }
        done(vectors.len());
        cancel.check()?;
    }
    Ok(vectors)
}

/// Tokens of a text that count.
#[must_use]
pub fn longest(session: &Session, settings: &EmbeddingSettings) -> usize {
    let context = session.plan().context.min(session.plan().prefill_chunk);
    settings.max_tokens.map_or(context, |most| most.min(context)).max(1) as usize
}

/// A text with no more tokens than count; of those that are left out, none are among the last `after`,
/// which end every text.
#[must_use]
pub fn fitting(mut text: Vec<u32>, after: usize, most: usize) -> Vec<u32> {
    if text.len() > most {
        let end = text.len() - after.min(most);
        text.drain(most - after.min(most)..end);
    }
    text
}

/// All tokens of a text that is a sequence.
fn whole(text: &[u32], sequence: u32) -> impl Iterator<Item = Input> {
    let input = move |(position, token): (u32, &u32)| Input {
        token: *token,
        sequence,
        position,
        logits: false,
        adapter: 0,
    };
    (0..).zip(text).map(input)
}

/// The vector of a text that takes these columns, at least one.
fn pool(
    engine: &Engine<'_>,
    port: &Port<'_>,
    columns: std::ops::Range<usize>,
    settings: &EmbeddingSettings,
) -> Vec<f32> {
    let count = columns.len() as f32;
    let (first, last) = (columns.start, columns.end - 1);
    let of = |column| engine.output(port, column);
    let folded = |fold: fn(f32, f32) -> f32| {
        let mut vector = of(first).to_vec();
        for column in columns.clone().skip(1) {
            vector.iter_mut().zip(of(column)).for_each(|(x, y)| *x = fold(*x, *y));
        }
        vector
    };
    let mut vector = match settings.pooling {
        Pooling::Mean => scaled(folded(|x, y| x + y), 1.0 / count),
        Pooling::MeanSqrtLength => scaled(folded(|x, y| x + y), 1.0 / count.sqrt()),
        Pooling::Max => folded(f32::max),
        Pooling::FirstToken => of(first).to_vec(),
        Pooling::LastToken => of(last).to_vec(),
    };
    if settings.normalize {
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector = scaled(vector, 1.0 / length.max(1e-12));
    }
    vector
}

fn scaled(mut vector: Vec<f32>, factor: f32) -> Vec<f32> {
    vector.iter_mut().for_each(|x| *x *= factor);
    vector
}

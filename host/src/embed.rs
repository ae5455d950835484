//! Texts as vectors: an encoder's hidden states, pooled as the model's `postprocessors/embedding.json`
//! says.

use crate::Result;
use crate::package::{EmbeddingSettings, Pooling};
use crate::session::Session;
use crate::whole;
use omex_core::engine::Engine;
use omex_core::program::Port;
use std::ops::Range;

/// The output that vectors are made of.
pub const HIDDEN: &str = "hidden";

/// A vector for each text, given as tokens; `done` is told after each pass how many there are.
/// Several texts share a pass.
///
/// # Errors
/// A model that gives out no hidden states, a text without tokens or with more than [`whole::longest`], a
/// pass that fails, or being cancelled.
pub fn embed(
    session: &mut Session,
    settings: &EmbeddingSettings,
    texts: &[Vec<u32>],
    done: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<f32>>> {
    let mut vectors = vec![];
    let mut show = |engine: &Engine<'_>, port: &Port<'_>, places: &[Range<usize>]| {
        vectors.extend(places.iter().map(|place| pool(engine, port, place.clone(), settings)));
        done(vectors.len());
    };
    whole::run(session, HIDDEN, texts, |text| text.iter().map(|id| (*id, 0)), &mut show)?;
    Ok(vectors)
}

/// The vector of a text that was cut, of its parts' vectors and numbers of tokens: their mean, weighted by these.
#[must_use]
pub fn combined(settings: &EmbeddingSettings, mut parts: Vec<(Vec<f32>, usize)>) -> Vec<f32> {
    if parts.len() < 2 {
        return parts.pop().unwrap_or_default().0;
    }
    let all = parts.iter().map(|(_, tokens)| tokens).sum::<usize>() as f32;
    let mut mean = vec![0.0; parts[0].0.len()];
    for (vector, tokens) in parts {
        let weight = tokens as f32 / all;
        mean.iter_mut().zip(vector).for_each(|(x, y)| *x += weight * y);
    }
    if settings.normalize { of_length_one(mean) } else { mean }
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

/// The vector of a text that takes these columns, at least one.
fn pool(
    engine: &Engine<'_>,
    port: &Port<'_>,
    columns: Range<usize>,
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
    let vector = match settings.pooling {
        Pooling::Mean => scaled(folded(|x, y| x + y), 1.0 / count),
        Pooling::MeanSqrtLength => scaled(folded(|x, y| x + y), 1.0 / count.sqrt()),
        Pooling::Max => folded(f32::max),
        Pooling::FirstToken => of(first).to_vec(),
        Pooling::LastToken => of(last).to_vec(),
    };
    if settings.normalize { of_length_one(vector) } else { vector }
}

fn of_length_one(vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    scaled(vector, 1.0 / length.max(1e-12))
}

fn scaled(mut vector: Vec<f32>, factor: f32) -> Vec<f32> {
    vector.iter_mut().for_each(|x| *x *= factor);
    vector
}

//! How well documents answer a query: the scores that a model gives pairs of texts, which the package's
//! `postprocessors/rerank.json` says how to put together.

use crate::graph::CLASSES;
use crate::package::PairPart;
use crate::session::Session;
use crate::whole::{self, Placed};
use crate::{Error, Result};
use omex_core::engine::Engine;
use omex_core::program::Port;
use std::ops::Range;

/// Scores of each pair, one for each class; `done` is told after each pass how many pairs there are. Several
/// pairs share a pass.
///
/// # Errors
/// A model that gives out no scores of classes, a pair without tokens or with more than
/// [`whole::longest`], a pass that fails, or being cancelled.
pub fn scores(
    session: &mut Session,
    pairs: &[Vec<Placed>],
    done: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<f32>>> {
    let mut scores = vec![];
    let mut show = |engine: &Engine<'_>, port: &Port<'_>, places: &[Range<usize>]| {
        scores.extend((0..places.len()).map(|column| engine.output(port, column).to_vec()));
        done(scores.len());
    };
    whole::run(session, CLASSES, pairs, |pair| pair.iter().copied(), &mut show)?;
    Ok(scores)
}

/// A query and a document put together, in no more than `most` tokens, and how many were left out: of the
/// ends of the longer text, and of both where they are equally long.
///
/// # Errors
/// A template whose own tokens leave no room.
pub fn pair(
    template: &[PairPart],
    query: &[u32],
    document: &[u32],
    most: usize,
) -> Result<(Vec<Placed>, usize)> {
    let own = template.iter().map(|part| match part {
        PairPart::Tokens { ids, .. } => ids.len(),
        _ => 0,
    });
    let own = own.sum::<usize>();
    let room = most.checked_sub(own).filter(|room| *room > 0).ok_or_else(|| {
        Error::Usage(format!("what puts texts together is {own} tokens, and {most} fit"))
    })?;
    let kept = shares([query.len(), document.len()], room);
    let part = |part: &PairPart| -> Vec<Placed> {
        let (tokens, segment) = match part {
            PairPart::Tokens { ids, segment } => (&ids[..], *segment),
            PairPart::Query { segment } => (&query[..kept[0]], *segment),
            PairPart::Document { segment } => (&document[..kept[1]], *segment),
        };
        tokens.iter().map(|token| (*token, segment)).collect()
    };
    let left_out = query.len() + document.len() - kept.iter().sum::<usize>();
    Ok((template.iter().flat_map(part).collect(), left_out))
}

/// How much of two texts stays where both have so much room: the shorter one as long as it takes no more
/// than half, as transformers' "longest_first" does it.
fn shares([first, second]: [usize; 2], room: usize) -> [usize; 2] {
    if first + second <= room {
        return [first, second];
    }
    let (half, rest) = (room / 2, room - room / 2);
    match first <= second {
        true if first <= half => [first, room - first],
        false if second <= half => [room - second, second],
        true => [half, rest],
        false => [rest, half],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_text_is_cut_until_both_fit() {
        for (lengths, kept) in [
            ([3, 4], [3, 4]),
            ([3, 9], [3, 4]),
            ([9, 3], [4, 3]),
            ([2, 30], [2, 5]),
            ([30, 2], [5, 2]),
            ([8, 9], [3, 4]),
            ([9, 8], [4, 3]),
            ([8, 8], [3, 4]),
            ([0, 9], [0, 7]),
        ] {
            assert_eq!(shares(lengths, 7), kept, "{lengths:?}");
        }
    }

    #[test]
    fn pairs_are_put_together_as_the_template_says() {
        let template = [
            PairPart::Tokens { ids: vec![101], segment: 0 },
            PairPart::Query { segment: 0 },
            PairPart::Tokens { ids: vec![102], segment: 0 },
            PairPart::Document { segment: 1 },
            PairPart::Tokens { ids: vec![102, 103], segment: 1 },
        ];
        let (tokens, left_out) = pair(&template, &[1, 2], &[3, 4, 5], 8).unwrap();
        let expected = [(101, 0), (1, 0), (2, 0), (102, 0), (3, 1), (4, 1), (102, 1), (103, 1)];
        assert_eq!((&tokens[..], left_out), (&expected[..], 1));
        let error = pair(&template, &[1], &[2], 4).unwrap_err().to_string();
        assert!(error.contains("4 tokens, and 4 fit"), "{error}");
    }
}

//! Merges of vocabularies that store a score a piece in place of merges (SentencePiece, llama2.c, GGUF).
//!
//! There, two neighbours may merge whenever what they make is a piece, the highest score first. So every way to
//! cut a piece into two pieces is a merge, ranked by the piece's score.

use super::Merge;
use std::collections::HashMap;

/// All merges of `pieces`, by falling score; none if a score is not a number.
pub(super) fn merges(pieces: &[Vec<u8>], scores: &[f32]) -> Option<Vec<Merge>> {
    let ids: HashMap<&[u8], u32> = pieces.iter().map(Vec::as_slice).zip(0..).collect();
    // Adding zero makes -0 and 0 one score.
    let mut falling: Vec<f32> = scores.iter().map(|score| score + 0.0).collect();
    if falling.iter().any(|score| score.is_nan()) {
        return None;
    }
    falling.sort_by(|a, b| b.total_cmp(a));
    falling.dedup();
    let mut merges = Vec::new();
    for ((piece, merged), score) in pieces.iter().zip(0..).zip(scores) {
        let Ok(text) = std::str::from_utf8(piece) else { continue };
        let rank = falling.partition_point(|other| other > score) as u32;
        for (middle, _) in text.char_indices().skip(1) {
            let (left, right) = piece.split_at(middle);
            if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
                merges.push(Merge { left, right, merged, rank });
            }
        }
    }
    merges.sort_by_key(|m| (m.rank, m.merged, m.left, m.right));
    Some(dense(merges))
}

/// The same merges with ranks 0, 1, 2… and no gaps, which a list of merges can give back.
pub(super) fn dense(mut merges: Vec<Merge>) -> Vec<Merge> {
    let mut last = None;
    let mut next = 0;
    for merge in &mut merges {
        if last.replace(merge.rank).is_some_and(|rank| rank != merge.rank) {
            next += 1;
        }
        merge.rank = next;
    }
    merges
}

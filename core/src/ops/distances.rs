//! Distances between tokens by the logarithm of how far they are: the relative positions of T5
//! (arXiv:1910.10683, section 2.1) in both directions, as MPNet has them.

use core::ops::Range;

/// How many classes of distances there are: half of them for keys up to the query's own position, half
/// for those behind it.
pub const DISTANCES: usize = 32;
const HALF: usize = DISTANCES / 2;
/// The least distance of each class: single ones first, then √2 times more from one class to the next,
/// up to 128.
const LEAST: [usize; HALF] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];

/// Each class of distances from a position, and the places before `end` that are so far away.
pub(super) fn classes(position: usize, end: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let least = LEAST.into_iter().enumerate();
    let beyond = LEAST.into_iter().skip(1).chain([usize::MAX]);
    least.zip(beyond).flat_map(move |((class, least), beyond)| {
        let after = position.saturating_add(1);
        let before = after.saturating_sub(beyond)..after.saturating_sub(least).min(end);
        let behind =
            position.saturating_add(least.max(1))..position.saturating_add(beyond).min(end);
        [(class, before), (HALF + class, behind)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The class as T5's code computes it.
    fn class(query: usize, key: usize) -> usize {
        let (n, behind) = (query.abs_diff(key), if key > query { HALF } else { 0 });
        if n < 8 {
            return behind + n;
        }
        let class = 8 + ((n as f32 / 8.0).ln() / (128.0_f32 / 8.0).ln() * 8.0) as usize;
        behind + class.min(HALF - 1)
    }

    #[test]
    #[expect(clippy::indexing_slicing, reason = "a test may fail")]
    fn every_place_has_the_class_of_its_distance() {
        for (position, end) in [(0, 300), (150, 300), (299, 300), (5, 6), (0, 1)] {
            let mut seen = [0; 300];
            for (number, places) in classes(position, end) {
                for place in places {
                    assert_eq!(number, class(position, place), "{place} from {position}");
                    seen[place] += 1;
                }
            }
            assert!(seen[..end].iter().all(|n| *n == 1) && seen[end..].iter().all(|n| *n == 0));
        }
    }
}

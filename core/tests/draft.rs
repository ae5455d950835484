//! Prompt look-up.

use omex_core::draft::{Drafted, look_up};

fn guesses(text: &[u32], most: usize) -> Vec<(u32, u32)> {
    let mut draft = vec![Drafted::default(); most];
    let found = look_up(text, &mut draft);
    draft.iter().take(found).map(|drafted| (drafted.token, drafted.depth)).collect()
}

#[test]
fn the_longest_match_counts_and_of_these_the_latest() {
    assert_eq!(guesses(&[7, 8, 1, 9, 8, 2, 7, 8], 2), [(1, 1), (9, 2)]);
    assert_eq!(guesses(&[8, 1, 8, 1, 2, 3, 4, 8], 1), [(1, 1)]);
    // A match of five tokens counts no more than one of four.
    assert_eq!(guesses(&[0, 1, 2, 3, 4, 5, 9, 1, 2, 3, 4, 6, 0, 1, 2, 3, 4], 1), [(6, 1)]);
}

#[test]
fn texts_that_went_on_in_two_ways_branch() {
    assert_eq!(
        guesses(&[5, 1, 2, 5, 3, 4, 5], 5),
        [(3, 1), (4, 2), (5, 3), (1, 1), (2, 2)],
        "half for each, the latest first"
    );
    assert_eq!(guesses(&[5, 1, 5, 3, 5], 1), [(3, 1)]);
}

#[test]
fn a_loop_goes_on() {
    assert_eq!(guesses(&[4, 1, 2, 1, 2], 5), [(1, 1), (2, 2), (1, 3), (2, 4), (1, 5)]);
    assert_eq!(guesses(&[6, 6], 3), [(6, 1), (6, 2), (6, 3)]);
}

#[test]
fn nothing_is_guessed_where_nothing_matches() {
    for text in [&[][..], &[1], &[1, 2, 3]] {
        assert_eq!(guesses(text, 4), []);
    }
    assert_eq!(guesses(&[1, 1], 0), []);
}

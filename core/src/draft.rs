//! Drafted tokens: guesses at what follows, which a pass verifies several at a time.

/// A guess. A draft is a tree of them in preorder; most are a single branch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drafted {
    /// The token.
    pub token: u32,
    /// How far behind the token returned last it stands; at least 1.
    pub depth: u32,
}

/// The longest end of a text that prompt look-up searches for.
const LONGEST_MATCH: usize = 4;

/// Guesses that a text goes on as it did before (prompt look-up): behind the latest place at which
/// its last 4 tokens stand, else its last 3, 2, or 1. If they went on in different ways, half of
/// the draft is for the one before. Where the text ends, what follows that place begins again.
///
/// `text` is `[tokens]`, of any length, and is searched whole: a caller bounds it. Fills `draft`,
/// `[guesses]` of any length, from its beginning and returns how many there are.
pub fn look_up(text: &[u32], draft: &mut [Drafted]) -> usize {
    let Some((last, before)) = text.split_last() else { return 0 };
    // This runs before every pass: most places are passed over by their last token.
    let places = before.iter().enumerate().rev().filter(|(_, token)| *token == last);
    let (mut longest, mut latest, mut earlier) = (0, 0, None);
    for (place, _) in places {
        let end = place + 1;
        let length = common_end(text, end);
        if length > longest {
            (longest, latest, earlier) = (length, end, None);
        } else if length == longest && text.get(end) != text.get(latest) {
            earlier = earlier.or(Some(end));
        }
        if longest == LONGEST_MATCH && earlier.is_some() {
            break;
        }
    }
    match earlier {
        _ if longest == 0 => 0,
        None => repeat_from(text, latest, draft),
        Some(earlier) => {
            let (first, second) = draft.split_at_mut(draft.len().div_ceil(2));
            repeat_from(text, latest, first) + repeat_from(text, earlier, second)
        }
    }
}

/// How many tokens before `end` are those that the text ends with, up to [`LONGEST_MATCH`].
fn common_end(text: &[u32], end: usize) -> usize {
    let before = text.get(..end).unwrap_or_default().iter().rev();
    let pairs = before.zip(text.iter().rev()).take(LONGEST_MATCH);
    pairs.take_while(|(a, b)| a == b).count()
}

fn repeat_from(text: &[u32], start: usize, draft: &mut [Drafted]) -> usize {
    let tokens = text.get(start..).unwrap_or_default().iter().cycle();
    for ((drafted, token), depth) in draft.iter_mut().zip(tokens).zip(1..) {
        *drafted = Drafted { token: *token, depth };
    }
    draft.len()
}

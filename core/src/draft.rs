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
/// Fills `draft` from its beginning and returns how many guesses there are. Searches the whole
/// `text`: a caller bounds it.
pub fn look_up(text: &[u32], draft: &mut [Drafted]) -> usize {
    let matching = |end: usize| {
        let before = text.get(..end).unwrap_or_default().iter().rev();
        let pairs = before.zip(text.iter().rev()).take(LONGEST_MATCH);
        pairs.take_while(|(a, b)| a == b).count()
    };
    let longest = (1..text.len()).map(matching).max().filter(|length| *length > 0);
    let Some(longest) = longest else { return 0 };
    let mut ends = (1..text.len()).rev().filter(|end| matching(*end) == longest);
    let Some(latest) = ends.next() else { return 0 };
    let Some(earlier) = ends.find(|end| text.get(*end) != text.get(latest)) else {
        return repeat_from(text, latest, draft);
    };
    let (first, second) = draft.split_at_mut(draft.len().div_ceil(2));
    repeat_from(text, latest, first) + repeat_from(text, earlier, second)
}

fn repeat_from(text: &[u32], start: usize, draft: &mut [Drafted]) -> usize {
    let tokens = text.get(start..).unwrap_or_default().iter().cycle();
    for ((drafted, token), depth) in draft.iter_mut().zip(tokens).zip(1..) {
        *drafted = Drafted { token: *token, depth };
    }
    draft.len()
}

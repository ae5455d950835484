//! Byte-pair merging of one word: the lowest rank first, the leftmost of equal ranks.
//!
//! A tournament tree over the positions finds the next merge, so a word of n symbols takes O(n log n) steps whatever
//! it holds. The algorithm's result is that of Sennrich et al., "Neural Machine Translation of Rare Words with
//! Subword Units" (2016), as in `tokenizers` and SentencePiece.

use super::layout::NONE;
use super::tables::Merge;
use core::cell::Cell;

/// Working memory for one symbol of a word: the caller supplies a slice of them.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    id: u32,
    /// Rank and result of the merge with the next symbol.
    rank: u32,
    merged: u32,
    previous: u32,
    next: u32,
    /// Node of the tree: the position whose merge is the best below this node.
    best: u32,
}

impl Symbol {
    /// A symbol for filling scratch memory with.
    pub const EMPTY: Self =
        Self { id: 0, rank: NONE, merged: 0, previous: NONE, next: NONE, best: 0 };

    pub(super) const fn new(id: u32) -> Self {
        Self { id, ..Self::EMPTY }
    }

    fn set_merge(&mut self, merge: Option<Merge>) {
        (self.rank, self.merged) = merge.map_or((NONE, 0), |merge| (merge.rank, merge.id));
    }
}

/// One byte of a word, and the piece that a place of it was given.
#[cfg(feature = "piece-tries")]
impl Symbol {
    pub(super) const fn of_byte(byte: u8) -> Self {
        Self::new(byte as u32)
    }

    pub(super) const fn byte(&self) -> u8 {
        self.id as u8
    }

    pub(super) const fn piece(&self) -> u32 {
        self.merged
    }

    pub(super) const fn set_piece(&mut self, id: u32) {
        self.merged = id;
    }

    /// Whether a path leads here.
    pub(super) const fn reached(&self) -> bool {
        self.best != 0
    }

    /// The sum of the best path to here.
    pub(super) const fn sum(&self) -> f64 {
        f64::from_bits((self.rank as u64) << 32 | self.next as u64)
    }

    /// Where the last piece of the best path begins; once paths are turned, where its next piece ends.
    pub(super) const fn start(&self) -> u32 {
        self.previous
    }

    /// Ends a path here.
    pub(super) const fn reach(&mut self, start: u32, id: u32, sum: f64) {
        let bits = sum.to_bits();
        (self.rank, self.next) = ((bits >> 32) as u32, bits as u32);
        (self.previous, self.merged, self.best) = (start, id, 1);
    }

    /// Goes on with a piece from here.
    pub(super) const fn lead(&mut self, end: u32, id: u32) {
        (self.previous, self.merged) = (end, id);
    }
}

impl Default for Symbol {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Up to this many symbols, looking at all of them is quicker than keeping the tree.
const SCAN: usize = 32;

/// A word while it is merged. Positions outside it read as [`Symbol::EMPTY`].
struct Word<'s> {
    symbols: &'s mut [Symbol],
    length: u32,
    steps: u64,
}

impl Word<'_> {
    fn at(&self, position: u32) -> Symbol {
        self.symbols.get(position as usize).copied().unwrap_or(Symbol::EMPTY)
    }

    fn change(&mut self, position: u32, change: impl FnOnce(&mut Symbol)) {
        if let Some(symbol) = self.symbols.get_mut(position as usize) {
            change(symbol);
        }
    }

    /// The better of two positions: lower rank, then further left.
    fn better(&self, a: u32, b: u32) -> u32 {
        if (self.at(b).rank, b) < (self.at(a).rank, a) { b } else { a }
    }

    /// The winner of node `node`: nodes `length..2 * length` are the positions themselves.
    fn winner(&self, node: u32) -> u32 {
        if node >= self.length { node - self.length } else { self.at(node).best }
    }

    fn play(&mut self, node: u32) -> u32 {
        self.steps += 1;
        let best = self.better(self.winner(2 * node), self.winner(2 * node + 1));
        self.change(node, |symbol| symbol.best = best);
        best
    }

    /// Plays the matches of `position` again after its rank changed.
    fn replay(&mut self, position: u32) {
        let mut node = (position + self.length) / 2;
        while node > 0 {
            let before = self.at(node).best;
            if self.play(node) == before && before != position {
                break;
            }
            node /= 2;
        }
    }

    fn set_merge(&mut self, position: u32, merge: Option<Merge>) {
        self.change(position, |symbol| symbol.set_merge(merge));
    }
}

/// Merges the ids of `symbols` until no merge is left, then gives the ids that remain to `emit`, in order.
/// Returns the steps taken.
pub(super) fn merge<E>(
    symbols: &mut [Symbol],
    look_up: impl FnMut(u32, u32) -> Result<Option<Merge>, E>,
    emit: impl FnMut(u32) -> Result<(), E>,
) -> Result<u64, E> {
    if symbols.len() <= SCAN { scan(symbols, look_up, emit) } else { play(symbols, look_up, emit) }
}

/// Merges a short word: looks at all its symbols for each merge, and closes the gap.
fn scan<E>(
    symbols: &mut [Symbol],
    mut look_up: impl FnMut(u32, u32) -> Result<Option<Merge>, E>,
    mut emit: impl FnMut(u32) -> Result<(), E>,
) -> Result<u64, E> {
    let symbols = Cell::from_mut(symbols).as_slice_of_cells();
    let mut pair = |left: &Cell<Symbol>, right: Option<&Cell<Symbol>>| {
        let mut symbol = left.get();
        let merge = match right {
            Some(right) => look_up(symbol.id, right.get().id)?,
            None => None,
        };
        symbol.set_merge(merge);
        left.set(symbol);
        Ok(())
    };
    for (at, left) in symbols.iter().enumerate() {
        pair(left, symbols.get(at + 1))?;
    }
    let (mut live, mut steps) = (symbols, 0);
    loop {
        steps += live.len() as u64;
        let ranks =
            live.iter().zip(0u64..).map(|(symbol, at)| u64::from(symbol.get().rank) << 32 | at);
        let best = ranks.min().unwrap_or(u64::MAX);
        let (rank, at) = ((best >> 32) as u32, best as u32 as usize);
        let Some([left, gap @ ..]) = live.get(at..).filter(|_| rank != NONE) else { break };
        left.set(Symbol::new(left.get().merged));
        for pair in gap.windows(2) {
            if let [to, from] = pair {
                to.set(from.get());
            }
        }
        live = live.split_last().map_or(live, |(_, rest)| rest);
        pair(left, live.get(at + 1))?;
        if let Some(previous) = at.checked_sub(1).and_then(|previous| live.get(previous)) {
            pair(previous, Some(left))?;
        }
    }
    live.iter().try_for_each(|symbol| emit(symbol.get().id))?;
    Ok(steps)
}

/// Merges a long word: the tree tells the best merge, and three paths of it change with each.
fn play<E>(
    symbols: &mut [Symbol],
    mut look_up: impl FnMut(u32, u32) -> Result<Option<Merge>, E>,
    mut emit: impl FnMut(u32) -> Result<(), E>,
) -> Result<u64, E> {
    let length = symbols.len() as u32;
    let mut word = Word { symbols, length, steps: 0 };
    for position in 0..length {
        let (id, next) = (word.at(position).id, position + 1);
        let merge = if next < length { look_up(id, word.at(next).id)? } else { None };
        word.set_merge(position, merge);
        let previous = position.wrapping_sub(1);
        word.change(position, |symbol| (symbol.previous, symbol.next) = (previous, next));
    }
    (1..length).rev().for_each(|node| {
        word.play(node);
    });
    loop {
        let left = word.winner(1);
        let Symbol { rank, merged, previous, next: right, .. } = word.at(left);
        if rank == NONE {
            break;
        }
        let next = word.at(right).next;
        word.set_merge(right, None);
        word.change(left, |symbol| (symbol.id, symbol.next) = (merged, next));
        word.change(next, |symbol| symbol.previous = left);
        let with_next = if next < length { look_up(merged, word.at(next).id)? } else { None };
        word.set_merge(left, with_next);
        if previous != NONE {
            let with_previous = look_up(word.at(previous).id, merged)?;
            word.set_merge(previous, with_previous);
        }
        word.replay(right);
        word.replay(left);
        if previous != NONE {
            word.replay(previous);
        }
    }
    let mut position = 0;
    while position < length {
        let symbol = word.at(position);
        emit(symbol.id)?;
        position = symbol.next;
    }
    Ok(word.steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: usize = 80;

    /// Whole table of merges of ids below 32, from a seed: about a third of the pairs merge, ranks repeat.
    fn look_up(seed: u32, left: u32, right: u32) -> Option<Merge> {
        let mixed = (seed ^ (left << 8) ^ right).wrapping_mul(0x9E37_79B9);
        let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x85EB_CA6B) >> 8;
        mixed.is_multiple_of(3).then_some(Merge { rank: (mixed >> 4) % 7, id: (mixed >> 9) % 32 })
    }

    /// The definition: again and again, the first of the best pairs.
    fn naive(seed: u32, ids: &mut [u32; LONGEST], mut length: usize) -> usize {
        loop {
            let pairs =
                ids.iter().zip(ids.iter().skip(1)).take(length.saturating_sub(1)).enumerate();
            let merges =
                pairs.filter_map(|(at, (&a, &b))| look_up(seed, a, b).map(|m| (m.rank, at, m.id)));
            let Some((_, at, id)) = merges.min() else { return length };
            ids.copy_within(at + 2..length, at + 1);
            ids.iter_mut().skip(at).take(1).for_each(|first| *first = id);
            length -= 1;
        }
    }

    #[test]
    fn merging_is_what_its_definition_says() {
        for seed in 0..2000u32 {
            let length = seed as usize % LONGEST + 1;
            let mut expected = [0; LONGEST];
            let mut symbols = [Symbol::EMPTY; LONGEST];
            for ((expected, symbol), at) in expected.iter_mut().zip(&mut symbols).zip(0u32..) {
                *expected = at.wrapping_mul(seed ^ 0x5555).wrapping_mul(0x9E37_79B9) >> 27;
                *symbol = Symbol::new(*expected);
            }
            let mut found = [0; LONGEST];
            let mut places = found.iter_mut();
            let (word, _) = symbols.split_at_mut(length);
            let merged = merge(
                word,
                |left, right| Ok(look_up(seed, left, right)),
                |id| places.next().map(|place| *place = id).ok_or(()),
            );
            let left = places.len();
            let expected_length = naive(seed, &mut expected, length);
            assert!(merged.is_ok());
            assert_eq!(LONGEST - left, expected_length);
            assert!(found.iter().zip(&expected).take(expected_length).all(|(a, b)| a == b));
        }
    }
}

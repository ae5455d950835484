//! Memory of their own for pages that are not read in order: experts that a router chose, rows of
//! tables. So they push nothing out of the ring, and what is asked for often stays.
//!
//! What is announced is read as soon as there is room for it: it takes the place of what was used
//! least often, of equals any. LRU would keep nothing where a pass needs more than there is room
//! for, since what it keeps is wanted last; counts keep the experts that are chosen most. They are
//! halved now and then, so that what was chosen long ago gives way.

use super::reader::{ALIGNMENT, Buffer, State, buffer};
use super::tiles::{READS_ASIDE, Tile, Tiles};
use crate::{Error, Result};
use omex_hal::PageErrorKind;
use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;

/// Announcements that are remembered.
const ANNOUNCEMENTS: usize = 1024;

/// After this many reads for each slot, counts are halved.
const HALVED_AFTER: usize = 4;

/// Bytes that a slot takes besides its buffer.
const SLOT_BYTES: usize = size_of::<Slot>() + size_of::<(u32, u32)>();

/// Bytes of memory that `count` tiles of `tile_pages` pages take that are read out of order.
pub(crate) fn aside_bytes(page_size: u32, tile_pages: u32, count: usize) -> u64 {
    let tile = (page_size as usize * tile_pages as usize).next_multiple_of(ALIGNMENT);
    (count * (tile + SLOT_BYTES)) as u64
}

/// Tiles of a space, read as they are announced or asked for.
pub(super) struct Region {
    /// How the space is cut here.
    cut: Tiles,
    slots: Vec<Slot>,
    /// Which slot a tile lies in, by rising numbers of tiles.
    index: Vec<(u32, u32)>,
    /// Tiles that were announced and are not being read yet.
    queue: VecDeque<Range<u32>>,
    /// The slot that was returned last, unless something else was.
    current: Option<u32>,
    /// Counts announcements.
    turn: u64,
    /// Says which of equals gives way.
    random: u32,
    reading: usize,
    reads: usize,
    /// Bytes that were read.
    held: u64,
}

struct Slot {
    tile: Option<u32>,
    state: State,
    /// How often it was used, as far as that counts.
    uses: u32,
    /// When it was announced, until it is used.
    announced: Option<u64>,
    /// When it was announced once more, before it was used: what two announcements have in common may be
    /// used twice, with others in between.
    once_more: Option<u64>,
}

/// A read to begin.
pub(super) struct Claim {
    pub(super) slot: u32,
    pub(super) tile: Tile,
    pub(super) buffer: Buffer,
}

/// What has become of a tile.
pub(super) enum Found {
    Absent,
    Reading,
    Ready(u32),
    Failed(u32, PageErrorKind),
}

impl Region {
    /// A region of `slots` tiles, cut as `cut` says.
    ///
    /// # Errors
    /// No address space is left.
    pub(super) fn new(cut: Tiles, slots: usize) -> Result<Self> {
        let slot = |_| {
            let state = State::Ready(buffer(cut.tile_bytes)?);
            Ok(Slot { tile: None, state, uses: 0, announced: None, once_more: None })
        };
        let failed = |e| Error::io(Path::new("memory"), "get", e);
        let slots: Vec<_> =
            (0..slots.max(2)).map(slot).collect::<std::io::Result<_>>().map_err(failed)?;
        let index = Vec::with_capacity(slots.len());
        let queue = VecDeque::with_capacity(ANNOUNCEMENTS);
        let (current, turn, random, reading, reads, held) = (None, 0, 1, 0, 0, 0);
        Ok(Self { cut, slots, index, queue, current, turn, random, reading, reads, held })
    }

    /// Bytes that were read and lie here.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// The tile that a page lies in.
    pub(super) fn tile_of(&self, page: u32) -> Option<u32> {
        self.cut.at(page)
    }

    fn tile_length(&self, tile: Option<u32>) -> u64 {
        tile.and_then(|tile| self.cut.tile(tile)).map_or(0, |tile| tile.length as u64)
    }

    fn place(&self, tile: u32) -> Result<usize, usize> {
        self.index.binary_search_by_key(&tile, |(tile, _)| *tile)
    }

    fn slot_of(&self, tile: u32) -> Option<u32> {
        let place = self.place(tile).ok()?;
        self.index.get(place).map(|(_, slot)| *slot)
    }

    /// What has become of a tile.
    pub(super) fn find(&self, tile: u32) -> Found {
        let found = self.slot_of(tile);
        match found.and_then(|slot| Some((slot, &self.slots.get(slot as usize)?.state))) {
            None => Found::Absent,
            Some((_, State::Reading(_))) => Found::Reading,
            Some((slot, State::Ready(_))) => Found::Ready(slot),
            Some((slot, State::Failed(kind, _))) => Found::Failed(slot, *kind),
        }
    }

    /// Has pages read when there is room for them.
    pub(super) fn announce(&mut self, pages: &Range<u32>) {
        let last = pages.end.saturating_sub(1);
        if let (Some(first), Some(last)) = (self.tile_of(pages.start), self.tile_of(last))
            && self.queue.len() < ANNOUNCEMENTS
        {
            self.queue.push_back(first..last + 1);
        }
    }

    /// The next read that was announced and that there is room for.
    pub(super) fn next_read(&mut self) -> Option<Claim> {
        while self.reading < READS_ASIDE {
            let tile = self.queue.front()?.start;
            let Some(slot) = self.slot_of(tile) else {
                let slot = self.victim(false)?;
                self.leave_queue(tile);
                self.turn += 1;
                return self.claim(slot, tile, Some(self.turn));
            };
            self.leave_queue(tile);
            self.turn += 1;
            let turn = self.turn;
            if let Some(slot) = self.slots.get_mut(slot as usize) {
                match slot.announced {
                    None => slot.announced = Some(turn),
                    Some(_) => slot.once_more = Some(turn),
                }
            }
        }
        None
    }

    /// A read of a tile that was asked for before it was read; `None` while all that could give way
    /// is being read itself.
    pub(super) fn demand(&mut self, tile: u32) -> Option<Claim> {
        self.current = None;
        let slot = self.victim(true)?;
        if let Some(place) = self.queue.iter().position(|tiles| tiles.contains(&tile)) {
            self.queue.drain(..place);
            self.leave_queue(tile);
        }
        self.claim(slot, tile, None)
    }

    /// The first announcement goes on behind a tile.
    fn leave_queue(&mut self, tile: u32) {
        if let Some(first) = self.queue.front_mut() {
            first.start = tile + 1;
            if first.start >= first.end {
                self.queue.pop_front();
            }
        }
    }

    /// The slot to be read into. What is announced gives way only to what is asked for, the last
    /// announced first.
    fn victim(&mut self, asked: bool) -> Option<u32> {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let first = (self.random >> 8) as usize % self.slots.len();
        let free = |(number, slot): &(u32, &Slot)| {
            self.current != Some(*number)
                && !slot.state.is_reading()
                && (asked || slot.announced.is_none())
        };
        let worth = |(_, slot): &(u32, &Slot)| {
            (slot.tile.is_some(), slot.announced.map(|turn| u64::MAX - turn), slot.uses)
        };
        let slots = (0..).zip(&self.slots);
        let slots = slots.clone().skip(first).chain(slots.take(first));
        slots.filter(free).min_by_key(worth).map(|(number, _)| number)
    }

    /// Gives a slot to a tile.
    fn claim(&mut self, slot: u32, tile: u32, announced: Option<u64>) -> Option<Claim> {
        self.forget(slot);
        let found = self.cut.tile(tile)?;
        let place = self.place(tile).err()?;
        let state = State::Reading(0);
        let new = Slot { tile: Some(tile), state, uses: 0, announced, once_more: None };
        let (State::Ready(buffer) | State::Failed(_, buffer)) =
            std::mem::replace(self.slots.get_mut(slot as usize)?, new).state
        else {
            return None;
        };
        self.index.insert(place, (tile, slot));
        self.count_read();
        Some(Claim { slot, tile: found, buffer })
    }

    /// Reads a slot's tile once more.
    pub(super) fn again(&mut self, slot: u32) -> Option<Claim> {
        let again = self.slots.get_mut(slot as usize)?;
        let tile = self.cut.tile(again.tile?)?;
        let buffer = again.state.take_failed()?;
        self.count_read();
        Some(Claim { slot, tile, buffer })
    }

    fn count_read(&mut self) {
        self.reading += 1;
        self.reads += 1;
        if self.reads >= HALVED_AFTER * self.slots.len() {
            self.reads = 0;
            self.slots.iter_mut().for_each(|slot| slot.uses /= 2);
        }
    }

    /// Takes a slot from its tile.
    fn forget(&mut self, slot: u32) {
        let Some(old) = self.slots.get_mut(slot as usize) else { return };
        let ready = old.state.buffer().is_some();
        let Some(tile) = old.tile.take() else { return };
        if ready {
            self.held -= self.tile_length(Some(tile));
        }
        if let Ok(place) = self.place(tile) {
            self.index.remove(place);
        }
    }

    /// Notes the number of a slot's read.
    pub(super) fn begun(&mut self, slot: u32, id: u64) {
        if let Some(slot) = self.slots.get_mut(slot as usize) {
            slot.state = State::Reading(id);
        }
    }

    /// Notes how a read ended.
    pub(super) fn ended(&mut self, id: u64, end: State) {
        let mut slots = self.slots.iter_mut();
        let Some(slot) = slots.find(|slot| slot.state.is_read(id)) else { return };
        let (tile, ready) = (slot.tile, end.buffer().is_some());
        slot.state = end;
        self.reading = self.reading.saturating_sub(1);
        if ready {
            self.held += self.tile_length(tile);
        }
    }

    /// Returns a slot next: announcements before its own were passed over.
    pub(super) fn enter(&mut self, number: u32) {
        self.current = Some(number);
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        slot.uses = slot.uses.saturating_add(1);
        if let Some(turn) = slot.announced {
            let passed = |slot: &&mut Slot| slot.announced.is_some_and(|other| other <= turn);
            self.slots.iter_mut().filter(passed).for_each(|slot| {
                slot.announced = slot.once_more.take().filter(|other| *other > turn);
            });
        }
    }

    /// Something else is returned next.
    pub(super) fn leave(&mut self) {
        self.current = None;
    }

    /// True if what was returned last lies here.
    pub(super) fn is_in_use(&self) -> bool {
        self.current.is_some()
    }

    /// True if a page was announced, is being read or was, and not used yet.
    pub(super) fn is_announced(&self, page: u32) -> bool {
        let slot = self.tile_of(page).and_then(|tile| self.slot_of(tile));
        let slot = slot.and_then(|slot| self.slots.get(slot as usize));
        slot.is_some_and(|slot| slot.announced.is_some())
    }

    /// True if a page lies in what was returned last.
    pub(super) fn is_current(&self, page: u32) -> bool {
        self.current.is_some() && self.bytes(page).is_some()
    }

    /// The bytes from a page on, in the slot that is returned.
    pub(super) fn bytes(&self, page: u32) -> Option<&[u8]> {
        let slot = self.slots.get(self.current? as usize)?;
        let tile = self.cut.tile(slot.tile?)?;
        let before = page.checked_sub(tile.page)? as usize * self.cut.page_bytes();
        slot.state.buffer()?.get(before..tile.length).filter(|bytes| !bytes.is_empty())
    }

    /// Has a page read anew when it is asked for.
    pub(super) fn discard(&mut self, page: u32) {
        let Some(slot) = self.tile_of(page).and_then(|tile| self.slot_of(tile)) else { return };
        let Some(discarded) = self.slots.get_mut(slot as usize) else { return };
        if discarded.state.discard() {
            let tile = discarded.tile;
            self.held -= self.tile_length(tile);
        }
        if self.current == Some(slot) {
            self.current = None;
        }
    }
}

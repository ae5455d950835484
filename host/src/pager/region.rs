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

/// After this many reads for each frame, counts are halved.
const HALVED_AFTER: usize = 4;

/// Bytes that a frame takes besides its buffer.
const FRAME_BYTES: usize = size_of::<Frame>() + size_of::<(u32, u32)>();

/// Bytes of memory that `count` tiles of `tile_pages` pages take that are read out of order.
pub(crate) fn aside_bytes(page_size: u32, tile_pages: u32, count: usize) -> u64 {
    let tile = (page_size as usize * tile_pages as usize).next_multiple_of(ALIGNMENT);
    (count * (tile + FRAME_BYTES)) as u64
}

/// Tiles of a space, read as they are announced or asked for.
pub(super) struct Region {
    /// How the space is cut here.
    cut: Tiles,
    frames: Vec<Frame>,
    /// Which frame a tile lies in, by rising numbers of tiles.
    index: Vec<(u32, u32)>,
    /// Tiles that were announced and are not being read yet.
    queue: VecDeque<Range<u32>>,
    /// The frame that was returned last, unless something else was.
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

/// Room for a tile.
struct Frame {
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
    pub(super) frame: u32,
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
    /// A region of `frames` frames, for tiles cut as `cut` says.
    ///
    /// # Errors
    /// No address space is left.
    pub(super) fn new(cut: Tiles, frames: usize) -> Result<Self> {
        let frame = |_| {
            let state = State::Ready(buffer(cut.tile_bytes)?);
            Ok(Frame { tile: None, state, uses: 0, announced: None, once_more: None })
        };
        let failed = |e| Error::io(Path::new("memory"), "get", e);
        let frames: Vec<_> =
            (0..frames.max(2)).map(frame).collect::<std::io::Result<_>>().map_err(failed)?;
        let index = Vec::with_capacity(frames.len());
        let queue = VecDeque::with_capacity(ANNOUNCEMENTS);
        let (current, turn, random, reading, reads, held) = (None, 0, 1, 0, 0, 0);
        Ok(Self { cut, frames, index, queue, current, turn, random, reading, reads, held })
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

    fn frame_of(&self, tile: u32) -> Option<u32> {
        let place = self.place(tile).ok()?;
        self.index.get(place).map(|(_, frame)| *frame)
    }

    /// What has become of a tile.
    pub(super) fn find(&self, tile: u32) -> Found {
        let found = self.frame_of(tile);
        match found.and_then(|frame| Some((frame, &self.frames.get(frame as usize)?.state))) {
            None => Found::Absent,
            Some((_, State::Reading(_))) => Found::Reading,
            Some((frame, State::Ready(_))) => Found::Ready(frame),
            Some((frame, State::Failed(kind, _))) => Found::Failed(frame, *kind),
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
            let Some(frame) = self.frame_of(tile) else {
                let frame = self.victim(false)?;
                self.leave_queue(tile);
                self.turn += 1;
                return self.claim(frame, tile, Some(self.turn));
            };
            self.leave_queue(tile);
            self.turn += 1;
            let turn = self.turn;
            if let Some(frame) = self.frames.get_mut(frame as usize) {
                match frame.announced {
                    None => frame.announced = Some(turn),
                    Some(_) => frame.once_more = Some(turn),
                }
            }
        }
        None
    }

    /// A read of a tile that was asked for before it was read; `None` while all that could give way
    /// is being read itself.
    pub(super) fn demand(&mut self, tile: u32) -> Option<Claim> {
        self.current = None;
        let frame = self.victim(true)?;
        if let Some(place) = self.queue.iter().position(|tiles| tiles.contains(&tile)) {
            self.queue.drain(..place);
            self.leave_queue(tile);
        }
        self.claim(frame, tile, None)
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

    /// The frame to be read into. What is announced gives way only to what is asked for, the last
    /// announced first.
    fn victim(&mut self, asked: bool) -> Option<u32> {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let first = (self.random >> 8) as usize % self.frames.len();
        let free = |(number, frame): &(u32, &Frame)| {
            self.current != Some(*number)
                && !frame.state.is_reading()
                && (asked || frame.announced.is_none())
        };
        let worth = |(_, frame): &(u32, &Frame)| {
            (frame.tile.is_some(), frame.announced.map(|turn| u64::MAX - turn), frame.uses)
        };
        let frames = (0..).zip(&self.frames);
        let frames = frames.clone().skip(first).chain(frames.take(first));
        frames.filter(free).min_by_key(worth).map(|(number, _)| number)
    }

    /// Gives a frame to a tile.
    fn claim(&mut self, frame: u32, tile: u32, announced: Option<u64>) -> Option<Claim> {
        self.forget(frame);
        let found = self.cut.tile(tile)?;
        let place = self.place(tile).err()?;
        let state = State::Reading(0);
        let new = Frame { tile: Some(tile), state, uses: 0, announced, once_more: None };
        let (State::Ready(buffer) | State::Failed(_, buffer)) =
            std::mem::replace(self.frames.get_mut(frame as usize)?, new).state
        else {
            return None;
        };
        self.index.insert(place, (tile, frame));
        self.count_read();
        Some(Claim { frame, tile: found, buffer })
    }

    /// Reads a frame's tile once more.
    pub(super) fn again(&mut self, frame: u32) -> Option<Claim> {
        let again = self.frames.get_mut(frame as usize)?;
        let tile = self.cut.tile(again.tile?)?;
        let buffer = again.state.take_failed()?;
        self.count_read();
        Some(Claim { frame, tile, buffer })
    }

    fn count_read(&mut self) {
        self.reading += 1;
        self.reads += 1;
        if self.reads >= HALVED_AFTER * self.frames.len() {
            self.reads = 0;
            self.frames.iter_mut().for_each(|frame| frame.uses /= 2);
        }
    }

    /// Takes a frame from its tile.
    fn forget(&mut self, frame: u32) {
        let Some(old) = self.frames.get_mut(frame as usize) else { return };
        let ready = old.state.buffer().is_some();
        let Some(tile) = old.tile.take() else { return };
        if ready {
            self.held -= self.tile_length(Some(tile));
        }
        if let Ok(place) = self.place(tile) {
            self.index.remove(place);
        }
    }

    /// Notes the number of a frame's read.
    pub(super) fn begun(&mut self, frame: u32, id: u64) {
        if let Some(frame) = self.frames.get_mut(frame as usize) {
            frame.state = State::Reading(id);
        }
    }

    /// Notes how a read ended.
    pub(super) fn ended(&mut self, id: u64, end: State) {
        let mut frames = self.frames.iter_mut();
        let Some(frame) = frames.find(|frame| frame.state.is_read(id)) else { return };
        let (tile, ready) = (frame.tile, end.buffer().is_some());
        frame.state = end;
        self.reading = self.reading.saturating_sub(1);
        if ready {
            self.held += self.tile_length(tile);
        }
    }

    /// Returns a frame next: announcements before its own were passed over.
    pub(super) fn enter(&mut self, number: u32) {
        self.current = Some(number);
        let Some(frame) = self.frames.get_mut(number as usize) else { return };
        frame.uses = frame.uses.saturating_add(1);
        if let Some(turn) = frame.announced {
            let passed = |frame: &&mut Frame| frame.announced.is_some_and(|other| other <= turn);
            self.frames.iter_mut().filter(passed).for_each(|frame| {
                frame.announced = frame.once_more.take().filter(|other| *other > turn);
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
        let frame = self.tile_of(page).and_then(|tile| self.frame_of(tile));
        let frame = frame.and_then(|frame| self.frames.get(frame as usize));
        frame.is_some_and(|frame| frame.announced.is_some())
    }

    /// True if a page lies in what was returned last.
    pub(super) fn is_current(&self, page: u32) -> bool {
        self.current.is_some() && self.bytes(page).is_some()
    }

    /// The bytes from a page on, in the frame that is returned.
    pub(super) fn bytes(&self, page: u32) -> Option<&[u8]> {
        let frame = self.frames.get(self.current? as usize)?;
        let tile = self.cut.tile(frame.tile?)?;
        let before = page.checked_sub(tile.page)? as usize * self.cut.page_bytes();
        frame.state.buffer()?.get(before..tile.length).filter(|bytes| !bytes.is_empty())
    }

    /// Has a page read anew when it is asked for.
    pub(super) fn discard(&mut self, page: u32) {
        let Some(frame) = self.tile_of(page).and_then(|tile| self.frame_of(tile)) else { return };
        let Some(discarded) = self.frames.get_mut(frame as usize) else { return };
        if discarded.state.discard() {
            let tile = discarded.tile;
            self.held -= self.tile_length(tile);
        }
        if self.current == Some(frame) {
            self.current = None;
        }
    }
}

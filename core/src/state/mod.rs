//! States: what a text keeps from one pass to the next. Each has its own kind and shape, and its own
//! place in memory.

pub mod kv;
mod store;

pub use crate::error::{KvError, KvErrorKind};
pub use store::StateStore;

use crate::plan::Plan;
use core::ops::Range;
use kv::{KvShape, Window};

/// What a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Keys and values of past positions.
    Kv {
        /// Number of key and value heads.
        heads: u32,
        /// Width of a head.
        width: u32,
        /// Positions that a query sees at most, its own included (sliding window); 0 for all that
        /// the plan has room for.
        window: u32,
    },
    /// Bytes of a recurrence or a convolution; zeros where a text begins.
    Bytes(u32),
}

impl State {
    /// Bytes of a record: kind (u32; 0 keys and values, 1 bytes), heads or bytes, width, window (u32
    /// each).
    pub const RECORD_BYTES: usize = 16;

    /// The record.
    #[must_use]
    pub fn to_record(&self) -> [u8; Self::RECORD_BYTES] {
        let words = match *self {
            Self::Kv { heads, width, window } => [0, heads, width, window],
            Self::Bytes(bytes) => [1, bytes, 0, 0],
        };
        let mut record = [0; Self::RECORD_BYTES];
        for (bytes, word) in record.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        record
    }

    pub(crate) fn from_record(record: &[u8; Self::RECORD_BYTES]) -> Option<Self> {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(record.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        match words {
            [0, heads, width, window] => Some(Self::Kv { heads, width, window }),
            [1, bytes, 0, 0] => Some(Self::Bytes(bytes)),
            _ => None,
        }
    }
}

impl Plan {
    /// Where the positions of a KV cache with this window lie.
    ///
    /// A sliding window that is shorter than the plan's context has room for one pass more than it
    /// shows, so that no column of a pass replaces what another still sees.
    #[must_use]
    pub fn window(&self, window: u32) -> Window {
        let Plan { kv_capacity, kv_sinks, columns, .. } = *self;
        if window == 0 || window >= kv_capacity {
            return Window { visible: kv_capacity, sinks: kv_sinks, places: kv_capacity };
        }
        let places = window.saturating_add(columns).saturating_sub(1);
        let places = places.next_multiple_of(kv::ALIGNED_POSITIONS);
        Window { visible: window, sinks: 0, places }
    }

    /// The shape of the KV cache that a state is; `None` for bytes.
    #[must_use]
    pub fn cache_shape(&self, state: &State) -> Option<KvShape> {
        let State::Kv { heads, width, window } = *state else { return None };
        let places = self.window(window).places;
        Some(KvShape { format: self.kv_format, heads, width, capacity: places })
    }

    /// Bytes of a state of one sequence; a multiple of 16.
    #[must_use]
    pub fn state_bytes(&self, state: &State) -> u64 {
        match state {
            State::Bytes(bytes) => u64::from(*bytes).next_multiple_of(16),
            State::Kv { .. } => self.cache_shape(state).map_or(0, |shape| shape.bytes()),
        }
    }

    /// Which bytes of a state hold a sequence's first `length` positions: parts of a KV cache, and all
    /// of another state. The state fits into memory.
    pub fn held_ranges(
        &self,
        state: &State,
        length: u32,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let shape = self.cache_shape(state);
        let whole = 0..if shape.is_none() { self.state_bytes(state) as usize } else { 0 };
        let of_cache = shape.into_iter().flat_map(move |shape| shape.ranges(0..length));
        of_cache.chain((!whole.is_empty()).then_some(whole))
    }
}

/// How far a text can go on and go back under a plan, by the states that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Positions that can be taken back as long as the text is no longer than this.
    pub(crate) rewinds: u32,
    /// Whether what the last pass ran can be taken back.
    pub(crate) accepts: Accepts,
}

/// What of the last pass can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// Everything while the text is no longer than this.
    UpTo(u32),
    /// Nothing: a recurrence goes only on.
    All,
}

impl Reach {
    pub(crate) fn new(states: impl Iterator<Item = State>, plan: &Plan) -> Self {
        let mut reach = Self { rewinds: u32::MAX, accepts: Accepts::UpTo(u32::MAX) };
        for state in states {
            match state {
                State::Bytes(_) => return Self { rewinds: 0, accepts: Accepts::All },
                State::Kv { window, .. } => {
                    let window = plan.window(window);
                    reach.rewinds = reach.rewinds.min(window.visible);
                    if !window.slides()
                        && let Accepts::UpTo(most) = &mut reach.accepts
                    {
                        *most = (*most).min(window.visible);
                    }
                }
            }
        }
        reach
    }

    /// True if a sequence that ends at `end` can go on at `position`: there, at its beginning, or
    /// further back while no newer position has replaced one that is still to be seen.
    pub(crate) fn may_follow(&self, position: u32, end: u32) -> bool {
        position == end || position == 0 || position < end && end <= self.rewinds
    }

    /// True if of a pass that went up to `furthest`, what lies behind `end` can be taken back.
    pub(crate) fn may_accept(&self, end: u32, furthest: u32) -> bool {
        match self.accepts {
            _ if end == furthest => true,
            Accepts::UpTo(most) => furthest <= most,
            Accepts::All => false,
        }
    }
}

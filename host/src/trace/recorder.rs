//! What is noted while a model runs.

use super::timeline::{Sample, Timeline};
use crate::system::resident_bytes;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Reads, stalls and passes that are kept, of each.
const MOST: usize = 1 << 14;
/// Seconds between two looks at the memory that is resident, each of which takes some microseconds.
const LOOKING: f64 = 5e-3;

/// The first ones of what may be many.
#[derive(Clone, Debug, Default)]
pub struct Kept<T> {
    /// Those that are kept.
    pub first: Vec<T>,
    /// How many more there were.
    pub left_out: u64,
}

impl<T> Kept<T> {
    fn push(&mut self, one: T) {
        if self.first.len() < MOST { self.first.push(one) } else { self.left_out += 1 }
    }
}

/// A read, from its beginning until the engine could know that it was done. Times are in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReadSpan {
    /// When it began.
    pub begin: f64,
    /// When it ended.
    pub end: f64,
    /// Bytes that it brought.
    pub bytes: u64,
}

/// A time in which the engine waited for a read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// When it began.
    pub begin: f64,
    /// When it ended.
    pub end: f64,
}

/// A pass.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pass {
    /// When it began.
    pub begin: f64,
    /// When it ended.
    pub end: f64,
    /// Tokens that it ran.
    pub tokens: u64,
}

/// What happened, one after another.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Reads, in the order in which they began.
    pub reads: Kept<ReadSpan>,
    /// Stalls.
    pub stalls: Kept<Stall>,
    /// Passes.
    pub passes: Kept<Pass>,
}

/// Sums over a run, and peaks in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Seconds until the last pass ended.
    pub(super) seconds: f64,
    pub(super) passes: u64,
    pub(super) pass_seconds: f64,
    pub(super) reads: u64,
    pub(super) read_bytes: u64,
    /// Seconds with reads under way.
    pub(super) reading_seconds: f64,
    pub(super) stalled_seconds: f64,
    pub(super) peak_pinned: u64,
    pub(super) peak_ring: u64,
    pub(super) peak_kv: u64,
}

/// Notes what happens, in memory that is bounded.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    now: Sample,
    looked: f64,
    kv_bytes_per_position: u64,
    context: u32,
    pub(super) timeline: Timeline,
    pub(super) events: Events,
    pub(super) totals: Totals,
}

/// What a pager holds. All but the number of reads are bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    pub(super) pinned: u64,
    pub(super) ring: u64,
    pub(super) reading: u64,
    pub(super) reads: u32,
}

impl Recorder {
    pub(super) fn new(kv_bytes_per_position: u64, context: u32) -> Self {
        let mut recorder = Self {
            start: Instant::now(),
            now: Sample { resident_bytes: resident_bytes(), ..Sample::default() },
            looked: 0.0,
            kv_bytes_per_position,
            context,
            timeline: Timeline::new(),
            events: Events::default(),
            totals: Totals::default(),
        };
        recorder.note();
        recorder
    }

    /// Seconds since the beginning.
    pub(super) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Notes what a pager holds now.
    pub(super) fn pages(&mut self, pages: Pages) {
        self.advance();
        self.now.pinned_bytes = pages.pinned;
        self.now.ring_bytes = pages.ring;
        self.now.reading_bytes = pages.reading;
        self.now.reads = pages.reads;
        self.note();
    }

    pub(super) fn read(&mut self, begin: f64, bytes: u64) {
        let end = self.seconds();
        self.events.reads.push(ReadSpan { begin, end, bytes });
        self.totals.reads += 1;
        self.totals.read_bytes += bytes;
    }

    pub(super) fn stall(&mut self, begin: f64) {
        let end = self.seconds();
        self.events.stalls.push(Stall { begin, end });
        self.totals.stalled_seconds += end - begin;
        self.timeline.stalled(end - begin);
    }

    pub(super) fn pass(&mut self, began: Instant, tokens: usize) {
        let begin = began.saturating_duration_since(self.start).as_secs_f64();
        self.advance();
        let (end, tokens) = (self.now.seconds, tokens as u64);
        self.events.passes.push(Pass { begin, end, tokens });
        self.totals.passes += 1;
        self.totals.seconds = end;
        self.totals.pass_seconds += end - begin;
        self.now.tokens += tokens;
        let positions = self.now.tokens.min(u64::from(self.context));
        self.now.kv_bytes = positions * self.kv_bytes_per_position;
        self.note();
    }

    /// Goes on to the present.
    fn advance(&mut self) {
        let seconds = self.seconds();
        if self.now.reads > 0 {
            self.totals.reading_seconds += seconds - self.now.seconds;
        }
        self.now.seconds = seconds;
        if seconds >= self.looked + LOOKING {
            self.looked = seconds;
            self.now.resident_bytes = resident_bytes();
        }
    }

    /// Puts what is now into the timeline.
    fn note(&mut self) {
        let (now, totals) = (&self.now, &mut self.totals);
        self.timeline.add(*now);
        totals.peak_pinned = totals.peak_pinned.max(now.pinned_bytes);
        totals.peak_ring = totals.peak_ring.max(now.ring_bytes + now.reading_bytes);
        totals.peak_kv = totals.peak_kv.max(now.kv_bytes);
    }

    /// What was noted.
    pub(super) fn take(&mut self) -> (Vec<Sample>, Events) {
        self.advance();
        self.now.resident_bytes = resident_bytes();
        self.note();
        let mut events = std::mem::take(&mut self.events);
        events.reads.first.sort_by(|a, b| a.begin.total_cmp(&b.begin));
        (self.timeline.take(), events)
    }
}

/// Between a pager's reader and the passes, which take turns.
pub(super) fn lock(recorder: &Mutex<Recorder>) -> MutexGuard<'_, Recorder> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}

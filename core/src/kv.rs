//! The KV cache: keys and values of past positions in f16.
//!
//! The first positions stay for ever as attention sinks; the others form a ring in which the
//! newest replaces the oldest (StreamingLLM, arXiv:2309.17453).

use core::ops::Range;

/// Which positions a cache holds, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Positions that fit.
    pub capacity: u32,
    /// Positions that stay.
    pub sinks: u32,
}

impl Window {
    /// Where a position lies.
    #[must_use]
    pub fn place(&self, position: u32) -> u32 {
        if position < self.capacity {
            position
        } else {
            let ring = self.capacity.saturating_sub(self.sinks).max(1);
            self.sinks + (position - self.sinks) % ring
        }
    }

    /// The positions that a query at `position` attends to: the sinks, then those of the ring.
    #[must_use]
    pub fn visible(&self, position: u32) -> (Range<u32>, Range<u32>) {
        let end = position.saturating_add(1);
        let sinks = self.sinks.min(end);
        let ring = self.capacity.saturating_sub(self.sinks);
        (0..sinks, end.saturating_sub(ring).max(sinks)..end)
    }

    /// How far a query at `position` is turned back before it meets the sinks, so that it sees
    /// them at a distance that the cache's capacity bounds.
    #[must_use]
    pub fn sink_shift(&self, position: u32) -> u32 {
        position.saturating_sub(self.capacity.saturating_sub(1))
    }
}

/// The keys and values of one cache.
pub(crate) struct Cache<'a> {
    keys: &'a mut [u16],
    values: &'a mut [u16],
    width: usize,
    pub(crate) window: Window,
}

impl<'a> Cache<'a> {
    /// Cache number `index` of all those in `kv`, each `width` values a position for keys and as
    /// many for values.
    pub(crate) fn new(kv: &'a mut [u16], index: u32, width: u32, window: Window) -> Option<Self> {
        let half = (width as usize).checked_mul(window.capacity as usize)?;
        let cache = kv.chunks_exact_mut((2 * half).max(1)).nth(index as usize)?;
        let (keys, values) = cache.split_at_mut_checked(half)?;
        Some(Self { keys, values, width: width as usize, window })
    }

    /// Stores the key and the value of a position.
    pub(crate) fn append(&mut self, position: u32, key: &[f32], value: &[f32]) {
        let range = self.range(position, 0, self.width);
        for (cache, new) in [(&mut *self.keys, key), (&mut *self.values, value)] {
            for (bits, x) in cache.get_mut(range.clone()).into_iter().flatten().zip(new) {
                *bits = half::f16::from_f32(*x).to_bits();
            }
        }
    }

    /// `width` values from `first` on of a position's key.
    pub(crate) fn key(&self, position: u32, first: usize, width: usize) -> &[u16] {
        self.keys.get(self.range(position, first, width)).unwrap_or_default()
    }

    /// `width` values from `first` on of a position's value.
    pub(crate) fn value(&self, position: u32, first: usize, width: usize) -> &[u16] {
        self.values.get(self.range(position, first, width)).unwrap_or_default()
    }

    fn range(&self, position: u32, first: usize, width: usize) -> Range<usize> {
        let start = self.window.place(position) as usize * self.width + first;
        start..start + width
    }
}

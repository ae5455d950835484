//! The KV cache: keys and values of past positions in f16, or in f32 for models in f32.
//!
//! The first positions stay for ever as attention sinks; the others form a ring in which the
//! newest replaces the oldest (StreamingLLM, arXiv:2309.17453).

use crate::math::sum_lanes;
use crate::simd::Kernels;
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

/// The keys and values of one cache. A number is one word, f16, or two, f32.
pub(crate) struct Cache<'a> {
    keys: &'a mut [u16],
    values: &'a mut [u16],
    width: usize,
    words: usize,
    pub(crate) window: Window,
}

impl<'a> Cache<'a> {
    /// Cache number `index` of all those in `kv`, each `width` numbers a position for keys and as
    /// many for values, of `words` words each.
    pub(crate) fn new(
        kv: &'a mut [u16],
        index: u32,
        width: u32,
        window: Window,
        words: usize,
    ) -> Option<Self> {
        let width = width as usize;
        let half = width.checked_mul(window.capacity as usize)?.checked_mul(words)?;
        let cache = kv.chunks_exact_mut((2 * half).max(1)).nth(index as usize)?;
        let (keys, values) = cache.split_at_mut_checked(half)?;
        Some(Self { keys, values, width, words, window })
    }

    /// Stores the key and the value of a position.
    pub(crate) fn append(&mut self, position: u32, key: &[f32], value: &[f32]) {
        let range = self.range(position, 0, self.width);
        for (cache, new) in [(&mut *self.keys, key), (&mut *self.values, value)] {
            let numbers = cache.get_mut(range.clone()).unwrap_or_default();
            if self.words == 1 {
                for (bits, x) in numbers.iter_mut().zip(new) {
                    *bits = half::f16::from_f32(*x).to_bits();
                }
            } else {
                for (words, x) in numbers.as_chunks_mut().0.iter_mut().zip(new) {
                    *words = [x.to_bits() as u16, (x.to_bits() >> 16) as u16];
                }
            }
        }
    }

    /// The dot product of a query with a position's key from its number `first` on.
    pub(crate) fn dot(&self, kernels: &Kernels, query: &[f32], position: u32, first: usize) -> f32 {
        let key = self.keys.get(self.range(position, first, query.len())).unwrap_or_default();
        if self.words == 1 {
            return (kernels.dot_half)(query, key);
        }
        let mut lanes = [0.0; 8];
        for (query, key) in query.chunks(8).zip(key.as_chunks().0.chunks(8)) {
            for ((lane, q), k) in lanes.iter_mut().zip(query).zip(key) {
                *lane += q * float(k);
            }
        }
        sum_lanes(lanes)
    }

    /// Adds `weight` times a position's value, from its number `first` on, to `sum`.
    pub(crate) fn add(&self, kernels: &Kernels, weight: f32, position: u32, first: usize, sum: &mut [f32]) {
        let value = self.values.get(self.range(position, first, sum.len())).unwrap_or_default();
        if self.words == 1 {
            return (kernels.add_half)(weight, value, sum);
        }
        for (sum, value) in sum.iter_mut().zip(value.as_chunks().0) {
            *sum += weight * float(value);
        }
    }

    fn range(&self, position: u32, first: usize, width: usize) -> Range<usize> {
        let start = (self.window.place(position) as usize * self.width + first) * self.words;
        start..start + width * self.words
    }
}

fn float([low, high]: &[u16; 2]) -> f32 {
    f32::from_bits(u32::from(*low) | u32::from(*high) << 16)
}

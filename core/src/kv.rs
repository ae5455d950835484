//! The KV cache: keys and values of past positions.
//!
//! The first positions stay for ever as attention sinks; the others form a ring in which the
//! newest replaces the oldest (StreamingLLM, arXiv:2309.17453).

use crate::math::sum_lanes;
use crate::simd::Kernels;
use core::ops::Range;
use zerocopy::FromBytes;

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

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KvFormat {
    /// 16-bit floats: errors of 1e-3 of the logits at most, half the memory.
    Half = 0,
    /// 32-bit floats, as exact as the activations: for models whose weights are.
    Single = 1,
}

impl KvFormat {
    /// The format with this number in an image's header.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Half),
            1 => Some(Self::Single),
            _ => None,
        }
    }

    /// Bytes of one number.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Half => 2,
            Self::Single => 4,
        }
    }
}

/// The keys and values of one cache.
pub(crate) struct Cache<'a> {
    keys: Store<'a>,
    values: Store<'a>,
    width: usize,
    pub(crate) window: Window,
}

impl<'a> Cache<'a> {
    /// Cache number `index` of all those in `kv`, each `width` values a position for keys and as
    /// many for values.
    pub(crate) fn new(
        kv: &'a mut [u8],
        format: KvFormat,
        index: u32,
        width: u32,
        window: Window,
    ) -> Option<Self> {
        let values = (width as usize).checked_mul(window.capacity as usize)?;
        let bytes = values.checked_mul(format.bytes())?;
        let cache = kv.chunks_exact_mut(bytes.checked_mul(2)?.max(1)).nth(index as usize)?;
        let (keys, values) = cache.split_at_mut_checked(bytes)?;
        let (keys, values) = (Store::new(keys, format)?, Store::new(values, format)?);
        Some(Self { keys, values, width: width as usize, window })
    }

    /// Stores the key and the value of a position.
    pub(crate) fn append(&mut self, position: u32, key: &[f32], value: &[f32]) {
        let range = self.range(position, 0, self.width);
        self.keys.put(range.clone(), key);
        self.values.put(range, value);
    }

    /// The dot product of a query with a part of a position's key, from `first` on.
    pub(crate) fn score(
        &self,
        kernels: &Kernels,
        position: u32,
        first: usize,
        query: &[f32],
    ) -> f32 {
        let range = self.range(position, first, query.len());
        match &self.keys {
            Store::Half(keys) => (kernels.dot_half)(query, keys.get(range).unwrap_or_default()),
            Store::Single(keys) => dot(query, keys.get(range).unwrap_or_default()),
        }
    }

    /// Adds `weight` times a part of a position's value, from `first` on, to `sum`.
    pub(crate) fn add_value(
        &self,
        kernels: &Kernels,
        position: u32,
        first: usize,
        weight: f32,
        sum: &mut [f32],
    ) {
        let range = self.range(position, first, sum.len());
        match &self.values {
            Store::Half(values) => {
                (kernels.add_half)(weight, values.get(range).unwrap_or_default(), sum);
            }
            Store::Single(values) => {
                let values = values.get(range).unwrap_or_default();
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }

    fn range(&self, position: u32, first: usize, width: usize) -> Range<usize> {
        let start = self.window.place(position) as usize * self.width + first;
        start..start + width
    }
}

/// Numbers in one of the formats.
enum Store<'a> {
    Half(&'a mut [u16]),
    Single(&'a mut [f32]),
}

impl<'a> Store<'a> {
    fn new(bytes: &'a mut [u8], format: KvFormat) -> Option<Self> {
        match format {
            KvFormat::Half => <[u16]>::mut_from_bytes(bytes).ok().map(Self::Half),
            KvFormat::Single => <[f32]>::mut_from_bytes(bytes).ok().map(Self::Single),
        }
    }

    fn put(&mut self, range: Range<usize>, new: &[f32]) {
        match self {
            Self::Half(store) => {
                for (bits, x) in store.get_mut(range).into_iter().flatten().zip(new) {
                    *bits = half::f16::from_f32(*x).to_bits();
                }
            }
            Self::Single(store) => {
                let numbers = store.get_mut(range).into_iter().flatten();
                numbers.zip(new).for_each(|(number, x)| *number = *x);
            }
        }
    }
}

/// As [`Kernels::dot_half`], of 32-bit floats.
fn dot(query: &[f32], key: &[f32]) -> f32 {
    let mut lanes = [0.0; 8];
    for (query, key) in query.chunks(8).zip(key.chunks(8)) {
        for ((lane, q), k) in lanes.iter_mut().zip(query).zip(key) {
            *lane += q * k;
        }
    }
    sum_lanes(lanes)
}

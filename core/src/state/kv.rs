//! The KV cache: keys and values of past positions.
//!
//! The first positions stay for ever as attention sinks; the others form a ring in which the
//! newest replaces the oldest (StreamingLLM, arXiv:2309.17453).
//!
//! A cache holds one head after another: of each the keys in panels of 8 positions, number by
//! number, then the values, position by position. With [`KvFormat::Int8`], all scales come first.

use crate::simd::{KvHead, LANES};
use core::ops::Range;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Rings of sliding windows are multiples of this, so that attention meets a position at the same
/// place of a block wherever the ring begins.
pub(crate) const ALIGNED_POSITIONS: u32 = 32;

/// Which positions a cache holds, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Positions that a query sees at most.
    pub visible: u32,
    /// Positions that stay.
    pub sinks: u32,
    /// Positions that fit: those that are seen, and of a sliding window those that the columns of
    /// one pass replace.
    pub places: u32,
}

impl Window {
    /// True if the window slides: there are no sinks, and places in reserve.
    #[must_use]
    pub fn slides(&self) -> bool {
        self.places > self.visible
    }

    /// Where a position lies.
    #[must_use]
    pub fn place(&self, position: u32) -> u32 {
        if position < self.places {
            position
        } else {
            let ring = self.places.saturating_sub(self.sinks).max(1);
            self.sinks + (position - self.sinks) % ring
        }
    }

    /// The places that a query at `position` attends to behind the sinks it was shown: one range, or
    /// two where the ring of a sliding window begins anew.
    #[must_use]
    pub fn ranges(&self, position: u32, shown: u32) -> [Range<usize>; 2] {
        let end = position.saturating_add(1);
        if !self.slides() {
            return [shown as usize..end.min(self.visible) as usize, 0..0];
        }
        let oldest = end.saturating_sub(self.visible);
        let (first, last) = (self.place(oldest) as usize, self.place(position) as usize);
        if first <= last {
            [first..last + 1, 0..0]
        } else {
            [first..self.places as usize, 0..last + 1]
        }
    }

    /// The places that a query at `position` attends to, those of older positions first.
    #[must_use]
    pub fn by_age(&self, position: u32) -> [Range<usize>; 3] {
        let [first, second] = self.ranges(position, 0);
        if self.slides() || position < self.places {
            return [first, second, 0..0];
        }
        let (sinks, newest) = (self.sinks as usize, self.place(position) as usize);
        [0..sinks, newest + 1..first.end, sinks..newest + 1]
    }

    /// How far a query at `position` is turned back before it meets the sinks, so that it sees
    /// them at a distance that the cache's capacity bounds.
    #[must_use]
    pub fn sink_shift(&self, position: u32) -> u32 {
        if self.slides() { 0 } else { position.saturating_sub(self.visible.saturating_sub(1)) }
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
    /// Signed bytes with a scale for each head of a position.
    Int8 = 2,
}

impl KvFormat {
    /// The format with this number in an image's header.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Half),
            1 => Some(Self::Single),
            2 => Some(Self::Int8),
            _ => None,
        }
    }

    /// The format's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Half => "f16",
            Self::Single => "f32",
            Self::Int8 => "int8",
        }
    }

    /// True if this build has caches of this format.
    #[must_use]
    pub const fn is_played(self) -> bool {
        match self {
            Self::Half | Self::Int8 => true,
            Self::Single => cfg!(feature = "unquantized"),
        }
    }

    /// Bytes of a cache for `capacity` positions of `heads` heads with `width` numbers in all; a
    /// multiple of 16.
    #[must_use]
    pub const fn cache_bytes(self, heads: u32, width: u32, capacity: u32) -> u64 {
        let capacity = (capacity as u64).next_multiple_of(LANES as u64);
        let (number, scale) = self.widths();
        2 * capacity * (number * width as u64 + scale * heads as u64)
    }

    /// Bytes of a number, and of a scale.
    const fn widths(self) -> (u64, u64) {
        match self {
            Self::Half => (2, 0),
            Self::Single => (4, 0),
            Self::Int8 => (1, size_of::<f32>() as u64),
        }
    }
}

/// The shape of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// How keys and values are stored.
    pub format: KvFormat,
    /// Number of key and value heads.
    pub heads: u32,
    /// Width of a head.
    pub width: u32,
    /// Positions that fit.
    pub capacity: u32,
}

impl KvShape {
    /// Bytes of the cache; a multiple of 16.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.format.cache_bytes(self.heads, self.heads.saturating_mul(self.width), self.capacity)
    }

    /// The bytes in which some places lie, head after head: keys, in whole panels, and values, then
    /// the scales of both. The cache fits into memory.
    pub fn ranges(&self, places: Range<u32>) -> impl Iterator<Item = Range<usize>> + use<> {
        let numbers = [self.heads, self.width, self.capacity, places.start, places.end];
        let [heads, width, capacity, start, end] = numbers.map(|n| n as usize);
        let (number, scale) = self.format.widths();
        let (row, scale) = (number as usize * width, scale as usize);
        let places = start..end.min(capacity);
        let panels = places.start / LANES * LANES..places.end.next_multiple_of(LANES);
        let capacity = capacity.next_multiple_of(LANES);
        let scales = 2 * heads * capacity * scale;
        let heads = if places.is_empty() { 0 } else { heads };
        let ranges = (0..heads).flat_map(move |head| {
            let [keys, values] = [2 * head, 2 * head + 1].map(|half| half * capacity);
            let within = |first: usize, bytes: usize, places: &Range<usize>| {
                (first + places.start) * bytes..(first + places.end) * bytes
            };
            let numbers = [within(keys, row, &panels), within(values, row, &places)];
            let [of_keys, of_values] = [keys, values].map(|first| within(first, scale, &places));
            let [keys, values] = numbers.map(|n| scales + n.start..scales + n.end);
            [keys, values, of_keys, of_values]
        });
        ranges.filter(|range| !range.is_empty())
    }
}

/// A cache, by the format of its numbers.
pub(crate) enum Cache<'a> {
    Half(Numbers<'a, u16>),
    #[cfg(feature = "unquantized")]
    Single(Numbers<'a, f32>),
    Int8(Numbers<'a, i8>),
}

/// The keys and values of one cache.
pub(crate) struct Numbers<'a, T> {
    heads: usize,
    width: usize,
    window: Window,
    numbers: &'a mut [T],
    /// A key's and a value's for each head and place.
    scales: &'a mut [f32],
}

impl<'a> Cache<'a> {
    /// The cache that lies in these bytes, as many as its shape says.
    pub(crate) fn new(bytes: &'a mut [u8], shape: &KvShape, window: Window) -> Option<Self> {
        let (heads, width) = (shape.heads as usize, shape.width as usize);
        let of_numbers = (heads, width, window);
        match shape.format {
            KvFormat::Half => Numbers::new(of_numbers, bytes, &mut []).map(Self::Half),
            #[cfg(feature = "unquantized")]
            KvFormat::Single => Numbers::new(of_numbers, bytes, &mut []).map(Self::Single),
            #[cfg(not(feature = "unquantized"))]
            KvFormat::Single => None,
            KvFormat::Int8 => {
                let places = (window.places as usize).next_multiple_of(LANES);
                let scales = heads.checked_mul(places)?.checked_mul(2 * size_of::<f32>())?;
                let (scales, numbers) = bytes.split_at_mut_checked(scales)?;
                let scales = <[f32]>::mut_from_bytes(scales).ok()?;
                Numbers::new(of_numbers, numbers, scales).map(Self::Int8)
            }
        }
    }

    /// Copies the key and the value at one place to another.
    pub(crate) fn copy(&mut self, from: u32, to: u32) {
        let (from, to) = (from as usize, to as usize);
        match self {
            Self::Half(cache) => cache.copy(from, to),
            #[cfg(feature = "unquantized")]
            Self::Single(cache) => cache.copy(from, to),
            Self::Int8(cache) => cache.copy(from, to),
        }
    }

    /// Stores the key and the value of a position.
    pub(crate) fn append(&mut self, position: u32, key: &[f32], value: &[f32]) {
        match self {
            Self::Half(cache) => {
                cache.append(position, key, value, |x, _| half::f16::from_f32(x).to_bits());
            }
            #[cfg(feature = "unquantized")]
            Self::Single(cache) => cache.append(position, key, value, |x, _| x),
            Self::Int8(cache) => cache.append(position, key, value, |x, inverse| {
                crate::math::round_ties_even(x * inverse) as i8
            }),
        }
    }
}

impl<'a, T: FromBytes + IntoBytes + KnownLayout + Immutable + Copy> Numbers<'a, T> {
    fn new(
        (heads, width, window): (usize, usize, Window),
        numbers: &'a mut [u8],
        scales: &'a mut [f32],
    ) -> Option<Self> {
        let numbers = <[T]>::mut_from_bytes(numbers).ok()?;
        Some(Self { heads, width, window, numbers, scales })
    }

    fn places(&self) -> usize {
        (self.window.places as usize).next_multiple_of(LANES)
    }

    /// Where a head's keys and values lie, and where its scales.
    fn ranges(&self, head: usize) -> (Range<usize>, Range<usize>) {
        let (places, numbers) = (self.places(), 2 * self.places() * self.width);
        (head * numbers..(head + 1) * numbers, 2 * head * places..2 * (head + 1) * places)
    }

    /// One head's keys and values.
    pub(crate) fn head(&self, head: usize) -> KvHead<'_, T> {
        let (numbers, scales) = self.ranges(head);
        let numbers = self.numbers.get(numbers).unwrap_or_default();
        let (keys, values) = numbers.split_at(numbers.len() / 2);
        let scales = self.scales.get(scales).unwrap_or_default();
        let scales = scales.split_at(scales.len() / 2);
        KvHead { width: self.width, keys: keys.as_chunks().0, values, scales }
    }

    /// One head's keys and values, then the scales of both.
    fn head_mut(&mut self, head: usize) -> ([&mut [T]; 2], [&mut [f32]; 2]) {
        let (numbers, scales) = self.ranges(head);
        let numbers = self.numbers.get_mut(numbers).unwrap_or_default();
        let scales = self.scales.get_mut(scales).unwrap_or_default();
        let numbers = numbers.split_at_mut(numbers.len() / 2);
        let scales = scales.split_at_mut(scales.len() / 2);
        (numbers.into(), scales.into())
    }

    /// Copies the key and the value at one place to another.
    fn copy(&mut self, from: usize, to: usize) {
        let width = self.width;
        let key = |place: usize, i| (place / LANES * width + i) * LANES + place % LANES;
        for head in 0..self.heads {
            let ([keys, values], scales) = self.head_mut(head);
            for i in 0..width {
                copy_number(keys, key(from, i), key(to, i));
                copy_number(values, from * width + i, to * width + i);
            }
            scales.into_iter().for_each(|scales| copy_number(scales, from, to));
        }
    }

    /// Stores a key and a value; `convert` is given a number, and the reciprocal of a step if there
    /// are scales.
    fn append(
        &mut self,
        position: u32,
        key: &[f32],
        value: &[f32],
        convert: impl Fn(f32, f32) -> T,
    ) {
        let place = self.window.place(position) as usize;
        let (panel, lane) = (place / LANES * self.width, place % LANES);
        let width = self.width;
        for head in 0..self.heads {
            let [key, value] =
                [key, value].map(|x| x.get(head * width..(head + 1) * width).unwrap_or_default());
            let ([keys, values], [key_scales, value_scales]) = self.head_mut(head);
            let inverse = put_scale(key_scales.get_mut(place), key);
            let panel = keys.as_chunks_mut::<LANES>().0.iter_mut().skip(panel);
            for (lanes, x) in panel.zip(key) {
                if let Some(number) = lanes.get_mut(lane) {
                    *number = convert(*x, inverse);
                }
            }
            let inverse = put_scale(value_scales.get_mut(place), value);
            for (number, x) in values.iter_mut().skip(place * width).zip(value) {
                *number = convert(*x, inverse);
            }
        }
    }
}

fn copy_number<T: Copy>(numbers: &mut [T], from: usize, to: usize) {
    let number = numbers.get(from).copied();
    if let (Some(number), Some(place)) = (number, numbers.get_mut(to)) {
        *place = number;
    }
}

/// Stores the step of some numbers if there is a place for it, and returns its reciprocal.
fn put_scale(scale: Option<&mut f32>, x: &[f32]) -> f32 {
    let Some(scale) = scale else { return 1.0 };
    let largest = x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff));
    let (step, inverse) = crate::quant::activation_step(largest);
    *scale = step;
    inverse
}

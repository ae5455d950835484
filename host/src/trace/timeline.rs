//! A timeline of bounded length.

use serde::Serialize;

/// The most samples that are kept.
const MOST: usize = 2048;
/// Seconds of an interval at first; they double as often as samples get too many.
const FIRST_INTERVAL: f64 = 1e-3;

/// An interval, which lasts until the next one begins. Of the moments in it, bytes are those of the
/// one at which most memory was in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// When it begins, in seconds.
    pub seconds: f64,
    /// Bytes of weights that are pinned and were read.
    pub pinned_bytes: u64,
    /// Bytes of weights that were read into the ring, and are waiting there or in use.
    pub ring_bytes: u64,
    /// Bytes that are being read.
    pub reading_bytes: u64,
    /// Reads under way.
    pub reads: u32,
    /// Bytes of keys and values.
    pub kv_bytes: u64,
    /// Bytes of this process in memory, where the operating system tells; the most in the interval.
    pub resident_bytes: Option<u64>,
    /// Tokens that passes have run by its end.
    pub tokens: u64,
    /// Seconds of it that the engine waited for reads.
    pub stalled_seconds: f64,
}

impl Sample {
    /// Bytes in use.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pinned_bytes + self.ring_bytes + self.reading_bytes + self.kv_bytes
    }

    /// Makes one interval of this one and the next.
    fn merge(&mut self, next: &Self) {
        let fullest = if next.bytes() > self.bytes() { next } else { &*self };
        *self = Self {
            seconds: self.seconds,
            resident_bytes: self.resident_bytes.max(next.resident_bytes),
            tokens: next.tokens,
            stalled_seconds: self.stalled_seconds + next.stalled_seconds,
            ..*fullest
        };
    }
}

/// Samples that are merged as they get too many.
#[derive(Debug)]
pub(super) struct Timeline {
    samples: Vec<Sample>,
    interval: f64,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self { samples: Vec::with_capacity(MOST), interval: FIRST_INTERVAL }
    }

    /// Adds what is in use from now on.
    pub(super) fn add(&mut self, sample: Sample) {
        while self.samples.len() == MOST {
            self.interval *= 2.0;
            for sample in std::mem::replace(&mut self.samples, Vec::with_capacity(MOST)) {
                self.put(sample);
            }
        }
        self.put(sample);
    }

    fn put(&mut self, sample: Sample) {
        let number = |seconds: f64| (seconds / self.interval) as u64;
        match self.samples.last_mut() {
            Some(last) if number(last.seconds) == number(sample.seconds) => last.merge(&sample),
            _ => self.samples.push(sample),
        }
    }

    /// Counts a stall that began in the last interval and lasts until the next one begins.
    pub(super) fn stalled(&mut self, seconds: f64) {
        if let Some(last) = self.samples.last_mut() {
            last.stalled_seconds += seconds;
        }
    }

    pub(super) fn take(&mut self) -> Vec<Sample> {
        std::mem::take(&mut self.samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_keeps_its_peaks_and_sums_in_bounded_memory() {
        let mut timeline = Timeline::new();
        let count = 100_000_u64;
        for i in 0..count {
            let peak = if i == 77_777 { 1000 } else { i % 7 };
            timeline.add(Sample {
                seconds: i as f64 * 0.01,
                pinned_bytes: peak,
                reads: (peak == 1000).into(),
                tokens: i,
                ..Sample::default()
            });
            timeline.stalled(0.001);
        }
        let samples = timeline.take();
        assert!((MOST / 4..=MOST).contains(&samples.len()), "{} samples", samples.len());
        assert!(samples.windows(2).all(|pair| pair[0].seconds < pair[1].seconds));
        let fullest = samples.iter().max_by_key(|sample| sample.bytes()).unwrap();
        assert_eq!((fullest.pinned_bytes, fullest.reads), (1000, 1));
        assert!((fullest.seconds - 777.77).abs() < 1.0, "{fullest:?}");
        let stalled: f64 = samples.iter().map(|sample| sample.stalled_seconds).sum();
        assert!((stalled - count as f64 * 0.001).abs() < 1e-6, "{stalled}");
        assert_eq!(samples.last().unwrap().tokens, count - 1);
    }
}

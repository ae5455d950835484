//! How fast memory is read.

use crate::cancel::Cancel;
use crate::pool::Pool;
use crate::system::kib_of;
use crate::{Error, Result};
use memmap2::MmapMut;
use omex_hal::Parallel;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long reads of memory are repeated, for the best of them.
const READING: Duration = Duration::from_secs(1);

/// Bytes a second of reading memory on this many threads: the best of several sums over a buffer
/// that no cache can hold.
///
/// # Errors
/// Threads or memory that can't be had, being cancelled.
pub fn read_bandwidth(threads: usize, cancel: &Cancel) -> Result<f64> {
    Ok(measure(threads, cancel)?.0)
}

/// As [`read_bandwidth`], and how much longer the middle one of the sums took than the best, as a part
/// of it.
pub(super) fn measure(threads: usize, cancel: &Cancel) -> Result<(f64, f64)> {
    let (pool, buffer) = (Pool::new(threads), uncached()?);
    // Some more pieces than threads: one that is held up leaves the rest to others.
    let pieces: Vec<_> = buffer.chunks(buffer.len().div_ceil(8 * pool.cores())).collect();
    let (start, mut times) = (Instant::now(), vec![]);
    while start.elapsed() < READING {
        let pass = Instant::now();
        pool.run(pieces.len(), &|piece| {
            black_box(pieces.get(piece).map_or(0, |piece| sum(piece)));
        });
        times.push(pass.elapsed().as_secs_f64());
        cancel.check()?;
    }
    times.sort_by(f64::total_cmp);
    let best = times.first().copied().unwrap_or(f64::INFINITY);
    let middle = times.get(times.len() / 2).copied().unwrap_or(best);
    Ok((buffer.len() as f64 / best, middle / best - 1.0))
}

/// A buffer that no cache can hold.
pub(super) fn uncached() -> Result<MmapMut> {
    let failed = |e| Error::io(Path::new("memory"), "get", e);
    let mut buffer = MmapMut::map_anon(buffer_bytes()).map_err(failed)?;
    // With pages of 4 KiB, page tables take up half of the bandwidth.
    #[cfg(target_os = "linux")]
    let _ = buffer.advise(memmap2::Advice::HugePage);
    // Written, since untouched memory is all one page of zeros; read as floats, it is about one.
    buffer.fill(0x3c);
    Ok(buffer)
}

/// The sum of the words in some bytes.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
    words.fold(0, u64::wrapping_add)
}

/// Eight times the last level's cache, within what is free.
fn buffer_bytes() -> usize {
    let size = |level: u32| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{level}/size");
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().strip_suffix('K')?.parse::<usize>().ok().map(|kib| kib << 10)
    };
    let cache = (0..5).filter_map(size).max().unwrap_or(32 << 20);
    let free = kib_of("/proc/meminfo", "MemAvailable:").map_or(usize::MAX, |free| free as usize);
    (8 * cache).clamp(256 << 20, 2 << 30).min(free / 4).max(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn a_sum_reads_every_word() {
        let bytes: Vec<u8> = (0..=320u64).flat_map(u64::to_le_bytes).collect();
        assert_eq!(sum(&bytes), 320 * 321 / 2);
    }
}

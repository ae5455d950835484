//! What this machine can do, measured once and kept: cores, kernels, and how fast bytes can be read.

use crate::plan::{MemoryPlan, Residency};
use crate::pool::Pool;
use crate::synth::Numbers;
use crate::{Error, Result, dispatch, interrupt};
use omex_core::program::{Op, Program};
use omex_core::quant::PANEL;
use omex_core::steps::Planes;
use omex_hal::Parallel;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a machine can do. Bandwidths are bytes a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The version of OMEX that measured.
    omex_version: String,
    /// Cores that threads may run on.
    pub cores: usize,
    /// Kernels that the CPU can run, the fastest last.
    pub kernels: Vec<String>,
    /// Bandwidth of reading memory.
    pub read_bandwidth: ReadBandwidth,
    /// Bandwidth of reading a file in the cache's folder, past what the system keeps in memory.
    pub storage_bandwidth: Option<f64>,
}

/// Bandwidth of reading memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadBandwidth {
    /// On one thread.
    pub one_thread: f64,
    /// On a thread for each core.
    pub all_threads: f64,
}

impl Profile {
    /// The profile that was kept, or one measured now and kept.
    ///
    /// # Errors
    /// Ctrl-C, or a machine that can't be measured. A profile that can't be kept is no error.
    pub fn of_this_machine(refresh: bool) -> Result<Self> {
        let folder = cache_folder();
        if let Some(kept) = folder.as_deref().filter(|_| !refresh).and_then(kept) {
            return Ok(kept);
        }
        let profile = Self::measure(folder.as_deref())?;
        if let Some(folder) = folder {
            // It is measured again next time.
            let _ = profile.keep(&folder);
        }
        Ok(profile)
    }

    /// Whether a profile of this machine is there without measuring.
    #[must_use]
    pub fn is_kept() -> bool {
        cache_folder().as_deref().and_then(kept).is_some()
    }

    fn measure(folder: Option<&Path>) -> Result<Self> {
        let cores = cores();
        let all_threads = read_bandwidth(cores)?;
        Ok(Self {
            omex_version: env!("CARGO_PKG_VERSION").into(),
            cores,
            kernels: kernels(),
            read_bandwidth: ReadBandwidth { one_thread: read_bandwidth(1)?, all_threads },
            storage_bandwidth: storage_bandwidth(folder.unwrap_or(&std::env::temp_dir()))?,
        })
    }

    fn keep(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.persist(folder.join(FILE)).map(|_| ()).map_err(|e| e.error)
    }

    /// Bandwidth of reading memory on this many threads, measured now if it is not among the
    /// profile's.
    ///
    /// # Errors
    /// Those of [`Self::of_this_machine`].
    pub fn read_bandwidth(&self, threads: usize) -> Result<f64> {
        match threads {
            1 => Ok(self.read_bandwidth.one_thread),
            _ if threads == self.cores => Ok(self.read_bandwidth.all_threads),
            _ => read_bandwidth(threads),
        }
    }

    /// What the profile means for a model.
    #[must_use]
    pub fn forecast(&self, program: &Program<'_>, plan: &MemoryPlan) -> Forecast {
        let weight_bytes = weight_bytes_per_token(program, plan.precision.planes());
        let bytes = weight_bytes as f64;
        let streamed = plan.residency != Residency::Mapped;
        let storage = self.storage_bandwidth.map(|bandwidth| bandwidth / bytes);
        let bound = |memory: f64| match storage.filter(|_| streamed) {
            Some(storage) => storage.min(memory / bytes),
            None => memory / bytes,
        };
        Forecast {
            weight_bytes_per_token: weight_bytes,
            kv_bytes_per_position: kv_bytes_per_position(plan),
            streamed,
            decode_tok_s: ReadBandwidth {
                one_thread: bound(self.read_bandwidth.one_thread),
                all_threads: bound(self.read_bandwidth.all_threads),
            },
            streamed_decode_tok_s: storage,
        }
    }
}

/// Upper bounds that bandwidth sets to a model's decode, at the beginning of a text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// Bytes of weights that a token needs.
    pub weight_bytes_per_token: u64,
    /// Bytes of the KV cache that a token needs for each position before it.
    pub kv_bytes_per_position: u64,
    /// The weights don't fit into the budget: they are read from storage for every token.
    pub streamed: bool,
    /// Tokens a second, at most.
    pub decode_tok_s: ReadBandwidth,
    /// Tokens a second, at most, if weights are read from storage for every token.
    pub streamed_decode_tok_s: Option<f64>,
}

/// Bytes of weights that a pass of one token reads: every matrix and vector of the planes that are
/// played, and of the embedding the panel that the token's row is in.
#[must_use]
pub fn weight_bytes_per_token(program: &Program<'_>, planes: Planes) -> u64 {
    let whole = program.ranges_in_order(planes).map(|range| range.end - range.start);
    let embedded = program.steps(planes).filter_map(|(op, layer)| match op {
        Op::Embed { weight, .. } => program.tensor(weight.at(layer)),
        _ => None,
    });
    whole.chain(embedded.map(|t| t.format.tensor_bytes(PANEL as u32, t.columns))).sum()
}

/// Bytes of the KV cache that a token needs for each position before it.
#[must_use]
pub fn kv_bytes_per_position(plan: &MemoryPlan) -> u64 {
    plan.bytes.kv_cache / u64::from(plan.context.max(1))
}

/// Cores that threads may run on.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn kernels() -> Vec<String> {
    dispatch::available().iter().map(|table| table.name.to_owned()).collect()
}

/// The most memory that this process had resident, where the operating system tells.
#[must_use]
pub fn peak_bytes() -> Option<u64> {
    kib_of("/proc/self/status", "VmHWM:")
}

/// A line of a file in `/proc` that says how many KiB.
fn kib_of(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// Where this user's programs keep what they can make again.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("omex"))
}

const FILE: &str = "profile.json";

/// The profile in a folder, if it is of this machine and this version.
fn kept(folder: &Path) -> Option<Profile> {
    let profile: Profile = serde_json::from_slice(&std::fs::read(folder.join(FILE)).ok()?).ok()?;
    let same = profile.omex_version == env!("CARGO_PKG_VERSION")
        && (profile.cores, &profile.kernels) == (cores(), &kernels());
    same.then_some(profile)
}

/// How long reads of memory are repeated, for the best of them.
const READING: Duration = Duration::from_secs(1);

/// Bytes a second of reading memory on this many threads: the best of several sums over a buffer
/// that no cache can hold.
///
/// # Errors
/// Threads or memory that can't be had, Ctrl-C.
pub fn read_bandwidth(threads: usize) -> Result<f64> {
    let failed = |e| Error::io(Path::new("threads"), "start", e);
    let pool = Pool::new(threads.max(1)).map_err(failed)?;
    let failed = |e| Error::io(Path::new("memory"), "get", e);
    let mut buffer = memmap2::MmapMut::map_anon(buffer_bytes()).map_err(failed)?;
    // With pages of 4 KiB, page tables take up half of the bandwidth.
    #[cfg(target_os = "linux")]
    let _ = buffer.advise(memmap2::Advice::HugePage);
    // Written, since untouched memory is all one page of zeros.
    buffer.fill(1);
    // Some more pieces than threads: one that is held up leaves the rest to others.
    let pieces: Vec<_> = buffer.chunks(buffer.len().div_ceil(8 * threads.max(1))).collect();
    let (start, mut best) = (Instant::now(), Duration::MAX);
    while start.elapsed() < READING {
        let pass = Instant::now();
        pool.run(pieces.len(), &|piece| {
            black_box(pieces.get(piece).map_or(0, |piece| sum(piece)));
        });
        best = best.min(pass.elapsed());
        interrupt::check()?;
    }
    Ok(buffer.len() as f64 / best.as_secs_f64())
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

/// Bytes of the file that shows how fast storage is.
const FILE_BYTES: usize = 256 << 20;
/// Bytes read at once, as weights are.
const TILE: usize = 1 << 20;

/// Bytes a second of reading a file in a folder from front to back; `None` where no file can be
/// written.
///
/// # Errors
/// Ctrl-C.
fn storage_bandwidth(folder: &Path) -> Result<Option<f64>> {
    let created = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
    let Ok(mut file) = created else { return Ok(None) };
    // Random, since file systems may compress.
    let (mut tile, mut numbers) = (vec![0; TILE], Numbers(0));
    for _ in 0..FILE_BYTES / TILE {
        for word in tile.as_chunks_mut::<8>().0 {
            *word = numbers.next().to_le_bytes();
        }
        if file.write_all(&tile).is_err() {
            return Ok(None);
        }
        interrupt::check()?;
    }
    if file.sync_all().is_err() || !forget(&file) || file.rewind().is_err() {
        return Ok(None);
    }
    let start = Instant::now();
    for _ in 0..FILE_BYTES / TILE {
        if file.read_exact(&mut tile).is_err() {
            return Ok(None);
        }
        interrupt::check()?;
    }
    Ok(Some(FILE_BYTES as f64 / start.elapsed().as_secs_f64()))
}

/// Has the operating system drop what it keeps of a file in memory, if it can be told to.
#[cfg(target_os = "linux")]
fn forget(file: &File) -> bool {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn forget(_: &File) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_reads_every_word() {
        let bytes: Vec<u8> = (0..=320u64).flat_map(u64::to_le_bytes).collect();
        assert_eq!(sum(&bytes), 320 * 321 / 2);
    }

    #[test]
    fn a_profile_is_kept_until_the_machine_or_the_version_changes() {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile {
            omex_version: env!("CARGO_PKG_VERSION").into(),
            cores: cores(),
            kernels: kernels(),
            read_bandwidth: ReadBandwidth { one_thread: 1e9, all_threads: 2e9 },
            storage_bandwidth: None,
        };
        profile.keep(folder.path()).unwrap();
        assert_eq!(kept(folder.path()), Some(profile.clone()));
        Profile { cores: cores() + 1, ..profile.clone() }.keep(folder.path()).unwrap();
        assert_eq!(kept(folder.path()), None);
        Profile { omex_version: "0".into(), ..profile }.keep(folder.path()).unwrap();
        assert_eq!(kept(folder.path()), None);
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(kept(folder.path()), None);
    }
}

//! What this machine can do, measured once and kept: cores, kernels, how fast bytes can be read, and
//! how long products with weights take.

mod compute;
mod cpu;
mod memory;
mod passes;
mod storage;

pub use compute::{CACHED_BYTES, Product, SecondsPerGib};
pub use memory::read_bandwidth;
pub use passes::{AttentionTime, PassTimes};
pub use storage::storage_bandwidth;

use crate::cancel::Cancel;
use crate::system::{cache_folder, cores};
use crate::{Error, Result, dispatch, durable, input};
use omex_core::quant::Format;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// What a machine can do. Bandwidths are bytes a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The version of OMEX that measured.
    omex_version: String,
    /// The CPU's model, as far as the operating system tells.
    pub cpu: String,
    /// Cores that threads may run on.
    pub cores: usize,
    /// Kernels that the CPU can run, the fastest last.
    pub kernels: Vec<String>,
    /// Bandwidth of reading memory.
    pub read_bandwidth: ReadBandwidth,
    /// Bandwidth of reading a file in the cache's folder, past what the system keeps in memory.
    pub storage_bandwidth: Option<f64>,
    /// How long products with weights take, with the fastest kernels.
    pub products: Vec<Product>,
    /// How long what a pass does besides takes.
    pub passes: PassTimes,
    /// How much longer the middle one of many equal runs took than the best, as a part of it.
    #[serde(default)]
    pub spread: f64,
}

/// The spread from which on others must have run: alone, machines stay below a tenth.
const DISTURBED: f64 = 0.25;
/// How long figures that were disturbed are kept.
const DISTURBED_KEPT: Duration = Duration::from_secs(600);

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
    /// [`Error::Interrupted`], or a machine that can't be measured. A profile that can't be kept is no error.
    pub fn of_this_machine(refresh: bool, cancel: &Cancel) -> Result<Self> {
        let folder = cache_folder();
        if let Some(kept) = folder.as_deref().filter(|_| !refresh).and_then(kept) {
            return Ok(kept);
        }
        let profile = Self::measure(folder.as_deref(), cancel)?;
        if let Some(folder) = folder {
            // It is measured again next time.
            let _ = profile.keep(&folder);
        }
        Ok(profile)
    }

    /// Another machine's profile, from a file of what it says of itself.
    ///
    /// # Errors
    /// A file that can't be read, or is no profile.
    pub fn read(path: &Path) -> Result<Self> {
        let profile =
            serde_json::from_slice(input::without_mark(&input::read(path, input::MAX_JSON_BYTES)?));
        profile.map_err(|error| {
            let remedy = "make it with omex profile --json on that machine";
            Error::malformed(path, "profile", error.to_string(), "what omex profile says", remedy)
        })
    }

    /// Whether a profile of this machine is there without measuring.
    #[must_use]
    pub fn is_kept() -> bool {
        Self::of_this_machine_if_kept().is_some()
    }

    /// The profile of this machine, if it was measured before.
    #[must_use]
    pub fn of_this_machine_if_kept() -> Option<Self> {
        cache_folder().as_deref().and_then(kept)
    }

    fn measure(folder: Option<&Path>, cancel: &Cancel) -> Result<Self> {
        if let Some(folder) = folder {
            // Without it, the storage is unknown.
            let _ = std::fs::create_dir_all(folder);
        }
        let cores = cores();
        let (all_threads, spread) = memory::measure(cores, cancel)?;
        let storage = match storage_bandwidth(folder.unwrap_or(&std::env::temp_dir()), cancel) {
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            measured => measured.ok(),
        };
        let products = compute::products(cores, cancel)?;
        Ok(Self {
            omex_version: env!("CARGO_PKG_VERSION").into(),
            cpu: cpu::model(),
            cores,
            kernels: kernels(),
            read_bandwidth: ReadBandwidth { one_thread: read_bandwidth(1, cancel)?, all_threads },
            storage_bandwidth: storage,
            passes: passes::measure(&products, cores, cancel)?,
            products,
            spread,
        })
    }

    fn keep(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let failed = |e| Error::io(&path, "write", e);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let json = serde_json::to_vec_pretty(self).map_err(|e| failed(e.into()))?;
        durable::write(&path, &json)
    }

    /// Bandwidth of reading memory on this many threads, interpolated between one and all.
    #[must_use]
    pub fn read_bandwidth(&self, threads: usize) -> f64 {
        let ReadBandwidth { one_thread, all_threads } = self.read_bandwidth;
        let more = threads.saturating_sub(1) as f64 / self.cores.saturating_sub(1).max(1) as f64;
        one_thread + (all_threads - one_thread) * more.min(1.0)
    }

    /// True if other programs ran while this was measured, so that figures may be too low.
    #[must_use]
    pub fn is_disturbed(&self) -> bool {
        self.spread > DISTURBED
    }

    /// Seconds that products of `bytes` of weights with `columns` activations take on this many
    /// threads: kernels only, and weights that lie in memory, or in the cores' caches if they are at
    /// most [`CACHED_BYTES`] for each thread. Interpolated between columns, and between one thread
    /// and all.
    #[must_use]
    pub fn compute_seconds(&self, format: Format, bytes: u64, columns: u32, threads: usize) -> f64 {
        compute::seconds(&self.products, self.cores, (format, bytes), columns, threads)
    }
}

fn kernels() -> Vec<String> {
    dispatch::available().iter().map(|table| table.name.to_owned()).collect()
}

const FILE: &str = "profile.json";

/// The profile in a folder, if it is of this machine and this version.
fn kept(folder: &Path) -> Option<Profile> {
    let profile: Profile =
        serde_json::from_slice(&input::read(&folder.join(FILE), input::MAX_JSON_BYTES).ok()?)
            .ok()?;
    let same = profile.omex_version == env!("CARGO_PKG_VERSION")
        && (&profile.cpu, profile.cores, &profile.kernels) == (&cpu::model(), cores(), &kernels());
    let old = || {
        let age = std::fs::metadata(folder.join(FILE)).ok()?.modified().ok()?.elapsed().ok()?;
        Some(age > DISTURBED_KEPT)
    };
    let outdated = profile.is_disturbed() && old() == Some(true);
    (same && !outdated).then_some(profile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::Precision;

    fn profile(products: Vec<Product>) -> Profile {
        Profile {
            omex_version: env!("CARGO_PKG_VERSION").into(),
            cpu: cpu::model(),
            cores: cores(),
            kernels: kernels(),
            read_bandwidth: ReadBandwidth { one_thread: 1e9, all_threads: 2e9 },
            storage_bandwidth: None,
            products,
            passes: PassTimes::default(),
            spread: 0.0,
        }
    }

    #[test]
    fn a_profile_is_kept_until_the_machine_or_the_version_changes() {
        let folder = tempfile::tempdir().unwrap();
        let profile = profile(vec![]);
        profile.keep(folder.path()).unwrap();
        assert_eq!(kept(folder.path()), Some(profile.clone()));
        Profile { cpu: "another".into(), ..profile.clone() }.keep(folder.path()).unwrap();
        assert_eq!(kept(folder.path()), None);
        Profile { cores: cores() + 1, ..profile.clone() }.keep(folder.path()).unwrap();
        assert_eq!(kept(folder.path()), None);
        Profile { omex_version: "0".into(), ..profile }.keep(folder.path()).unwrap();
        assert_eq!(kept(folder.path()), None);
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(kept(folder.path()), None);
        let mut json = serde_json::to_value(self::profile(vec![])).unwrap();
        std::fs::write(folder.path().join(FILE), json.to_string()).unwrap();
        assert!(kept(folder.path()).is_some());
        json.as_object_mut().unwrap().remove("passes");
        std::fs::write(folder.path().join(FILE), json.to_string()).unwrap();
        assert_eq!(kept(folder.path()), None, "an earlier OMEX measured less");
    }

    #[test]
    fn figures_that_others_disturbed_are_kept_for_some_minutes_only() {
        let folder = tempfile::tempdir().unwrap();
        let age = || {
            let path = folder.path().join(FILE);
            let file = std::fs::File::options().write(true).open(path).unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            file.set_modified(modified - 2 * DISTURBED_KEPT).unwrap();
        };
        let disturbed = Profile { spread: 0.5, ..profile(vec![]) };
        disturbed.keep(folder.path()).unwrap();
        assert_eq!(kept(folder.path()), Some(disturbed));
        age();
        assert_eq!(kept(folder.path()), None);
        Profile { spread: 0.1, ..profile(vec![]) }.keep(folder.path()).unwrap();
        age();
        assert!(kept(folder.path()).is_some());
    }

    #[test]
    fn seconds_lie_between_those_that_were_measured() {
        let product = |format, columns, seconds: f64| Product {
            format,
            columns,
            one_thread: SecondsPerGib { from_cache: seconds, from_memory: 2.0 * seconds },
            all_threads: SecondsPerGib { from_cache: seconds / 4.0, from_memory: seconds / 2.0 },
        };
        let products = vec![
            product(Precision::Int8, 1, 100.0),
            product(Precision::Int4, 1, 1.0),
            product(Precision::Int4, 5, 3.0),
        ];
        let profile = Profile { cores: 4, ..profile(products) };
        let gib =
            |columns, threads| profile.compute_seconds(Format::Int4, 1 << 30, columns, threads);
        assert_eq!([1, 2, 4, 5].map(|columns| gib(columns, 1)), [2.0, 3.0, 5.0, 6.0]);
        assert_eq!(gib(20, 1), 24.0, "beyond the last, in proportion");
        // Speeds: 1/2 on one thread, 2 on four.
        assert_eq!([0, 1, 3, 4, 9].map(|threads| gib(1, threads)), [2.0, 2.0, 2.0 / 3.0, 0.5, 0.5]);
        let (cached, bytes) = (CACHED_BYTES as u64, (1u64 << 30) as f64);
        let seconds = |bytes| profile.compute_seconds(Format::Int4, bytes, 1, 4);
        assert_eq!(seconds(4 * cached), 4.0 * cached as f64 / bytes / 4.0);
        assert_eq!(seconds(8 * cached), 8.0 * cached as f64 / bytes / 2.0);
    }
}

//! What the operating system tells of this machine and this process.

use std::path::PathBuf;

/// Cores that threads may run on.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The most memory that this process had resident, where the operating system tells.
#[must_use]
pub fn peak_bytes() -> Option<u64> {
    kib_of("/proc/self/status", "VmHWM:")
}

/// The memory that this process has resident, where the operating system tells.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    kib_of("/proc/self/status", "VmRSS:")
}

/// A line of a file in `/proc` that says how many KiB.
pub(crate) fn kib_of(file: &str, name: &str) -> Option<u64> {
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

//! How fast storage is read.

use crate::cancel::Cancel;
use crate::pager::buffer;
use crate::synth::Numbers;
use crate::{Error, Result};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes of the file that is read, at most.
const FILE_BYTES: u64 = 1 << 30;
/// How long writing may take: a card would need minutes for the whole file.
const WRITING: Duration = Duration::from_secs(15);
/// How long blocks of one size are read.
const READING: Duration = Duration::from_secs(3);
/// Bytes that a read asks for; the best of them counts.
const BLOCKS: [usize; 3] = [256 << 10, 1 << 20, LONGEST_BLOCK];
const LONGEST_BLOCK: usize = 4 << 20;
/// Reads under way at once.
const DEPTH: usize = 16;

/// Bytes a second of reading a file from front to back on the storage that a file or a folder lies
/// on, past what the system keeps in memory and with several reads under way.
///
/// # Errors
/// A path that is not there, a folder that can't be written to or has too little room, being cancelled.
pub fn storage_bandwidth(path: &Path, cancel: &Cancel) -> Result<f64> {
    let absolute = path.canonicalize().map_err(|e| Error::io(path, "find", e))?;
    let folder = if absolute.is_dir() { &absolute } else { absolute.parent().unwrap_or(&absolute) };
    let failed = |e| Error::io(folder, "write a file to measure storage in", e);
    let mut file = tempfile::tempfile_in(folder).map_err(failed)?;
    let length = fill(&mut file, folder, cancel)?;
    if length == 0 {
        return Err(failed(ErrorKind::StorageFull.into()));
    }
    read_directly(&file);
    let mut best = 0.0;
    for block in BLOCKS {
        forget(&file).map_err(failed)?;
        best = read(&file, length, block, cancel).map_err(failed)?.max(best);
        cancel.check()?;
    }
    Ok(best)
}

/// Writes random bytes, since file systems may compress, while there is time and room; returns how
/// many, a multiple of every block.
fn fill(file: &mut File, folder: &Path, cancel: &Cancel) -> Result<u64> {
    let most = FILE_BYTES.min(free_bytes(folder) / 2);
    let (mut bytes, mut numbers) = (vec![0; LONGEST_BLOCK], Numbers(0));
    let (start, mut length) = (Instant::now(), 0);
    while length + LONGEST_BLOCK as u64 <= most && start.elapsed() < WRITING {
        for word in bytes.as_chunks_mut::<8>().0 {
            *word = numbers.next().to_le_bytes();
        }
        // Onto the device as it goes, or the last sync might take minutes.
        if file.write_all(&bytes).and_then(|()| file.sync_data()).is_err() {
            break;
        }
        length += LONGEST_BLOCK as u64;
        cancel.check()?;
    }
    Ok(length)
}

/// Bytes a second of reading blocks of this many bytes.
fn read(file: &File, length: u64, block: usize, cancel: &Cancel) -> std::io::Result<f64> {
    let (start, next) = (Instant::now(), AtomicU64::new(0));
    let reader = || {
        let (mut buffer, mut bytes) = (buffer(block)?, 0);
        while start.elapsed() < READING && !cancel.is_cancelled() {
            let offset = next.fetch_add(block as u64, Ordering::Relaxed);
            if offset >= length {
                break;
            }
            file.read_exact_at(&mut buffer, offset)?;
            bytes += block as u64;
        }
        Ok(bytes)
    };
    let bytes = std::thread::scope(|scope| {
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, reader).ok();
        let readers: Vec<_> = (1..DEPTH).filter_map(start).collect();
        let here = reader();
        let panicked = |_| Err(ErrorKind::Other.into());
        let read = readers.into_iter().map(|reader| reader.join().unwrap_or_else(panicked));
        read.chain([here]).sum::<std::io::Result<u64>>()
    })?;
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}

/// Bytes that may be written to a folder.
#[cfg(target_os = "linux")]
fn free_bytes(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// Has the operating system drop what it keeps of a file in memory.
#[cfg(target_os = "linux")]
fn forget(file: &File) -> std::io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// Has reads go past the memory that the system keeps files in, where the file system can.
#[cfg(target_os = "linux")]
fn read_directly(file: &File) {
    if let Ok(flags) = rustix::fs::fcntl_getfl(file) {
        let _ = rustix::fs::fcntl_setfl(file, flags | rustix::fs::OFlags::DIRECT);
    }
}

#[cfg(not(target_os = "linux"))]
fn free_bytes(_: &Path) -> u64 {
    0
}

#[cfg(not(target_os = "linux"))]
fn forget(_: &File) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn read_directly(_: &File) {}

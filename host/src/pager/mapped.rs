//! Mapped files: the first pass works on them at once, without a copy. Where there is memory for
//! it, a thread copies them into huge pages while tokens are decoded, which makes these faster.
#![expect(unsafe_code, reason = "mapping files, and sharing what of a copy is done")]

use super::{Space, open};
use crate::plan::RunPrecision;
use crate::{Error, Result, memory};
use memmap2::{Mmap, MmapRaw};
use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Bytes that are copied at once.
const STEP: usize = 4 << 20;

/// Pages of mapped files. A piece reaches to the end of its file, or of what was copied of it.
pub struct MappedPager {
    geometry: PageGeometry,
    /// First page of each file, and the file.
    files: Vec<(u32, Arc<MappedFile>)>,
    /// Copies the files, once there is more to gain than to lose.
    copier: Option<Copier>,
    decodes: Arc<AtomicBool>,
}

/// A file, mapped, and its copy as far as there is one.
struct MappedFile {
    map: Mmap,
    copy: Option<Copy>,
}

/// A copy under way. Only its thread writes, past `done`; all others read, before it.
struct Copy {
    memory: MmapRaw,
    done: AtomicUsize,
}

struct Copier {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl MappedPager {
    /// Maps the files, of which these planes will be read.
    ///
    /// # Errors
    /// A file that can't be mapped, or has another length.
    pub fn new(space: &Space, precision: RunPrecision, settles: bool) -> Result<Self> {
        let geometry = PageGeometry { page_size: space.page_size, pages: space.pages() };
        let copies = settles && memory::has_room_for(space.length());
        let mut first = 0u64;
        let mut files = vec![];
        for (path, length) in &space.files {
            let file = Arc::new(MappedFile::new(path, *length, precision, copies)?);
            files.push((u32::try_from(first).unwrap_or(u32::MAX), file));
            first += length / u64::from(space.page_size);
        }
        Ok(Self { geometry, files, copier: None, decodes: Arc::default() })
    }

    /// To be set when decoding begins. A prompt's passes are bound by computing, and a copy would
    /// only take time from them.
    #[must_use]
    pub fn decodes(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.decodes)
    }

    /// Copies the files from now on, if there is memory for it.
    fn settle(&mut self) {
        if self.copier.is_some() || self.files.iter().any(|(_, file)| file.copy.is_none()) {
            return;
        }
        let files: Vec<_> = self.files.iter().map(|(_, file)| Arc::clone(file)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let copy = move || files.iter().for_each(|file| file.copy(&stopped));
        let builder = std::thread::Builder::new().name("omex-copy".into()).stack_size(64 << 10);
        // Without the thread, the map goes on serving.
        self.copier = builder.spawn(copy).ok().map(|thread| Copier { stop, thread });
    }
}

impl MappedFile {
    fn new(path: &Path, length: u64, precision: RunPrecision, copies: bool) -> Result<Self> {
        let file = open(path, length)?;
        let failed = |e| Error::io(path, "map", e);
        // SAFETY: the mapping is read-only and private. A file that another program cuts short
        // meanwhile raises SIGBUS, which the documentation of `--pages` says; the other sources
        // make an error of it.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        // A wish, for files that are not in memory yet: large pages, where the file system has them,
        // unless these would hold planes that nobody reads.
        #[cfg(target_os = "linux")]
        let _ = map.advise(match precision {
            RunPrecision::Base => memmap2::Advice::NoHugePage,
            RunPrecision::Full | RunPrecision::Auto => memmap2::Advice::HugePage,
        });
        let memory = copies.then(|| super::reader::buffer(map.len())).transpose()?;
        let copy = memory.map(|memory| Copy { memory: memory.into(), done: AtomicUsize::new(0) });
        Ok(Self { map, copy })
    }

    /// Copies the file step by step, and gives back what it took in the map.
    fn copy(&self, stop: &AtomicBool) {
        let Some(copy) = &self.copy else { return };
        for start in (0..self.map.len()).step_by(STEP) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let end = (start + STEP).min(self.map.len());
            let Some(bytes) = self.map.get(start..end) else { return };
            // SAFETY: the copy is as long as the map. Nobody else writes to it, and nobody reads
            // past `done`, which still lies before these bytes.
            unsafe {
                let to = copy.memory.as_mut_ptr().add(start);
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            }
            copy.done.store(end, Ordering::Release);
            #[cfg(unix)]
            // SAFETY: the map is read-only: what is dropped is read from the file again, by those
            // who still look at it.
            let _ = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    start,
                    end - start,
                )
            };
        }
    }

    /// What lies from `offset` on: of the copy if it has got there.
    fn bytes(&self, offset: usize) -> Option<&[u8]> {
        let copied = self.copy.as_ref().and_then(|copy| {
            let done = copy.done.load(Ordering::Acquire);
            // SAFETY: what lies before `done` was written before `done` was stored, and is never
            // written again.
            (offset < done).then(|| unsafe {
                std::slice::from_raw_parts(copy.memory.as_ptr().add(offset), done - offset)
            })
        });
        copied.or_else(|| self.map.get(offset..))
    }
}

impl Pager for MappedPager {
    fn geometry(&self) -> PageGeometry {
        self.geometry
    }

    fn is_stable(&self, _page: u32) -> bool {
        true
    }

    fn prefetch(&mut self, page: u32) {
        // A pass ends with the last page; the copy is for those to come.
        if page >= self.geometry.pages && self.decodes.load(Ordering::Relaxed) {
            self.settle();
        }
    }

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        let out_of_range = PageError { page, kind: PageErrorKind::OutOfRange };
        let file = self.files.partition_point(|(first, _)| *first <= page).checked_sub(1);
        let (first, file) = file.and_then(|i| self.files.get(i)).ok_or(out_of_range)?;
        let offset = (page - first) as usize * self.geometry.page_size as usize;
        file.bytes(offset).filter(|bytes| !bytes.is_empty()).ok_or(out_of_range)
    }

    fn discard(&mut self, _page: u32) {}
}

impl Drop for MappedPager {
    fn drop(&mut self) {
        if let Some(copier) = self.copier.take() {
            copier.stop.store(true, Ordering::Relaxed);
            // The thread only copies; there is nothing to report.
            let _ = copier.thread.join();
        }
    }
}

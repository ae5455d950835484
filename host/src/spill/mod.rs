//! KV caches that memory has no room for: some stay in memory, evenly spread over the layers, the
//! others lie in a file.
//!
//! A pass uses the caches in the same order every time, as it does weights: while the engine works
//! on one cache, the next one that lies in the file is being read. Two buffers are enough, since a
//! buffer is given back only when the next cache is asked for: a layer takes as long as the slower
//! of reading and computing.

mod file;
mod size;
mod tails;
mod worker;

pub use file::SpillFile;
pub use size::BLOCK;
pub(crate) use size::{BUFFERS, cache_bytes, memory_bytes};

use crate::pager::{Buffer, buffer};
use crate::{Error, Result, dispatch};
use file::UnnamedFile;
use omex_core::state::kv::KvShape;
use omex_core::state::{KvError, KvErrorKind, StateStore};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use worker::{CachePlaces, Done, Job, SharedFile, Worker};

/// KV caches of which some lie in a file.
pub struct Spill {
    folder: PathBuf,
    /// By the caches' numbers.
    homes: Vec<Home>,
    /// Numbers of the caches in the file.
    slots: Vec<u32>,
    /// How many places of each of them are in use.
    used: Vec<u32>,
    current: Option<Current>,
    /// The cache that was asked for last is the current one, and not one in memory.
    in_file: bool,
    /// What is being read.
    ahead: Option<CachePlaces>,
    idle: Vec<Buffer>,
    /// What was not written is lost for good.
    lost: Option<KvError>,
    worker: Handle,
}

/// Where a cache lies.
enum Home {
    Memory(Buffer),
    File { slot: u32 },
}

/// The cache of the file that is in use.
struct Current {
    /// The places that the buffer holds.
    held: CachePlaces,
    changed: Range<u32>,
    buffer: Buffer,
}

impl Current {
    /// What has to be written.
    fn write(&self) -> Option<CachePlaces> {
        let (slot, places) = (self.held.slot, self.changed.clone());
        (!places.is_empty()).then_some(CachePlaces { slot, places })
    }
}

fn covers(held: &CachePlaces, slot: u32, places: &Range<u32>) -> bool {
    let within = held.places.start <= places.start && places.end <= held.places.end;
    held.slot == slot && (within || places.is_empty())
}

/// The thread that reads and writes.
struct Handle {
    /// `None` once there will be no more.
    jobs: Option<SyncSender<Job>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    /// Without a thread, jobs are worked off when they are waited for.
    own: Option<(Worker, Receiver<Job>)>,
    file: SharedFile,
    bytes_read: Arc<AtomicU64>,
}

impl Spill {
    /// Room for `caches` caches, of which `spilled` lie in a file without a name in `folder`.
    ///
    /// # Errors
    /// A folder without room for them, or without a disk behind it, or no memory.
    pub(crate) fn new(shape: KvShape, caches: u32, spilled: u32, folder: &Path) -> Result<Self> {
        let bytes = cache_bytes(&shape);
        let new = || buffer(bytes).map_err(|e| Error::io(Path::new("memory"), "get", e));
        let (mut homes, mut slots) = (vec![], vec![]);
        for cache in 0..caches {
            if is_spilled(cache, caches, spilled) {
                homes.push(Home::File { slot: slots.len() as u32 });
                slots.push(cache);
            } else {
                homes.push(Home::Memory(new()?));
            }
        }
        let file = UnnamedFile::new(folder, bytes as u64 * u64::from(spilled))?;
        let idle = (0..BUFFERS).map(|_| new()).collect::<Result<_>>()?;
        let worker = Handle::start(shape, spilled, Box::new(file))?;
        let (folder, used) = (folder.to_owned(), vec![0; slots.len()]);
        let (current, in_file, ahead, lost) = (None, false, None, None);
        Ok(Self { folder, homes, slots, used, current, in_file, ahead, idle, lost, worker })
    }

    /// The folder that the file lies in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A counter of the bytes read back so far.
    #[must_use]
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.worker.bytes_read)
    }

    /// Puts something between the caches and their file, as a source of faults.
    pub fn wrap_file(&mut self, wrap: impl FnOnce(Box<dyn SpillFile>) -> Box<dyn SpillFile>) {
        let mut file = self.worker.file.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = std::mem::replace(&mut *file, Box::new(Nothing));
        *file = wrap(nothing);
    }

    /// Makes a cache of the file the current one, with these places of it, and begins to read the
    /// one after it.
    fn bring(&mut self, slot: u32, places: &Range<u32>) -> Result<(), KvError> {
        if !self.ahead.as_ref().is_some_and(|ahead| covers(ahead, slot, places)) {
            self.drop_ahead()?;
            self.begin(slot, places.start)?;
        }
        let next = (slot + 1) % self.slots.len().max(1) as u32;
        let held = self.ahead.take();
        self.begin(next, places.start)?;
        let buffer = self.receive()?;
        let held = held.unwrap_or(CachePlaces { slot, places: places.clone() });
        self.current = Some(Current { held, changed: 0..0, buffer });
        Ok(())
    }

    /// Begins to read the places of a cache from `first` on, once what changed of the current one
    /// is written.
    fn begin(&mut self, slot: u32, first: u32) -> Result<(), KvError> {
        let write = self.current.as_ref().and_then(Current::write);
        let buffer = self.current.take().map(|current| current.buffer).or_else(|| self.idle.pop());
        let places = first..self.used.get(slot as usize).copied().unwrap_or(0);
        let read = CachePlaces { slot, places };
        self.ahead = Some(read.clone());
        let job = buffer.map(|buffer| Job { buffer, write, read });
        let sent = job.zip(self.worker.jobs.as_ref()).map(|(job, jobs)| jobs.send(job).is_ok());
        if sent == Some(true) { Ok(()) } else { Err(self.error(slot, KvErrorKind::Read)) }
    }

    /// Waits for the buffer that was sent off first.
    fn receive(&mut self) -> Result<Buffer, KvError> {
        let Some(Done { buffer, result }) = self.worker.wait() else {
            return Err(self.error(0, KvErrorKind::Read));
        };
        let Err((slot, kind)) = result else { return Ok(buffer) };
        self.idle.push(buffer);
        let error = self.error(slot, kind);
        if kind == KvErrorKind::Write {
            self.lost = Some(error);
        }
        Err(error)
    }

    /// Waits for what is being read and is not wanted.
    fn drop_ahead(&mut self) -> Result<(), KvError> {
        if self.ahead.take().is_none() {
            return Ok(());
        }
        match self.receive() {
            Ok(buffer) => self.idle.push(buffer),
            Err(error) if error.kind == KvErrorKind::Write => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }

    fn error(&self, slot: u32, kind: KvErrorKind) -> KvError {
        KvError { cache: self.slots.get(slot as usize).copied().unwrap_or(slot), kind }
    }
}

/// Whether a cache lies in the file: those in memory are evenly spread.
fn is_spilled(cache: u32, caches: u32, spilled: u32) -> bool {
    let before = |cache: u32| u64::from(cache) * u64::from(spilled) / u64::from(caches.max(1));
    before(cache + 1) > before(cache)
}

impl StateStore for Spill {
    fn state(&mut self, _: u32, index: u32, places: Range<u32>) -> Result<&mut [u8], KvError> {
        let missing = KvError { cache: index, kind: KvErrorKind::Read };
        let slot = match self.homes.get(index as usize).ok_or(missing)? {
            Home::Memory(_) => None,
            Home::File { slot } => Some(*slot),
        };
        self.in_file = slot.is_some();
        if let Some(slot) = slot {
            self.lost.map_or(Ok(()), Err)?;
            let used = self.used.get_mut(slot as usize).ok_or(missing)?;
            let places = places.start..places.end.min(*used);
            if !self.current.as_ref().is_some_and(|current| covers(&current.held, slot, &places)) {
                *used = places.end;
                self.bring(slot, &places)?;
            }
        }
        match (self.homes.get_mut(index as usize), &mut self.current) {
            (Some(Home::Memory(buffer)), _) => Ok(buffer),
            (_, Some(current)) => Ok(&mut current.buffer),
            _ => Err(missing),
        }
    }

    fn changed(&mut self, places: Range<u32>) {
        let Some(current) = self.current.as_mut().filter(|_| self.in_file) else { return };
        current.held.places = hull(&current.held.places, &places);
        current.changed = hull(&current.changed, &places);
        if let Some(used) = self.used.get_mut(current.held.slot as usize) {
            *used = places.end.max(*used);
        }
    }

    /// There is one text.
    fn fork(&mut self, _: u32, _: u32, _: u32) -> Result<(), KvError> {
        Ok(())
    }
}

/// The least range that two ranges lie in.
fn hull(a: &Range<u32>, b: &Range<u32>) -> Range<u32> {
    if a.is_empty() { b.clone() } else { a.start.min(b.start)..a.end.max(b.end) }
}

impl Handle {
    fn start(shape: KvShape, slots: u32, file: Box<dyn SpillFile>) -> Result<Self> {
        let (file, bytes_read) = (Arc::new(Mutex::new(file)), Arc::default());
        let crc32c = dispatch::kernels()?.crc32c;
        let worker = || {
            let worker =
                Worker::new(shape, slots, Arc::clone(&file), crc32c, Arc::clone(&bytes_read));
            worker.map_err(|e| Error::io(Path::new("memory"), "get", e))
        };
        let (jobs, waiting) = sync_channel(BUFFERS as usize);
        let (finished, done) = sync_channel(BUFFERS as usize);
        let builder = std::thread::Builder::new().name("omex-kv".to_owned());
        let own = worker()?;
        let thread = builder.stack_size(64 << 10).spawn(move || own.run(&waiting, &finished));
        let (jobs, own) = match thread {
            Ok(_) => (jobs, None),
            Err(_) => {
                let (jobs, waiting) = sync_channel(BUFFERS as usize);
                (jobs, Some((worker()?, waiting)))
            }
        };
        Ok(Self { jobs: Some(jobs), done, thread: thread.ok(), own, file, bytes_read })
    }

    /// Waits for the job that was sent first.
    fn wait(&mut self) -> Option<Done> {
        match &mut self.own {
            None => self.done.recv().ok(),
            Some((worker, jobs)) => jobs.try_recv().ok().map(|job| worker.work(job)),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // What it was still to write is not wanted any more.
            let _ = thread.join();
        }
    }
}

/// Stands in for a file that is being wrapped.
struct Nothing;

impl SpillFile for Nothing {
    fn read(&self, _: &mut [u8], _: u64) -> std::io::Result<()> {
        Err(std::io::ErrorKind::NotFound.into())
    }

    fn write(&self, _: &[u8], _: u64) -> std::io::Result<()> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

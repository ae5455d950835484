//! Reads by threads that wait for the file system, one read each.

use super::Space;
use super::reader::{Read, Reader, open_files};
use crate::Result;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Reads under way at once.
const THREADS: usize = 4;

/// Reads by `pread`.
pub(super) struct ThreadReader {
    shared: Arc<Shared>,
    under_way: usize,
    /// As many as could be started; without any, reads are made when they are waited for.
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    files: Vec<Arc<File>>,
    /// What was read is dropped from the system's cache: it would be gone before it is used again.
    drop_behind: bool,
    queue: Mutex<Queue>,
    submitted: Condvar,
    done: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Read>,
    done: VecDeque<(Read, io::Result<usize>)>,
    closed: bool,
}

impl ThreadReader {
    /// Opens the files, for at most `depth` reads at a time.
    ///
    /// # Errors
    /// A file that can't be opened.
    pub(super) fn new(space: &Space, depth: usize, direct: bool) -> Result<Self> {
        // Full size from the start, so that reads allocate nothing.
        let (waiting, done) = (VecDeque::with_capacity(depth), VecDeque::with_capacity(depth));
        let shared = Arc::new(Shared {
            files: open_files(space, direct)?,
            drop_behind: !direct,
            queue: Mutex::new(Queue { waiting, done, closed: false }),
            submitted: Condvar::new(),
            done: Condvar::new(),
        });
        let mut reader = Self { shared, under_way: 0, threads: vec![] };
        for i in 0..THREADS.min(depth) {
            let shared = Arc::clone(&reader.shared);
            let builder = std::thread::Builder::new().name(format!("omex-read-{i}"));
            let thread = builder.stack_size(64 << 10).spawn(move || shared.serve());
            let Ok(thread) = thread else { break };
            reader.threads.push(thread);
        }
        Ok(reader)
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut queue = self.queue();
        while !queue.closed {
            let Some(mut read) = queue.waiting.pop_front() else {
                queue = self.submitted.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            let result = self.read(&mut read);
            queue = self.queue();
            queue.done.push_back((read, result));
            self.done.notify_one();
        }
    }

    fn read(&self, read: &mut Read) -> io::Result<usize> {
        let file = self.files.get(read.file).ok_or(io::ErrorKind::NotFound)?;
        let offset = read.offset + read.filled as u64;
        let bytes = file.read_at(read.rest(), offset)?;
        #[cfg(target_os = "linux")]
        if self.drop_behind {
            let length = std::num::NonZeroU64::new(bytes as u64);
            // Where the system keeps the bytes, they are only in the way.
            let _ = rustix::fs::fadvise(file, offset, length, rustix::fs::Advice::DontNeed);
        }
        Ok(bytes)
    }
}

impl Reader for ThreadReader {
    fn submit(&mut self, read: Read) {
        self.shared.queue().waiting.push_back(read);
        self.under_way += 1;
        self.shared.submitted.notify_one();
    }

    fn wait(&mut self) -> Option<(Read, io::Result<usize>)> {
        if self.under_way == 0 {
            return None;
        }
        self.under_way -= 1;
        let mut queue = self.shared.queue();
        if self.threads.is_empty() {
            let mut read = queue.waiting.pop_front()?;
            let result = self.shared.read(&mut read);
            return Some((read, result));
        }
        let wait = self.shared.done.wait_while(queue, |queue| queue.done.is_empty());
        wait.unwrap_or_else(PoisonError::into_inner).done.pop_front()
    }

    fn poll(&mut self) -> Option<(Read, io::Result<usize>)> {
        let done = self.shared.queue().done.pop_front();
        self.under_way -= usize::from(done.is_some());
        done
    }
}

impl Drop for ThreadReader {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.submitted.notify_all();
        for thread in self.threads.drain(..) {
            // A thread only reads; there is nothing to report.
            let _ = thread.join();
        }
    }
}

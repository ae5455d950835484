//! Resident worker threads behind [`Parallel`].
#![expect(unsafe_code, reason = "workers borrow the caller's closure while it waits for them")]

use omex_hal::Parallel;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// How often a worker looks for work before it sleeps.
const SPINS: u32 = 20_000;

/// A job: the closure, as a pointer that stays valid until every worker is done with it.
#[derive(Clone, Copy)]
struct Job {
    task: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

// SAFETY: the closure is `Sync`, and `Pool::run` keeps it alive until the last worker is done.
unsafe impl Send for Job {}

struct Shared {
    /// Number of the newest job; changes only while `job` is locked.
    generation: AtomicUsize,
    job: Mutex<Option<Job>>,
    wake: Condvar,
    /// Index of the next task.
    next: AtomicUsize,
    /// Workers that have not finished the job.
    busy: AtomicUsize,
    panicked: AtomicUsize,
}

/// Threads that wait for work: short jobs find them spinning, long pauses find them asleep.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One job at a time.
    running: Mutex<()>,
}

impl Pool {
    /// A pool that uses `threads` threads, the caller's included, or as many as can be started.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            generation: AtomicUsize::new(0),
            job: Mutex::new(None),
            wake: Condvar::new(),
            next: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicUsize::new(0),
        });
        let mut pool = Self { shared, workers: vec![], running: Mutex::new(()) };
        for i in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder =
                std::thread::Builder::new().name(format!("omex-{i}")).stack_size(256 << 10);
            let Ok(worker) = builder.spawn(move || work(&shared)) else { break };
            pool.workers.push(worker);
        }
        pool
    }

    fn submit(&self, job: Option<Job>) {
        let shared = &*self.shared;
        shared.next.store(0, Ordering::Relaxed);
        shared.busy.store(self.workers.len(), Ordering::Relaxed);
        let mut current = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
        *current = job;
        shared.generation.fetch_add(1, Ordering::Release);
        drop(current);
        shared.wake.notify_all();
    }
}

// SAFETY: `next` hands out each index below `tasks` once, and `run` returns only when `busy` has
// come down to zero, which each worker does after its last call.
unsafe impl Parallel for Pool {
    fn cores(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks < 2 || self.workers.is_empty() {
            return (0..tasks).for_each(task);
        }
        let _one_at_a_time = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: only the lifetime changes; `Wait` below keeps the closure alive, even if a task
        // panics on this thread, until no worker uses it.
        let task: *const (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(task) };
        let job = Job { task, tasks };
        self.submit(Some(job));
        let wait = Wait(&self.shared);
        draw(&self.shared, job);
        drop(wait);
        if self.shared.panicked.swap(0, Ordering::Relaxed) > 0 {
            panic!("a worker thread panicked");
        }
    }
}

/// Waits for the workers when it is dropped.
struct Wait<'a>(&'a Shared);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut spins = 0u32;
        while self.0.busy.load(Ordering::Acquire) > 0 {
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(1024) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

/// Runs tasks until there are none left.
fn draw(shared: &Shared, job: Job) {
    loop {
        let index = shared.next.fetch_add(1, Ordering::Relaxed);
        if index >= job.tasks {
            return;
        }
        // SAFETY: `Pool::run` keeps the closure alive until this thread reports that it is done.
        (unsafe { &*job.task })(index);
    }
}

fn work(shared: &Shared) {
    let mut seen = 0;
    loop {
        seen = wait_for_job(shared, seen);
        let Some(job) = *shared.job.lock().unwrap_or_else(PoisonError::into_inner) else { return };
        let drawn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| draw(shared, job)));
        if drawn.is_err() {
            shared.panicked.fetch_add(1, Ordering::Relaxed);
        }
        shared.busy.fetch_sub(1, Ordering::Release);
    }
}

/// Waits until there is a newer job than `seen`, and returns its number.
fn wait_for_job(shared: &Shared, seen: usize) -> usize {
    for _ in 0..SPINS {
        let generation = shared.generation.load(Ordering::Acquire);
        if generation != seen {
            return generation;
        }
        std::hint::spin_loop();
    }
    let mut job = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let generation = shared.generation.load(Ordering::Acquire);
        if generation != seen {
            return generation;
        }
        job = shared.wake.wait(job).unwrap_or_else(PoisonError::into_inner);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.submit(None);
        for worker in self.workers.drain(..) {
            // A worker that panicked has been reported by `run`.
            let _ = worker.join();
        }
    }
}

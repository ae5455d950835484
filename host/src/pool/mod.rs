//! Resident worker threads behind [`Parallel`].
//!
//! A worker joins a job only while it is open. The caller, who works as well, closes it once every
//! task is taken, and then waits for those alone that joined: a worker that sleeps, or that the
//! system lets others run instead of, holds nobody up.
#![expect(unsafe_code, reason = "workers borrow the caller's closure while it waits for them")]

mod pace;

use omex_hal::Parallel;
pub use pace::SHORT_PASS;
use pace::{Help, Pace, Way};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{from_ref, null_mut};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a worker looks for a job before it sleeps: longer than the pauses between the jobs of a
/// pass, much shorter than the system lets a thread run.
const IDLE: Duration = Duration::from_micros(500);
/// How long a caller looks whether workers have left before it sleeps.
const LEAVING: Duration = Duration::from_micros(100);
/// A pass that nothing is known of wakes nobody before it has run so long.
pub const BEGINS_ALONE: Duration = Duration::from_millis(4);
/// Looks between two at the clock.
const LOOKS: u32 = 64;

// The parts of `Shared::state`.
const STOPPED: usize = 1;
/// Workers may join.
const OPEN: usize = 1 << 1;
/// The caller sleeps until the last worker has left.
const AWAITED: usize = 1 << 2;
/// One worker that joined; up to `MAX_WORKERS` are counted.
const WORKER: usize = 1 << 3;
const WORKERS: usize = GENERATION - WORKER;
const MAX_WORKERS: usize = WORKERS / WORKER;
/// One job more. The count may wrap: a worker that then takes a job for one that it knows leaves it
/// to others.
const GENERATION: usize = 1 << 16;

type Payload = Box<dyn Any + Send>;

/// What a caller shares out, on its stack.
struct Job<'j> {
    task: &'j (dyn Fn(usize) + Sync),
    tasks: usize,
    /// Index of the next task.
    next: AtomicUsize,
    /// What a worker panicked with.
    panic: Mutex<Option<Payload>>,
}

impl Job<'_> {
    /// Runs tasks until there are none left, and says how many. After a panic there are none for
    /// anybody.
    fn draw(&self) -> Result<usize, Payload> {
        let Job { task, tasks, .. } = *self;
        let run = || {
            let mut done = 0;
            loop {
                let index = self.next.fetch_add(1, Ordering::Relaxed);
                if index >= tasks {
                    return done;
                }
                task(index);
                done += 1;
            }
        };
        catch_unwind(AssertUnwindSafe(run))
            .inspect_err(|_| self.next.store(self.tasks, Ordering::Relaxed))
    }
}

struct Shared {
    /// Number of the newest job, whether it is open, and how many workers are at it.
    state: AtomicUsize,
    /// The newest job: there while it is open or workers are at it.
    job: AtomicPtr<Job<'static>>,
    /// Workers that sleep, or are about to.
    asleep: AtomicUsize,
    /// Workers sleep at once, since the caller works alone for a while: what they would take from it
    /// by looking for jobs is not theirs.
    rests: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
    left: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, job: &Job<'_>) {
        self.rests.store(false, Ordering::Relaxed);
        self.job.store(from_ref(job).cast::<Job<'static>>().cast_mut(), Ordering::Relaxed);
        let generation = self.state.load(Ordering::Relaxed) & !(GENERATION - 1);
        // Ordered before the look at `asleep`, as a worker's count is before its look at the state.
        self.state.store(generation.wrapping_add(GENERATION) | OPEN, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            drop(self.lock());
            self.wake.notify_all();
        }
    }

    /// Lets nobody join any more, waits until the last worker has left, and returns how long that
    /// was, if it was long.
    fn close(&self) -> Duration {
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
        let left = || self.state.load(Ordering::Acquire) & WORKERS == 0;
        let Some(start) = spin(LEAVING, || left().then_some(())).err() else {
            return Duration::ZERO;
        };
        let mut lock = self.lock();
        self.state.fetch_or(AWAITED, Ordering::AcqRel);
        while !left() {
            lock = self.left.wait(lock).unwrap_or_else(PoisonError::into_inner);
        }
        start.elapsed()
    }

    /// Joins the newest job if it is open and not the one `seen`. Returns its number.
    fn join(&self, seen: usize) -> Option<usize> {
        let state = self.state.load(Ordering::SeqCst);
        let generation = state / GENERATION;
        if state & STOPPED != 0 {
            return Some(seen);
        }
        if state & OPEN == 0 || generation == seen {
            return None;
        }
        let joined = state + WORKER;
        let join = self.state.compare_exchange(state, joined, Ordering::AcqRel, Ordering::Relaxed);
        join.ok().map(|_| generation)
    }

    fn leave(&self) {
        let before = self.state.fetch_sub(WORKER, Ordering::AcqRel);
        if before & (WORKERS | AWAITED) == WORKER | AWAITED {
            drop(self.lock());
            self.left.notify_one();
        }
    }

    /// Waits for a job other than the one `seen`, and joins it; returns `seen` once there will be
    /// none.
    fn wait_and_join(&self, seen: usize) -> usize {
        let look = || {
            let joined = self.join(seen);
            joined.map(Some).or_else(|| self.rests.load(Ordering::Relaxed).then_some(None))
        };
        if let Ok(Some(joined)) = spin(IDLE, look) {
            return joined;
        }
        let mut lock = self.lock();
        self.asleep.fetch_add(1, Ordering::SeqCst);
        loop {
            if let Some(joined) = self.join(seen) {
                self.asleep.fetch_sub(1, Ordering::SeqCst);
                return joined;
            }
            lock = self.wake.wait(lock).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        let mut seen = 0;
        loop {
            let joined = self.wait_and_join(seen);
            if joined == seen {
                return;
            }
            seen = joined;
            // SAFETY: this thread is counted as one at the job. The caller, who put the job there
            // before it was open, keeps it until `leave`.
            let job = unsafe { &*self.job.load(Ordering::Relaxed) };
            if let Err(payload) = job.draw() {
                *job.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
            }
            self.leave();
        }
    }
}

/// Looks for something for a while; the time since when, if it doesn't come.
fn spin<T>(most: Duration, look: impl Fn() -> Option<T>) -> Result<T, Instant> {
    let mut start = None;
    loop {
        for _ in 0..LOOKS {
            if let Some(found) = look() {
                return Ok(found);
            }
            std::hint::spin_loop();
        }
        let start = *start.get_or_insert_with(Instant::now);
        if start.elapsed() >= most {
            return Err(start);
        }
    }
}

/// Threads that wait for work: short pauses find them spinning, long ones asleep.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One job at a time.
    taken: AtomicBool,
    /// Nanoseconds since `born` until when the caller is to work without the others.
    alone_until: AtomicU64,
    born: Instant,
    pace: Mutex<Pace>,
    counts: Counts,
}

/// How workers helped with a pass; written by the caller alone.
#[derive(Default)]
struct Counts {
    /// Tasks that were shared out, and how many of them workers ran.
    tasks: AtomicU64,
    helped: AtomicU64,
    /// Nanoseconds for which the caller waited for workers.
    waited: AtomicU64,
}

impl Counts {
    fn count(&self, tasks: usize, helped: usize, waited: Duration) {
        let counts = [tasks as u64, helped as u64, waited.as_nanos() as u64];
        for (counter, more) in [&self.tasks, &self.helped, &self.waited].into_iter().zip(counts) {
            counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        }
    }

    /// What was counted since this was called last.
    fn take(&self) -> Help {
        let [tasks, helped, waited] =
            [&self.tasks, &self.helped, &self.waited].map(|count| count.swap(0, Ordering::Relaxed));
        Help { tasks, helped, waited: Duration::from_nanos(waited) }
    }
}

impl Pool {
    /// A pool that uses up to `threads` threads, the caller's included: as many as can be started,
    /// and in passes only the caller's where that was measured to be faster.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicUsize::new(0),
            job: AtomicPtr::new(null_mut()),
            asleep: AtomicUsize::new(0),
            rests: AtomicBool::new(true),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            left: Condvar::new(),
        });
        let start = |number| {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("omex-{number}"));
            builder.stack_size(256 << 10).spawn(move || shared.work()).ok()
        };
        let workers: Vec<_> = (1..threads.min(MAX_WORKERS)).map_while(start).collect();
        let pace = Mutex::new(Pace::new(workers.len() + 1));
        Self {
            shared,
            workers,
            taken: AtomicBool::new(false),
            alone_until: AtomicU64::new(0),
            born: Instant::now(),
            pace,
            counts: Counts::default(),
        }
    }

    fn age(&self) -> u64 {
        self.born.elapsed().as_nanos() as u64
    }

    fn is_alone(&self) -> bool {
        match self.alone_until.load(Ordering::Relaxed) {
            0 => false,
            u64::MAX => true,
            until if self.age() < until => true,
            _ => {
                self.alone_until.store(0, Ordering::Relaxed);
                false
            }
        }
    }

    /// Runs a job together with the workers.
    fn share_out(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) -> Result<(), Payload> {
        let job = Job { task, tasks, next: AtomicUsize::new(0), panic: Mutex::new(None) };
        self.shared.open(&job);
        // Nothing between opening and closing unwinds, since workers use the job meanwhile.
        let drawn = job.draw();
        let waited = self.shared.close();
        self.counts.count(tasks, tasks - drawn?, waited);
        job.panic.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

// SAFETY: `next` hands out each index below `tasks` once, and `share_out` returns only when no
// worker is at the job any more; a loop over the range does so too.
unsafe impl Parallel for Pool {
    fn cores(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let alone = tasks < 2 || self.workers.is_empty() || self.is_alone();
        // A task that calls `run` finds the pool taken, and so does another thread.
        if alone || self.taken.swap(true, Ordering::Acquire) {
            return (0..tasks).for_each(task);
        }
        let done = self.share_out(tasks, task);
        self.taken.store(false, Ordering::Release);
        if let Err(payload) = done {
            resume_unwind(payload);
        }
    }

    fn pass(&self, columns: usize, pass: &mut dyn FnMut()) {
        let mut pace = match self.pace.try_lock() {
            Ok(pace) => pace,
            Err(TryLockError::Poisoned(pace)) => pace.into_inner(),
            // Another thread's pass is being measured.
            Err(TryLockError::WouldBlock) => return pass(),
        };
        let way = pace.way(columns);
        self.shared.rests.store(way == Way::Alone, Ordering::Relaxed);
        let until = match way {
            Way::Together => 0,
            Way::Alone => u64::MAX,
            Way::Unknown => self.age() + BEGINS_ALONE.as_nanos() as u64,
        };
        self.alone_until.store(until, Ordering::Relaxed);
        self.counts.take();
        let start = Instant::now();
        pass();
        let (time, alone) = (start.elapsed(), self.alone_until.swap(0, Ordering::Relaxed) != 0);
        pace.record(columns, alone, time, self.counts.take());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.fetch_or(STOPPED, Ordering::SeqCst);
        drop(self.shared.lock());
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // What a task panicked with has been passed on by `run`.
            let _ = worker.join();
        }
    }
}

/// Short enough for Miri; `tests/tests/parallel.rs` has what every implementation promises.
#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::UnsafeCell;

    /// A number that tasks change without atomics, each its own.
    struct Number(UnsafeCell<usize>);

    // SAFETY: a task alone has it while it runs, and the caller before and after.
    unsafe impl Sync for Number {}

    #[test]
    fn tasks_borrow_what_the_caller_has_and_leave_it_when_the_job_ends() {
        let pool = Pool::new(3);
        for round in 0..20 {
            let numbers: Vec<_> = (0..8).map(|n| Number(UnsafeCell::new(n + round))).collect();
            let square = |index: usize| {
                let number = numbers[index].0.get();
                // SAFETY: each index is called once.
                unsafe { *number *= *number };
                pool.run(2, &|_| {});
            };
            pool.pass(round, &mut || pool.run(8, &square));
            let squares = numbers.into_iter().map(|number| number.0.into_inner());
            assert!(squares.eq((round..round + 8).map(|n| n * n)));
        }
    }

    #[test]
    fn a_job_that_panics_is_left_by_all_before_it_is_gone() {
        let pool = Pool::new(3);
        for panics in 0..8 {
            let borrowed = Box::new(panics);
            let run = || pool.run(8, &|index| assert_ne!(index, *borrowed));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        }
    }
}

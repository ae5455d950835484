//! Two cores of a chip that share their memory, without an operating system.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use omex_hal::{Parallel, Serial};

/// A second core that helps the first: the chip starts it with [`TwoCores::help`], and until then the first
/// works alone.
///
/// It suits firmware, where a panic ends everything: should a task panic on the second core alone, the first
/// would wait for it for ever.
///
/// ```
/// use omex_hal::Parallel;
/// use omex_hal_adapters::TwoCores;
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// static CORES: TwoCores = TwoCores::new();
/// std::thread::spawn(|| CORES.help()); // A chip's own way to start its second core.
/// let sum = AtomicUsize::new(0);
/// CORES.run(100, &|i| _ = sum.fetch_add(i, Ordering::Relaxed));
/// assert_eq!(sum.into_inner(), 4950);
/// ```
pub struct TwoCores {
    /// The second core is there.
    helped: AtomicBool,
    /// A call of [`Parallel::run`] has the second core for itself.
    taken: AtomicBool,
    job: UnsafeCell<Job>,
    /// Jobs that were given to the second core, and those that it is done with.
    given: AtomicUsize,
    done: AtomicUsize,
    /// The index that is begun next.
    next: AtomicUsize,
}

#[derive(Clone, Copy)]
struct Job {
    tasks: usize,
    task: &'static (dyn Fn(usize) + Sync),
}

// SAFETY: the job is written only by whoever took the second core, while that one is done with all jobs, and is
// read by the second core only between `given` and `done`; those counters order both.
#[expect(unsafe_code, reason = "see the SAFETY comment")]
unsafe impl Sync for TwoCores {}

impl TwoCores {
    /// One core, until another comes to help.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            helped: AtomicBool::new(false),
            taken: AtomicBool::new(false),
            job: UnsafeCell::new(Job { tasks: 0, task: &|_| {} }),
            given: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
        }
    }

    /// Helps for ever, if no other core does.
    pub fn help(&self) -> ! {
        let alone = !self.helped.swap(true, Ordering::AcqRel);
        let mut seen = self.done.load(Ordering::Relaxed);
        loop {
            if !alone || self.given.load(Ordering::Acquire) == seen {
                spin_loop();
                continue;
            }
            seen = seen.wrapping_add(1);
            // SAFETY: a job was given, and is not replaced before it is said to be done.
            #[expect(unsafe_code, reason = "see the SAFETY comment")]
            let job = unsafe { *self.job.get() };
            self.work(job);
            self.done.store(seen, Ordering::Release);
        }
    }

    /// Begins tasks until all are begun.
    fn work(&self, job: Job) {
        loop {
            // Which indices are begun is all that this decides: what tasks see is ordered by `given` and `done`.
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= job.tasks {
                return;
            }
            (job.task)(index);
        }
    }
}

impl Default for TwoCores {
    fn default() -> Self {
        Self::new()
    }
}

/// Gives the second core back once it is done.
struct Taken<'c>(&'c TwoCores);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let cores = self.0;
        while cores.done.load(Ordering::Acquire) != cores.given.load(Ordering::Relaxed) {
            spin_loop();
        }
        cores.taken.store(false, Ordering::Release);
    }
}

// SAFETY: `next` hands out each index below `tasks` once; it begins at 0 while the second core is done with all
// jobs. `Taken` waits for the second core also where a task unwinds. Giving a job and being done with it order
// what was written before and what the tasks write.
#[expect(unsafe_code, reason = "see the SAFETY comment")]
unsafe impl Parallel for TwoCores {
    fn cores(&self) -> usize {
        1 + usize::from(self.helped.load(Ordering::Relaxed))
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let alone = tasks < 2 || !self.helped.load(Ordering::Acquire);
        if alone || self.taken.swap(true, Ordering::Acquire) {
            return Serial.run(tasks, task);
        }
        let taken = Taken(self);
        // SAFETY: only the lifetime changes: `Taken` ends after the last use of the task. The second core is done
        // with all jobs, and nobody else writes a job while it is taken.
        #[expect(unsafe_code, reason = "see the SAFETY comment")]
        let job = unsafe {
            let task = core::mem::transmute::<
                &(dyn Fn(usize) + Sync),
                &'static (dyn Fn(usize) + Sync),
            >(task);
            *self.job.get() = Job { tasks, task };
            *self.job.get()
        };
        self.next.store(0, Ordering::Relaxed);
        self.given.fetch_add(1, Ordering::Release);
        self.work(job);
        drop(taken);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::vec::Vec;

    fn counted(cores: &TwoCores, tasks: usize) -> Vec<u32> {
        let counts: Vec<_> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
        cores.run(tasks, &|i| _ = counts[i].fetch_add(1, Ordering::Relaxed));
        counts.into_iter().map(AtomicU32::into_inner).collect()
    }

    #[test]
    fn every_task_runs_once_with_and_without_help() {
        static CORES: TwoCores = TwoCores::new();
        assert_eq!((CORES.cores(), counted(&CORES, 5)), (1, std::vec![1; 5]));
        std::thread::spawn(|| CORES.help());
        while CORES.cores() == 1 {
            std::thread::yield_now();
        }
        for tasks in (0..40).chain([1000]).cycle().take(120) {
            assert_eq!(counted(&CORES, tasks), std::vec![1; tasks]);
        }
    }

    #[test]
    fn what_tasks_write_is_there_afterwards_and_runs_nest() {
        static CORES: TwoCores = TwoCores::new();
        std::thread::spawn(|| CORES.help());
        while CORES.cores() == 1 {
            std::thread::yield_now();
        }
        let sum = AtomicUsize::new(0);
        CORES.run(10, &|i| CORES.run(10, &|j| _ = sum.fetch_add(10 * i + j, Ordering::Relaxed)));
        assert_eq!(sum.into_inner(), 4950);
    }

    #[test]
    fn a_task_that_unwinds_leaves_the_cores_usable() {
        static CORES: TwoCores = TwoCores::new();
        std::thread::spawn(|| CORES.help());
        let first = std::thread::current().id();
        let run = || {
            CORES.run(64, &|_| assert_ne!(std::thread::current().id(), first, "on purpose"));
        };
        let _ = std::panic::catch_unwind(run);
        assert_eq!(counted(&CORES, 64), std::vec![1; 64]);
    }
}

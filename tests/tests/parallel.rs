//! What `Parallel` promises, of every implementation: each index once, order, re-entry, unwinding.

use omex::pool::Pool;
use omex_hal::{Parallel, Serial};
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::{current, sleep};
use std::time::{Duration, Instant};

/// Runs a test of every implementation, and fails if one takes for ever.
fn of_each(test: fn(&dyn Parallel)) {
    let (done, finished) = channel();
    let all = std::thread::spawn(move || {
        test(&Serial);
        [1, 2, 3, 8].into_iter().for_each(|threads| test(&Pool::new(threads)));
        let _ = done.send(());
    });
    let late = finished.recv_timeout(Duration::from_secs(60));
    assert_ne!(late, Err(std::sync::mpsc::RecvTimeoutError::Timeout), "it waits for ever");
    if let Err(panic) = all.join() {
        std::panic::resume_unwind(panic);
    }
}

/// How often each index is called.
fn calls(parallel: &dyn Parallel, tasks: usize) -> Vec<usize> {
    let calls: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
    parallel.run(tasks, &|index| {
        calls[index].fetch_add(1, Ordering::Relaxed);
    });
    calls.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn each_index_is_called_once() {
    of_each(|parallel| {
        assert!(parallel.cores() >= 1);
        for round in 0..2000 {
            let tasks = round % 40;
            assert_eq!(calls(parallel, tasks), vec![1; tasks]);
        }
        // Workers that fell asleep meanwhile are woken.
        sleep(Duration::from_millis(5));
        assert_eq!(calls(parallel, 1000), [1; 1000]);
    });
}

/// Numbers that tasks write without atomics, each its own.
struct Numbers(*mut usize);

// SAFETY: tasks touch their own index alone, and others look before and after `run` only.
#[expect(unsafe_code, reason = "this is what callers of Parallel do")]
unsafe impl Sync for Numbers {}

impl Numbers {
    #[expect(unsafe_code, reason = "this is what callers of Parallel do")]
    fn square(&self, index: usize) {
        // SAFETY: the index is in bounds, and each is called once.
        unsafe { *self.0.add(index) *= *self.0.add(index) };
    }
}

#[test]
fn tasks_see_what_was_before_and_are_seen_afterwards() {
    of_each(|parallel| {
        for round in 0..500 {
            let mut all: Vec<_> = (round..round + 64).collect();
            let numbers = Numbers(all.as_mut_ptr());
            parallel.run(all.len(), &|index| numbers.square(index));
            assert!(all.into_iter().eq((round..round + 64).map(|n| n * n)));
        }
    });
}

#[test]
fn a_task_may_run_tasks() {
    of_each(|parallel| {
        let count = AtomicUsize::new(0);
        let add = |_| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        parallel.run(8, &|_| parallel.run(8, &|_| parallel.run(3, &add)));
        assert_eq!(count.into_inner(), 8 * 8 * 3);
    });
}

#[test]
fn several_threads_may_run_tasks_at_once() {
    of_each(|parallel| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..300).for_each(|_| assert_eq!(calls(parallel, 16), [1; 16]));
                });
            }
        });
    });
}

/// What a run of some tasks panics with, where those that `panics` says do.
fn panic_of(parallel: &dyn Parallel, panics: &(dyn Fn() -> bool + Sync)) -> Option<&'static str> {
    let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let task = |_| {
        begun.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(1));
        ended.fetch_add(1, Ordering::Relaxed);
        if panics() {
            std::panic::panic_any("as it was asked to");
        }
    };
    let run = catch_unwind(AssertUnwindSafe(|| parallel.run(24, &task)));
    assert_eq!(begun.into_inner(), ended.into_inner(), "a task was left under way");
    run.err().map(|payload| *payload.downcast().unwrap())
}

#[test]
fn a_panic_of_any_task_is_passed_on_and_nothing_is_left_of_it() {
    of_each(|parallel| {
        let caller = current().id();
        let is_caller = || current().id() == caller;
        let (everybody, nobody) = (|| true, || false);
        for _ in 0..3 {
            assert_eq!(panic_of(parallel, &is_caller), Some("as it was asked to"));
            assert_eq!(panic_of(parallel, &nobody), None);
            let by_worker = panic_of(parallel, &|| !is_caller());
            assert_eq!(by_worker.is_some(), parallel.cores() > 1);
            assert_eq!(panic_of(parallel, &nobody), None);
            assert_eq!(panic_of(parallel, &everybody), Some("as it was asked to"));
            assert_eq!(calls(parallel, 100), [1; 100]);
        }
    });
}

#[test]
fn a_pass_is_called_once_and_runs_tasks() {
    of_each(|parallel| {
        let mut passes = 0;
        for columns in [0, 1, 1, 7, 64, usize::MAX] {
            parallel.pass(columns, &mut || {
                passes += 1;
                assert_eq!(calls(parallel, 16), [1; 16]);
            });
        }
        assert_eq!(passes, 6);
        let panics = || parallel.pass(1, &mut || panic!("as it was asked to"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        parallel.pass(1, &mut || assert_eq!(calls(parallel, 16), [1; 16]));
    });
}

/// Seconds that some passes of short jobs take.
fn seconds_of_passes(parallel: &dyn Parallel) -> f64 {
    let start = Instant::now();
    let work = |index: usize| {
        black_box((0..500).fold(index, |sum, i| black_box(sum ^ i)));
    };
    for _ in 0..300 {
        parallel.pass(1, &mut || (0..30).for_each(|_| parallel.run(4, &work)));
    }
    start.elapsed().as_secs_f64()
}

#[test]
fn on_a_busy_machine_threads_that_do_not_run_hold_up_nobody() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (pool, done) = (Pool::new(cores.max(2)), AtomicBool::new(false));
    let [alone, together] = std::thread::scope(|scope| {
        for _ in 0..2 * cores {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    black_box(0);
                }
            });
        }
        let mut sums = [0.0; 2];
        for _ in 0..8 {
            sums[0] += seconds_of_passes(&Serial);
            sums[1] += seconds_of_passes(&pool);
        }
        done.store(true, Ordering::Relaxed);
        sums
    });
    println!("{alone:.2} s on one thread, {together:.2} s on {}", pool.cores());
    assert!(together < 2.0 * alone, "{alone} s on one thread, {together} s on all");
}

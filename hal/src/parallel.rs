//! How work is spread over cores.

/// Runs one closure over many indices, on as many cores as there are.
///
/// # Safety
/// [`Parallel::run`] calls `task` at most once for each index below `tasks`, never with another
/// index, and returns only after the last call has returned. The callers let tasks write to
/// memory that is disjoint by index, and rely on this.
#[expect(unsafe_code, reason = "callers rely on each index being run at most once")]
pub unsafe trait Parallel: Sync {
    /// The number of cores that [`Parallel::run`] uses; at least 1.
    fn cores(&self) -> usize;

    /// Calls `task` once for each index below `tasks`, in any order, on any core.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// One core: a loop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

// SAFETY: a plain loop over the range calls each index once and returns after the last.
#[expect(unsafe_code, reason = "see the SAFETY comment")]
unsafe impl Parallel for Serial {
    fn cores(&self) -> usize {
        1
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}

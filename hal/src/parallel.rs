//! How work is spread over cores.

/// Runs one closure over many indices, on as many cores as there are.
///
/// # Order
/// What the caller did before [`Parallel::run`] happens before every call of `task`, and every call
/// happens before `run` returns: tasks may read what was written before, and what they write may be
/// read afterwards, without atomics. Calls are not ordered among each other, and a task must not
/// wait for another: they may run one after another on one core.
///
/// # Re-entry
/// A task may call `run` of the same implementation, and several threads may call it at once. No
/// such call waits for another to end; it may run on its caller's core alone.
///
/// # Unwinding
/// Where a call of `task` unwinds, so does `run`, after every call that began has ended. Indices
/// that were not begun by then may never be. Afterwards `run` is as usable as before.
///
/// # Safety
/// [`Parallel::run`] calls `task` at most once for each index below `tasks`, never with another
/// index, and once for each unless one unwinds; it returns or unwinds only after the last call has
/// ended, and keeps to the order above. The callers let tasks write to memory that is disjoint by
/// index, and rely on this.
#[expect(unsafe_code, reason = "callers rely on each index being run at most once")]
pub unsafe trait Parallel: Sync {
    /// The number of cores that [`Parallel::run`] uses; at least 1.
    fn cores(&self) -> usize;

    /// Calls `task` once for each index below `tasks`, in any order, on any core.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));

    /// Calls `pass` once, on this core. The work that it shares out with [`Parallel::run`] takes
    /// about as long as that of other passes over as many columns, so that an implementation may
    /// find out by measurement on how many cores such passes are best run.
    fn pass(&self, _columns: usize, pass: &mut dyn FnMut()) {
        pass();
    }
}

/// One core: a loop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

// SAFETY: a plain loop over the range calls each index once, in order, and returns after the last.
#[expect(unsafe_code, reason = "see the SAFETY comment")]
unsafe impl Parallel for Serial {
    fn cores(&self) -> usize {
        1
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}

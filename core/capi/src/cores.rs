//! Work on several cores, by the caller's function.

use core::ffi::c_void;
use omex_hal::Parallel;

/// One piece of work: is called with its argument and a number.
pub type TaskFn = unsafe extern "C" fn(argument: *const c_void, index: usize);

/// Calls `task` once for each number below `tasks`, in any order, on any core, and returns after the last call
/// has ended. What was written before is seen by the tasks, and what they write is seen when it returns.
pub type RunFn = Option<
    unsafe extern "C" fn(context: *mut c_void, tasks: usize, task: TaskFn, argument: *const c_void),
>;

/// The cores of a machine.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Cores {
    /// How many there are.
    pub count: usize,
    /// Has work done on them. Tasks may call it again, from several threads; such a call waits for no other,
    /// and may do all of its work itself.
    pub run: RunFn,
    /// Given to `run`.
    pub context: *mut c_void,
}

/// Cores that were checked.
pub(crate) struct Checked {
    pub(crate) count: usize,
    pub(crate) run: unsafe extern "C" fn(*mut c_void, usize, TaskFn, *const c_void),
    pub(crate) context: *mut c_void,
}

// SAFETY: the caller's function may be called from several threads, as its description says.
unsafe impl Sync for Checked {}

// SAFETY: the caller's function calls each task once, returns after the last, and orders memory as `Parallel` says.
unsafe impl Parallel for Checked {
    fn cores(&self) -> usize {
        self.count.max(1)
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let argument: *const &(dyn Fn(usize) + Sync) = &raw const task;
        // SAFETY: `call` is given what it expects, which lives until the function returns.
        unsafe { (self.run)(self.context, tasks, call, argument.cast()) }
    }
}

unsafe extern "C" fn call(argument: *const c_void, index: usize) {
    // SAFETY: `run` above gives this type, and what it points at lives until all tasks have ended.
    let task = unsafe { *argument.cast::<&(dyn Fn(usize) + Sync)>() };
    task(index);
}

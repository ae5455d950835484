//! Output rows that tasks on several cores fill at once, each its own.
#![expect(unsafe_code, reason = "the one place where tasks share an output")]

use crate::ops::ColumnsMut;
use core::{marker::PhantomData, ops::Range};
use omex_hal::Parallel;

/// The rows of an output that belong to one task.
pub(crate) struct TaskRows<'a> {
    values: *mut f32,
    len: usize,
    stride: usize,
    rows: Range<usize>,
    lifetime: PhantomData<&'a mut [f32]>,
}

impl TaskRows<'_> {
    /// The rows' numbers.
    pub(crate) fn range(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// This task's rows of a column; empty past the last column.
    #[inline]
    pub(crate) fn column(&mut self, column: usize) -> &mut [f32] {
        let start = column.saturating_mul(self.stride).saturating_add(self.rows.start);
        let length = self.rows.len();
        if start.saturating_add(length) > self.len || self.rows.end > self.stride {
            return &mut [];
        }
        // SAFETY: the range lies inside the output, by the check above. It overlaps with no other
        // task's, since rows are disjoint by task and do not reach the next column (`rows.end` is
        // at most `stride`). The borrow of `self` keeps this task from having two at once, and
        // The output's borrow, which `share_rows` holds until every task has returned, keeps
        // everybody else away.
        unsafe { core::slice::from_raw_parts_mut(self.values.add(start), length) }
    }
}

/// A pointer that tasks on other cores may use.
struct Shared(*mut f32);
// SAFETY: only `TaskRows` dereferences it, on rows that are its own.
unsafe impl Sync for Shared {}

impl Shared {
    fn get(&self) -> *mut f32 {
        self.0
    }
}

/// Cuts `rows` of an output into pieces of `rows_per_task` and runs `task` with each; the last may
/// be shorter.
pub(crate) fn share_rows(
    parallel: &dyn Parallel,
    output: &mut ColumnsMut<'_>,
    rows: Range<usize>,
    rows_per_task: usize,
    task: &(dyn Fn(TaskRows<'_>) + Sync),
) {
    let per_task = rows_per_task.max(1);
    let (stride, len) = (output.stride, output.values.len());
    let shared = Shared(output.values.as_mut_ptr());
    parallel.run(rows.len().div_ceil(per_task), &|index| {
        // `Parallel` runs each index at most once, so the pieces are disjoint.
        let start = rows.start.saturating_add(index.saturating_mul(per_task)).min(rows.end);
        let rows = start..start.saturating_add(per_task).min(rows.end);
        task(TaskRows { values: shared.get(), len, stride, rows, lifetime: PhantomData });
    });
}

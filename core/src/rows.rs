//! Output rows that tasks on several cores fill at once, each its own.
#![expect(unsafe_code, reason = "the one place where tasks share an output")]

use crate::columns::ColumnsMut;
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

    /// This task's rows of some columns, at once; empty past the last column.
    pub(crate) fn columns(&mut self, columns: Range<usize>) -> impl Iterator<Item = &mut [f32]> {
        let (values, len, stride, rows) = (self.values, self.len, self.stride, self.rows.clone());
        columns.map(move |column| {
            let mut one =
                TaskRows { values, len, stride, rows: rows.clone(), lifetime: PhantomData };
            let column = one.column(column);
            // SAFETY: columns do not overlap, since rows end before the next column, and each is
            // handed out once. The borrow of `self` lasts as long as what is handed out.
            unsafe { core::slice::from_raw_parts_mut(column.as_mut_ptr(), column.len()) }
        })
    }
}

/// An output that tasks on other cores may use.
struct Shared {
    values: *mut f32,
    len: usize,
    stride: usize,
}
// SAFETY: only `TaskRows` dereferences the pointer, on rows that are its own.
unsafe impl Sync for Shared {}

impl Shared {
    fn of(output: &mut ColumnsMut<'_>) -> Self {
        let (len, stride) = (output.values.len(), output.stride);
        Self { values: output.values.as_mut_ptr(), len, stride }
    }

    /// The rows of one task. `Parallel` runs each index at most once, so the pieces are disjoint.
    fn piece(&self, rows: &Range<usize>, index: usize, per_task: usize) -> TaskRows<'_> {
        let start = rows.start.saturating_add(index.saturating_mul(per_task)).min(rows.end);
        let rows = start..start.saturating_add(per_task).min(rows.end);
        let Self { values, len, stride } = *self;
        TaskRows { values, len, stride, rows, lifetime: PhantomData }
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
    let shared = Shared::of(output);
    parallel.run(rows.len().div_ceil(per_task), &|index| {
        task(shared.piece(&rows, index, per_task));
    });
}

/// As [`share_rows`] of all rows of two outputs, which tasks have pieces of together: as many rows of each
/// as `rows_per_task` says.
pub(crate) fn share_rows_of_both(
    parallel: &dyn Parallel,
    (a, b): (&mut ColumnsMut<'_>, &mut ColumnsMut<'_>),
    rows_per_task: [usize; 2],
    task: &(dyn Fn([TaskRows<'_>; 2]) + Sync),
) {
    let [rows_a, rows_b] = [0..a.width, 0..b.width];
    let [per_task_a, per_task_b] = rows_per_task.map(|rows| rows.max(1));
    let (a, b) = (Shared::of(a), Shared::of(b));
    parallel.run(rows_a.len().div_ceil(per_task_a), &|index| {
        task([a.piece(&rows_a, index, per_task_a), b.piece(&rows_b, index, per_task_b)]);
    });
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::{thread, vec};

    /// Three threads that take the next index as they come to it.
    struct Threads;

    // SAFETY: the counter hands out each index once, and the scope waits for the threads.
    unsafe impl Parallel for Threads {
        fn cores(&self) -> usize {
            3
        }

        fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
            let next = AtomicUsize::new(0);
            let draw = || {
                while let Some(index) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < tasks)
                {
                    task(index);
                }
            };
            thread::scope(|scope| (0..3).for_each(|_| _ = scope.spawn(draw)));
        }
    }

    #[test]
    fn each_task_fills_its_own_rows_of_every_column() {
        // A stride of 12 in 3 columns: 10 rows that are written, and 2 that are not.
        let mut values = vec![0.0; 36];
        for per_task in [1, 3, 4, 10, 11] {
            values.fill(0.0);
            let mut output = ColumnsMut { values: &mut values, stride: 12, width: 10, count: 3 };
            share_rows(&Threads, &mut output, 1..10, per_task, &|mut rows| {
                for column in 0..3 {
                    let numbers = rows.range();
                    for (value, row) in rows.column(column).iter_mut().zip(numbers) {
                        *value += (100 * column + row) as f32;
                    }
                }
                assert!(rows.column(3).is_empty(), "past the last column");
            });
            for (place, value) in values.iter().enumerate() {
                let (column, row) = (place / 12, place % 12);
                let expected = if (1..10).contains(&row) { 100 * column + row } else { 0 };
                assert_eq!(*value, expected as f32, "row {row} of column {column}");
            }
        }
    }

    #[test]
    fn rows_beyond_a_column_are_refused() {
        let mut values = vec![0.0; 24];
        let mut output = ColumnsMut { values: &mut values, stride: 12, width: 12, count: 2 };
        share_rows(&Threads, &mut output, 8..16, 4, &|mut rows| {
            assert_eq!(rows.column(0).len(), if rows.range().start == 8 { 4 } else { 0 });
        });
    }
}

//! Columns of values, as operations read and write them.

/// The columns of a value: column `c` begins at `c * stride`.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a, T = f32> {
    pub(crate) values: &'a [T],
    pub(crate) stride: usize,
    pub(crate) width: usize,
}

impl<'a, T> Columns<'a, T> {
    /// One column; empty past the last.
    pub(crate) fn column(&self, column: usize) -> &'a [T] {
        let start = column.saturating_mul(self.stride);
        self.values.get(start..start.saturating_add(self.width)).unwrap_or_default()
    }
}

/// The columns of a value that is written.
pub(crate) struct ColumnsMut<'a, T = f32> {
    pub(crate) values: &'a mut [T],
    pub(crate) stride: usize,
    pub(crate) width: usize,
    /// How many columns the pass has of it.
    pub(crate) count: usize,
}

impl<'a, T> ColumnsMut<'a, T> {
    /// One column, for as long as the value lives; empty past the last.
    pub(crate) fn into_column(self, column: usize) -> &'a mut [T] {
        let start = column.saturating_mul(self.stride);
        self.values.get_mut(start..start.saturating_add(self.width)).unwrap_or_default()
    }

    /// One column; empty past the last.
    pub(crate) fn column(&mut self, column: usize) -> &mut [T] {
        let start = column.saturating_mul(self.stride);
        self.values.get_mut(start..start.saturating_add(self.width)).unwrap_or_default()
    }
}

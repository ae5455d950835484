//! The operations, one file a family. They see slices of activations and streams of weights, and
//! know nothing of models.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod embed;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod rope;

/// The columns of a value: column `c` begins at `c * stride`.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) width: usize,
}

impl<'a> Columns<'a> {
    /// One column; empty past the last.
    pub(crate) fn column(&self, column: usize) -> &'a [f32] {
        let start = column.saturating_mul(self.stride);
        self.values.get(start..start.saturating_add(self.width)).unwrap_or_default()
    }
}

/// The columns of a value that is written.
pub(crate) struct ColumnsMut<'a> {
    pub(crate) values: &'a mut [f32],
    pub(crate) stride: usize,
    pub(crate) width: usize,
    /// Has a column only for each token whose logits are wanted.
    pub(crate) selected: bool,
}

impl ColumnsMut<'_> {
    /// One column; empty past the last.
    pub(crate) fn column(&mut self, column: usize) -> &mut [f32] {
        let start = column.saturating_mul(self.stride);
        self.values.get_mut(start..start.saturating_add(self.width)).unwrap_or_default()
    }
}

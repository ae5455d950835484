//! Embeddings: rows of a matrix in the kernels' layout.

use super::{Form, Numbers, Operation, Reads, operands};
use crate::columns::ColumnsMut;
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::page::Stream;
use crate::program::{Check, Tensor};
use crate::quant::{GROUP, PANEL, dequantize_row};
use core::ops::Range;
use serde::{Deserialize, Serialize};

/// What chooses the row of an embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Index {
    /// The token.
    #[default]
    Token,
    /// The token's position.
    Position,
    /// It is always row 0.
    First,
    /// The segment of its text that the token is in.
    #[cfg(feature = "float")]
    Segment,
}

/// `output` = a row of `weight` for each token, added to what `output` holds if `accumulate`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Embed<F: Form = Numbers> {
    /// Matrix [rows, output width].
    pub weight: F::Name,
    /// The embedded tokens.
    pub output: F::Value,
    /// What chooses the row.
    #[serde(default)]
    pub index: Index,
    /// What is added to a position before it chooses a row.
    #[serde(default)]
    pub offset: u32,
    /// Adds to the output.
    #[serde(default)]
    pub accumulate: bool,
}

operands!(Embed { weight weight, update output; index, offset, accumulate });

impl Operation for Embed {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.tokens(&[self.output])?;
        let vocabulary = check.program().header().vocab_size;
        let rows = if self.index == Index::Token { vocabulary } else { 1 };
        check.that(vocabulary > 0)?;
        check.tensors(self.weight, |t| {
            t.is_matrix() && t.rows >= rows && t.columns == self.output.width
        })
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let matrix = player.tensor(self.weight, layer)?;
        let count = player.inputs.len();
        for column in 0..count {
            let (panel, _) = self.panel(player, &matrix, column)?;
            player.pages.want(&panel);
        }
        for column in 0..count {
            let (panel, lane) = self.panel(player, &matrix, column)?;
            let Player { memory, program, inputs, pages, carry, .. } = player;
            let ([], output) = memory.split(program, inputs.counts(), [], self.output)?;
            let bytes = panel.end - panel.start;
            let stream = Stream::new(pages, carry, panel.start, bytes, matrix.unit_bytes());
            self.read_row(&matrix, stream, lane, output, column)?;
        }
        Ok(())
    }

    fn reads(&self) -> Reads {
        Reads::Rows
    }

    fn rows_per_token(&self, tensor: &Tensor) -> u32 {
        tensor.rows.min(PANEL as u32)
    }
}

impl Embed {
    /// Where the panel lies that a column's row is in, and which of its rows that is.
    fn panel(
        &self,
        player: &Player<'_>,
        matrix: &Tensor,
        column: usize,
    ) -> Result<(Range<u64>, usize), RunError> {
        let input = player.inputs.iter().nth(column).ok_or(RunError::Program)?;
        let row = match self.index {
            Index::Token => input.token,
            Index::Position => input.position.saturating_add(self.offset),
            Index::First => 0,
            #[cfg(feature = "float")]
            Index::Segment if u32::from(input.segment) >= matrix.rows => {
                return Err(RunError::Segment(input.segment));
            }
            #[cfg(feature = "float")]
            Index::Segment => input.segment.into(),
        };
        if row >= matrix.rows {
            return Err(RunError::Position(input.position));
        }
        let bytes = matrix.format.tensor_bytes(PANEL as u32, matrix.columns);
        let start = matrix.address + u64::from(row / PANEL as u32) * bytes;
        Ok((start..start + bytes, row as usize % PANEL))
    }

    /// Reads row `lane` of a panel into a column.
    fn read_row(
        &self,
        matrix: &Tensor,
        mut panel: Stream<'_, '_>,
        lane: usize,
        mut output: ColumnsMut<'_>,
        column: usize,
    ) -> Result<(), RunError> {
        let unit = matrix.unit_bytes();
        let mut groups = output.column(column).chunks_mut(GROUP);
        while let Some(blocks) = panel.next_units()? {
            for (block, out) in blocks.chunks_exact(unit.max(1)).zip(&mut groups) {
                let mut group = [0.0; GROUP];
                dequantize_row(matrix.format, block, lane, &mut group);
                for (out, x) in out.iter_mut().zip(group) {
                    *out = if self.accumulate { *out + x } else { x };
                }
            }
        }
        Ok(())
    }
}

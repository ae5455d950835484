//! A matrix times activations, with the matrix streamed block by block.

use super::{Form, Numbers, Operation, operands};
use crate::columns::{Columns, ColumnsMut};
use crate::engine::player::{Combine, Player, stream};
use crate::error::{Fault, RunError};
use crate::page::Stream;
use crate::program::{Check, Program, Tensor, Value};
use crate::quant::{FloatGroup, Format, GROUP, PANEL};
use crate::rows::{TaskRows, share_rows};
use crate::simd::{FEW_COLUMNS, MAX_COLUMNS, MAX_PANELS, PanelDot, Tile};
use core::ops::Range;
use omex_hal::{PageError, Parallel};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `output` = `weight` × `input` + `bias`, added to what `output` holds if `accumulate`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Linear<F: Form = Numbers> {
    /// Vector [output width].
    #[serde(default)]
    pub bias: Option<F::Name>,
    /// Matrix [output width, input width].
    pub weight: F::Name,
    /// What is multiplied.
    pub input: F::Value,
    /// The result, apart from the input.
    pub output: F::Value,
    /// Adds to the output.
    #[serde(default)]
    pub accumulate: bool,
}

operands!(Linear { maybe_weight bias, weight weight, read input, update output; accumulate });

impl Operation for Linear {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.floats(&[self.input, self.output])?;
        check.matrix(self.weight, self.output.width, self.input.width)?;
        self.bias.map_or(Ok(()), |bias| check.vector(bias, self.output.width))
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let mut accumulate = self.accumulate;
        if let Some(bias) = self.bias {
            let add = if accumulate { Combine::Add } else { Combine::Set };
            player.with_vector(bias, layer, self.output, add)?;
            accumulate = true;
        }
        let matrix = player.tensor(self.weight, layer)?;
        if let Some(observer) = &mut player.observer {
            let input = player.memory.read(&player.program, self.input)?;
            let per = player.program.slot(self.output.slot).ok_or(RunError::Program)?.per;
            let columns = player.inputs.counts().of(per);
            (0..columns).for_each(|c| observer(self.weight.at(layer), input.column(c)));
        }
        multiply(player, &matrix, [self.input, self.output], None, accumulate)
    }

    fn multiply_adds(&self, program: &Program<'_>, layer: u32) -> (u64, u64) {
        let matrix = program.tensor(self.weight.at(layer));
        (matrix.map_or(0, |m| u64::from(m.rows) * u64::from(m.columns)), 0)
    }
}

/// Multiplies a matrix with the first `columns` columns of an input, or with all that the pass has.
pub(super) fn multiply(
    player: &mut Player<'_>,
    matrix: &Tensor,
    [input, output]: [Value; 2],
    columns: Option<usize>,
    accumulate: bool,
) -> Result<(), RunError> {
    let Player { memory, program, inputs, pages, carry, staging, kernels, parallel, .. } = player;
    let ([input], output) = memory.split(program, inputs.counts(), [input], output)?;
    let columns = columns.unwrap_or(output.count);
    let unit = matrix.unit_bytes();
    let stream = stream(pages, carry, matrix);
    let groups = (matrix.columns as usize).div_ceil(GROUP);
    let parallel = *parallel;
    let tile = if matrix.format.is_integer() { kernels.tile(columns) } else { Tile::FEW };
    let product = Product { stream, parallel, output, columns, tile, groups, unit, accumulate };
    match matrix.format {
        Format::Int4 => product
            .run(kernels.int4, stage(staging, input, groups, columns, tile, kernels.quantize)),
        Format::Int8 => product
            .run(kernels.int8, stage(staging, input, groups, columns, tile, kernels.quantize)),
        Format::F16 if Format::F16.is_played() => {
            product.run(kernels.float16, stage(staging, input, groups, columns, tile, |x| *x))
        }
        Format::F32 if Format::F32.is_played() => {
            product.run(kernels.float32, stage(staging, input, groups, columns, tile, |x| *x))
        }
        _ => return Err(RunError::Program),
    }?;
    Ok(())
}

/// Arranges activations in tiles of up to so many columns: in each tile, all columns of a group lie
/// side by side.
fn stage<'s, X>(
    staging: &'s mut [u8],
    input: Columns<'_>,
    groups: usize,
    columns: usize,
    tile: Tile,
    convert: impl Fn(&FloatGroup) -> X,
) -> &'s [X]
where
    X: FromBytes + IntoBytes + KnownLayout + Immutable,
{
    let tile_columns = tile.columns();
    let bytes = groups.saturating_mul(columns).saturating_mul(size_of::<X>());
    let staged = staging.get_mut(..bytes).and_then(|bytes| <[X]>::mut_from_bytes(bytes).ok());
    let Some(staged) = staged else { return &[] };
    for (tile, staged) in staged.chunks_mut((groups * tile_columns).max(1)).enumerate() {
        let width = staged.len().checked_div(groups).unwrap_or(0).max(1);
        for c in 0..width {
            let (whole, rest) = input.column(tile * tile_columns + c).as_chunks::<GROUP>();
            let mut last = [0.0; GROUP];
            for (padded, x) in last.iter_mut().zip(rest) {
                *padded = *x;
            }
            let groups = whole.iter().chain(core::iter::once(&last));
            for (staged, group) in staged.iter_mut().skip(c).step_by(width).zip(groups) {
                *staged = convert(group);
            }
        }
    }
    staged
}

/// A multiplication under way.
struct Product<'m, 'a> {
    stream: Stream<'m, 'a>,
    parallel: &'m dyn Parallel,
    output: ColumnsMut<'m>,
    columns: usize,
    tile: Tile,
    /// Blocks a panel.
    groups: usize,
    unit: usize,
    accumulate: bool,
}

impl Product<'_, '_> {
    fn run<X: Sync>(mut self, dot: PanelDot<X>, x: &[X]) -> Result<(), PageError> {
        let groups = self.groups.max(1);
        let mut first = 0;
        while let Some(bytes) = self.stream.next_units()? {
            let count = bytes.len() / self.unit.max(1);
            let piece = Piece {
                blocks: bytes,
                first,
                end: first + count,
                groups,
                unit: self.unit,
                x,
                columns: self.columns,
                tile: self.tile,
                fresh: !self.accumulate,
            };
            let panels = first / groups..piece.end.div_ceil(groups);
            let rows = panels.start * PANEL..(panels.end * PANEL).min(self.output.width);
            let tasks = tasks(self.parallel, bytes.len() * self.columns);
            let per_task = panels.len().div_ceil(tasks) * PANEL;
            share_rows(self.parallel, &mut self.output, rows, per_task, &|rows| {
                piece.run(dot, rows)
            });
            first = piece.end;
        }
        Ok(())
    }
}

/// Below this many bytes times columns, work is not worth waking another core.
const TASK_BYTES: usize = 32 << 10;

/// Columns whose outputs stay at hand while panel after panel is added to them; tiles are whole in it.
const CACHED_COLUMNS: usize = if MAX_COLUMNS > FEW_COLUMNS { MAX_COLUMNS } else { 4 * FEW_COLUMNS };
/// Bytes of panels that are read again for other columns before the next are.
const CACHED_BYTES: usize = 256 << 10;

/// How many tasks to cut work into: several a core, so that none waits long for the others.
fn tasks(parallel: &dyn Parallel, work: usize) -> usize {
    match parallel.cores() {
        0 | 1 => 1,
        cores => (work / TASK_BYTES).min(cores.saturating_mul(4)).max(1),
    }
}

/// Consecutive blocks of the matrix, possibly beginning and ending inside a panel.
struct Piece<'p, X> {
    blocks: &'p [u8],
    /// Number of the first block in the matrix, and the one behind the last.
    first: usize,
    end: usize,
    groups: usize,
    unit: usize,
    x: &'p [X],
    columns: usize,
    tile: Tile,
    /// Sums start from zero.
    fresh: bool,
}

impl<X> Piece<'_, X> {
    /// Adds this piece's products to the rows of one task.
    fn run(&self, dot: PanelDot<X>, mut rows: TaskRows<'_>) {
        let range = rows.range();
        let panels = range.start / PANEL..range.end.div_ceil(PANEL);
        if !cfg!(feature = "float") {
            return self.run_over(dot, panels, 0..self.columns, &mut rows);
        }
        let at_once = (CACHED_BYTES / (self.groups * self.unit).max(1)).max(1);
        let at_once = at_once.next_multiple_of(MAX_PANELS);
        for first in panels.clone().step_by(at_once) {
            let panels = first..(first + at_once).min(panels.end);
            for column in (0..self.columns).step_by(CACHED_COLUMNS) {
                let columns = column..(column + CACHED_COLUMNS).min(self.columns);
                self.run_over(dot, panels.clone(), columns, &mut rows);
            }
        }
    }

    /// Adds some panels' products with some columns.
    fn run_over(
        &self,
        dot: PanelDot<X>,
        panels: Range<usize>,
        columns: Range<usize>,
        rows: &mut TaskRows<'_>,
    ) {
        let (mut panel, end) = (panels.start, panels.end);
        while panel < end {
            let whole = panel * self.groups >= self.first
                && (panel + MAX_PANELS).min(end) * self.groups <= self.end;
            let panels = if whole { MAX_PANELS.min(end - panel) } else { 1 };
            self.panels(dot, panel..panel + panels, columns.clone(), rows);
            panel += panels;
        }
    }

    /// Adds the products of some panels, several only if all of their blocks are here.
    fn panels(
        &self,
        dot: PanelDot<X>,
        of: Range<usize>,
        columns: Range<usize>,
        rows: &mut TaskRows<'_>,
    ) {
        let (panel, panels) = (of.start, of.len());
        let start = (panel * self.groups).max(self.first);
        let end = (of.end * self.groups).min(self.end);
        let bytes = (start - self.first) * self.unit..(end - self.first) * self.unit;
        let blocks = self.blocks.get(bytes).unwrap_or_default();
        let first = start - panel * self.groups;
        let groups = first..first + (end - start) / panels.max(1);
        let row = panel * PANEL - rows.range().start;
        let tile_columns = self.tile.columns();
        for tile in columns.clone().step_by(tile_columns) {
            let width = tile_columns.min(columns.end - tile);
            let base = tile * self.groups;
            let x = self.x.get(base + groups.start * width..base + groups.end * width);
            let mut few = [[0.0; PANEL]; FEW_COLUMNS * MAX_PANELS];
            // Not even zeroed where they are not needed.
            let mut many;
            let sums = if width <= FEW_COLUMNS || MAX_COLUMNS == FEW_COLUMNS {
                few.as_mut_slice()
            } else {
                many = [[0.0; PANEL]; MAX_COLUMNS * MAX_PANELS];
                many.as_mut_slice()
            };
            let Some(sums) = sums.get_mut(..width * panels) else { continue };
            if first > 0 || !self.fresh {
                for_each_sum(sums, width, rows, tile, row, |sum, values| {
                    // A vector that is loaded right behind single floats would wait for them. Boards
                    // have no vectors, and little flash.
                    match values.first_chunk().filter(|_| cfg!(feature = "float")) {
                        Some(values) => *sum = *values,
                        None => sum.iter_mut().zip(values).for_each(|(sum, value)| *sum = *value),
                    }
                });
            }
            dot(blocks, x.unwrap_or_default(), width, sums);
            for_each_sum(sums, width, rows, tile, row, |sum, values| {
                match values.first_chunk_mut() {
                    Some(values) => *values = *sum,
                    None => values.iter_mut().zip(sum).for_each(|(value, sum)| *value = *sum),
                }
            });
        }
    }
}

/// Pairs the sums of a tile's columns, panel by panel, with their rows of the output; the last
/// panel may have fewer rows.
fn for_each_sum(
    sums: &mut [[f32; PANEL]],
    columns: usize,
    rows: &mut TaskRows<'_>,
    tile: usize,
    row: usize,
    pair: impl Fn(&mut [f32; PANEL], &mut [f32]),
) {
    for (panel, sums) in sums.chunks_mut(columns.max(1)).enumerate() {
        for (c, sum) in sums.iter_mut().enumerate() {
            let column = rows.column(tile + c).get_mut(row + panel * PANEL..).unwrap_or_default();
            pair(sum, column);
        }
    }
}

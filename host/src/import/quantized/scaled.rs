//! Floats of 8 bits with scales: one for a matrix, for each row, or for each block of it.

use super::parts::{has, malformed, part, shape};
use crate::Result;
use crate::import::encoding::Encoding;
use crate::import::stored::StoredModel;
use crate::import::{Container, TensorInfo};

/// What the scales of a matrix are called: those of fine-grained ones and of others are both factors.
const SCALES: [&str; 2] = ["weight_scale_inv", "weight_scale"];
/// Scales of what the matrix is multiplied with, which are not needed where that stays in floats.
const UNUSED: [&str; 2] = ["input_scale", "activation_scale"];

/// A matrix.
#[derive(Debug)]
pub(super) struct Scaled {
    info: TensorInfo,
    scale: String,
    layout: Layout,
}

/// What a scale is for.
#[derive(Debug)]
enum Layout {
    /// All rows.
    Whole(f32),
    /// Each row; they lie in a row.
    Row(Vec<f32>),
    /// Each row; they lie in a column.
    Column,
    /// Each block with these sides.
    Blocks([u32; 2]),
}

fn is_float8(info: TensorInfo) -> bool {
    matches!(info.encoding, Encoding::F8E4m3 | Encoding::F8E5m2)
}

/// The quantized matrices.
pub(super) fn names(model: &StoredModel) -> Vec<String> {
    let names = model.names().into_iter();
    names.filter(|name| model.tensor(name).is_some_and(is_float8)).collect()
}

impl Scaled {
    /// A matrix with its scales, and the names of all its parts.
    pub(super) fn new(
        model: &StoredModel,
        name: &str,
        block: Option<[u32; 2]>,
    ) -> Result<(Self, Vec<String>)> {
        let info = part(model, name, "floats of 8 bits", is_float8)?;
        let stem = name.strip_suffix("weight").unwrap_or(name);
        let named = SCALES.map(|scale| format!("{stem}{scale}"));
        let scale = named.iter().find(|name| has(model, name)).unwrap_or(&named[1]).clone();
        let scales =
            part(model, &scale, "the scales (floats) of a matrix of 8-bit floats", |info| {
                !matches!(info.encoding, Encoding::Other(..)) && !is_float8(info)
            })?;
        let blocks = block.filter(|[rows, columns]| {
            let sides = (info.rows.div_ceil(*rows), info.columns.div_ceil(*columns));
            (scales.rows, scales.columns) == sides
        });
        let layout = match ((scales.rows, scales.columns), blocks) {
            (_, Some(block)) => Layout::Blocks(block),
            ((1, 1), _) => Layout::Whole(row_of(model, &scale, 0)?[0]),
            ((rows, 1), _) if rows == info.rows => Layout::Column,
            ((1, rows), _) if rows == info.rows => Layout::Row(row_of(model, &scale, 0)?),
            _ => {
                let blocks = match block {
                    Some([rows, columns]) => {
                        format!("each block of {rows} rows and {columns} columns")
                    }
                    None => "each row".to_owned(),
                };
                let expected = format!("one scale, or one for {blocks} of {}", shape(info));
                return Err(malformed(model, &scale, shape(scales), expected));
            }
        };
        let unused = UNUSED.map(|unused| format!("{stem}{unused}"));
        let unused = unused.into_iter().filter(|name| has(model, name));
        let parts = [name.to_owned(), scale.clone()].into_iter().chain(unused).collect();
        Ok((Self { info, scale, layout }, parts))
    }

    pub(super) fn shape(&self) -> [u32; 2] {
        [self.info.rows, self.info.columns]
    }

    pub(super) fn read_row(
        &self,
        model: &StoredModel,
        name: &str,
        row: u32,
        out: &mut [f32],
    ) -> Result<()> {
        model.read_row(name, row, out)?;
        let (scales, width) = match &self.layout {
            Layout::Whole(scale) => (vec![*scale], out.len()),
            Layout::Row(scales) => (vec![scales[row as usize]], out.len()),
            Layout::Column => (row_of(model, &self.scale, row)?, out.len()),
            Layout::Blocks([rows, columns]) => {
                (row_of(model, &self.scale, row / rows)?, *columns as usize)
            }
        };
        for (numbers, scale) in out.chunks_mut(width.max(1)).zip(scales) {
            numbers.iter_mut().for_each(|x| *x *= scale);
        }
        Ok(())
    }
}

/// A row of scales.
fn row_of(model: &StoredModel, name: &str, row: u32) -> Result<Vec<f32>> {
    let columns = model.tensor(name).map_or(0, |info| info.columns);
    let mut scales = vec![0.0; columns as usize];
    model.read_row(name, row, &mut scales).map(|()| scales)
}

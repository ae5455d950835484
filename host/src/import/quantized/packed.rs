//! GPTQ and AWQ: integers packed into words of 32 bits, with a scale and a zero point for each group
//! of columns.
//!
//! Both store a matrix turned, a column for each of its rows. GPTQ packs numbers of one row into a
//! word (<https://github.com/ModelCloud/GPTQModel>), AWQ those of 8 rows, the even ones first
//! (<https://github.com/casper-hansen/AutoAWQ>).

use super::parts::{has, malformed, part};
use crate::Result;
use crate::import::encoding::Encoding;
use crate::import::stored::{StoredModel, StoredTensor};
use crate::import::{Container, TensorInfo};

/// What words are of, and the numbers of columns' groups.
const WORDS: Encoding = Encoding::Other("I32", 4);
/// The place in a word of each of 8 rows of AWQ's.
const PLACES: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// How integers are packed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Packing {
    pub(super) bits: u32,
    pub(super) order: Order,
    /// Columns that share a scale; none for all.
    pub(super) group: Option<u32>,
}

/// What a word holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Order {
    /// Numbers of one row, and zero points less `zero`.
    Rows { zero: u32 },
    /// Numbers of one column.
    Columns,
}

/// A matrix.
#[derive(Debug)]
pub(super) struct Packed {
    packing: Packing,
    rows: u32,
    columns: u32,
    /// Names of the integers, the zero points and the scales.
    parts: [String; 3],
    /// The group of each column, if these are not in order, and the tensor that says so.
    groups: Option<(Vec<u32>, String)>,
}

/// What the quantized modules are called.
pub(super) fn stems(model: &StoredModel) -> Vec<String> {
    let stem = |name: &String| name.strip_suffix(".qweight").map(str::to_owned);
    model.names().iter().filter_map(stem).collect()
}

impl Packed {
    /// The matrix of a module, whose parts are turned, so that they have the matrix's rows; and the
    /// names of its parts.
    pub(super) fn new(
        model: &mut StoredModel,
        stem: &str,
        packing: Packing,
    ) -> Result<(Self, Vec<String>)> {
        let [qweight, qzeros, scales, g_idx] =
            ["qweight", "qzeros", "scales", "g_idx"].map(|part| format!("{stem}.{part}"));
        let many = 32 / packing.bits;
        let words = |info: TensorInfo| info.encoding == WORDS;
        let stored = part(model, &qweight, "words (I32)", words)?;
        let sides = match packing.order {
            Order::Rows { .. } => stored.rows.checked_mul(many).zip(Some(stored.columns)),
            Order::Columns => Some(stored.rows).zip(stored.columns.checked_mul(many)),
        };
        let (columns, rows) = sides
            .ok_or_else(|| malformed(model, &qweight, "a shape beyond all bounds", "a matrix"))?;
        let groups = columns.div_ceil(packing.group.unwrap_or(columns));
        let expected = format!("floats of shape [{groups}, {rows}]");
        let floats = |info: TensorInfo| !matches!(info.encoding, Encoding::Other(..));
        part(model, &scales, &expected, |info| {
            floats(info) && (info.rows, info.columns) == (groups, rows)
        })?;
        let expected = format!("words (I32) of shape [{groups}, {}]", rows.div_ceil(many));
        part(model, &qzeros, &expected, |info| {
            words(info) && (info.rows, info.columns) == (groups, rows.div_ceil(many))
        })?;
        let listed = has(model, &g_idx);
        let groups = listed.then(|| read_groups(model, g_idx.clone(), columns)).transpose()?;
        let parts = [qweight, qzeros, scales];
        parts.iter().try_for_each(|name| turn(model, name))?;
        let mut named = parts.to_vec();
        named.extend(listed.then_some(g_idx));
        Ok((Self { packing, rows, columns, parts, groups }, named))
    }

    pub(super) fn shape(&self) -> [u32; 2] {
        [self.rows, self.columns]
    }

    /// The tensor that holds the integers.
    pub(super) fn stored_as(&self) -> &str {
        &self.parts[0]
    }

    pub(super) fn read_row(&self, model: &StoredModel, row: u32, out: &mut [f32]) -> Result<()> {
        let [qweight, qzeros, scales] = &self.parts;
        let bits = self.packing.bits;
        let (many, mask) = (32 / bits, u32::MAX >> (32 - bits));
        let (place, zero) = match self.packing.order {
            Order::Rows { zero } => (row % many * bits, zero),
            Order::Columns => (PLACES[row as usize % PLACES.len()] * bits, 0),
        };
        let zeros = words(model, qzeros, row / many)?;
        let zero = |word: &u32| ((word >> place & mask) + zero) & mask;
        let zeros: Vec<u32> = zeros.iter().map(zero).collect();
        let mut steps = vec![0.0; zeros.len()];
        model.read_row(scales, row, &mut steps)?;
        let integers = match self.packing.order {
            Order::Rows { .. } => words(model, qweight, row)?,
            Order::Columns => words(model, qweight, row / many)?,
        };
        let in_order = self.packing.group.unwrap_or(u32::MAX);
        for (column, x) in (0..).zip(out) {
            let listed = self.groups.as_ref();
            let group = listed.map_or(column / in_order, |(groups, _)| groups[column as usize]);
            let Some((step, zero)) = steps.get(group as usize).zip(zeros.get(group as usize))
            else {
                let name = listed.map_or("", |(_, name)| name);
                let expected = format!("a group below {}", steps.len());
                return Err(malformed(model, name, format!("group {group}"), expected));
            };
            let integer = match self.packing.order {
                Order::Rows { .. } => integers[(column / many) as usize] >> (column % many * bits),
                Order::Columns => integers[column as usize] >> place,
            };
            *x = step * ((integer & mask) as f32 - *zero as f32);
        }
        Ok(())
    }
}

/// The group of each of so many columns.
fn read_groups(model: &StoredModel, name: String, columns: u32) -> Result<(Vec<u32>, String)> {
    let expected = format!("the groups (I32) of {columns} columns");
    part(model, &name, &expected, |info| {
        info.encoding == WORDS && (info.rows, info.columns) == (1, columns)
    })?;
    Ok((words(model, &name, 0)?, name))
}

/// Gives a part the matrix's rows.
fn turn(model: &mut StoredModel, name: &str) -> Result<()> {
    match model.tensors.get(name).and_then(StoredTensor::turned) {
        Some(turned) => {
            model.tensors.insert(name.to_owned(), turned);
            Ok(())
        }
        None => Err(malformed(model, name, "a view of other numbers", "numbers row behind row")),
    }
}

/// A row of words.
fn words(model: &StoredModel, name: &str, row: u32) -> Result<Vec<u32>> {
    let mut bytes = vec![];
    model.read_row_bytes(name, row, &mut bytes)?;
    Ok(bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

//! TensorFlow Lite files: a FlatBuffer of tensors and operators (schema version 3).

use crate::{Error, Result, input};
use std::cell::Cell;
use std::path::Path;

/// What stands at bytes 4 to 8 of a file.
pub(super) const IDENTIFIER: [u8; 4] = *b"TFL3";
/// The longest file that is read, and the most tensors and operators in it.
const MAX_BYTES: u64 = 64 << 20;
const MAX_ITEMS: usize = 1 << 16;

/// A graph, and what is kept of its file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// Its tensors.
    pub tensors: Vec<Tensor>,
    /// Its operators, in order.
    pub operators: Vec<Operator>,
    /// The tensors that go in, and come out.
    pub inputs: Vec<usize>,
    /// The tensors that come out.
    pub outputs: Vec<usize>,
    /// The graphs behind the first, in order, which operators call by their numbers.
    pub others: Vec<Model>,
}

/// A tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The number of its type, see [`kind`].
    pub kind: u8,
    /// What a step is worth, for all or for each channel; empty if it is not quantized.
    pub scales: Vec<f32>,
    /// The integers that stand for 0.
    pub zero_points: Vec<i64>,
    /// The axis along which scales differ.
    pub axis: usize,
    /// The numbers' bytes; empty if they are computed.
    pub data: Vec<u8>,
}

/// Numbers of types.
pub mod kind {
    /// 32-bit floats.
    pub const F32: u8 = 0;
    /// 16-bit floats.
    pub const F16: u8 = 1;
    /// 32-bit integers.
    pub const I32: u8 = 2;
    /// Bytes.
    pub const U8: u8 = 3;
    /// 64-bit integers.
    pub const I64: u8 = 4;
    /// Truth values.
    pub const BOOL: u8 = 6;
    /// 16-bit integers.
    pub const I16: u8 = 7;
    /// Signed bytes.
    pub const I8: u8 = 9;
}

/// An operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Operator {
    /// Its builtin code.
    pub code: i32,
    /// What it is called, if it is a custom one.
    pub custom: String,
    /// The tensors that it reads; `None` for an optional one that is absent.
    pub inputs: Vec<Option<usize>>,
    /// The tensors that it writes.
    pub outputs: Vec<usize>,
    /// The fields of its options, in the schema's order: integers, and floats by their bits.
    pub options: Vec<i32>,
    /// The container and the name of the variable that it makes a handle of.
    pub variable: String,
}

/// Widths in bytes of the fields of the options that are known: by builtin code.
fn option_widths(code: i32) -> &'static [usize] {
    match code {
        0 | 18 | 41 | 42 | 40 | 74 | 82 | 89 => &[1],
        1 | 17 => &[1, 4, 4, 4, 4, 1],
        2 => &[4, 1],
        3 => &[1, 4, 4, 1, 4, 4],
        4 => &[1, 4, 4, 4, 1, 4, 4],
        5 | 25 | 26 | 49 | 98 | 102 => &[4],
        9 => &[1, 1, 1],
        23 => &[4, 4, 1, 1],
        44 => &[1, 4, 4, 1, 1],
        45 => &[4, 4, 4, 4, 4, 1],
        67 => &[1, 4, 4, 1],
        83 | 88 => &[4, 4],
        97 => &[1, 1],
        129 => &[4],
        _ => &[],
    }
}

/// Reads a file.
///
/// # Errors
/// A file that can't be read or is malformed.
pub fn read(path: &Path) -> Result<Model> {
    let bytes = input::read(path, MAX_BYTES)?;
    parse(&bytes).ok_or_else(|| {
        let found = "offsets or lengths that lead out of the file";
        Error::malformed(path, "the model", found, "a TensorFlow Lite file", "get the file again")
    })
}

fn parse(bytes: &[u8]) -> Option<Model> {
    if bytes.get(4..8)? != IDENTIFIER {
        return None;
    }
    let left = Cell::new(MAX_TIMES * bytes.len());
    let buffer = Buffer { bytes, left: &left };
    let root = buffer.table(buffer.follow(0)?)?;
    let codes: Vec<_> = root.tables(1)?.iter().map(operator_code).collect::<Option<_>>()?;
    let data: Vec<&[u8]> =
        root.tables(4)?.iter().map(|buffer| buffer.vector(0, 1)).collect::<Option<_>>()?;
    let graphs = root.tables(2)?;
    let mut graphs = graphs.iter().map(|table| graph(table, &data, &codes));
    let first = graphs.next()??;
    Some(Model { others: graphs.collect::<Option<_>>()?, ..first })
}

fn graph<'b>(table: &Table<'b>, data: &[&'b [u8]], codes: &[(i32, String)]) -> Option<Model> {
    let tensors: Vec<Tensor> =
        table.tables(0)?.iter().map(|table| tensor(table, data)).collect::<Option<_>>()?;
    let operators: Vec<Operator> =
        table.tables(3)?.iter().map(|table| operator(table, codes)).collect::<Option<_>>()?;
    let indices = |field| indices(table, field, tensors.len())?.into_iter().collect();
    let (inputs, outputs): (Option<Vec<_>>, Option<Vec<_>>) = (indices(1), indices(2));
    for operator in &operators {
        let inputs = operator.inputs.iter().flatten();
        if inputs.chain(&operator.outputs).any(|index| *index >= tensors.len()) {
            return None;
        }
    }
    Some(Model { inputs: inputs?, outputs: outputs?, tensors, operators, others: vec![] })
}

/// An operator's builtin code, and its name if it is a custom one.
fn operator_code(table: &Table<'_>) -> Option<(i32, String)> {
    // Codes up to 127 have a field of their own, which older files have alone.
    let code = i32::from(table.byte(0)?.cast_signed()).max(table.word(3, 0)?);
    Some((code, String::from_utf8_lossy(table.vector(1, 1)?).into_owned()))
}

fn tensor<'b>(table: &Table<'b>, data: &[&'b [u8]]) -> Option<Tensor> {
    let shape = table.words(0)?.into_iter().map(|n| usize::try_from(n).ok());
    let buffer = usize::try_from(table.word(2, 0)?).ok()?;
    let quantization = table.child(4)?;
    let (scales, zero_points, axis) = match &quantization {
        None => (vec![], vec![], 0),
        Some(q) => (
            q.words(2)?.into_iter().map(|bits| f32::from_bits(bits.cast_unsigned())).collect(),
            q.vector(3, 8)?.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
            usize::try_from(q.word(6, 0)?).ok()?,
        ),
    };
    Some(Tensor {
        name: String::from_utf8_lossy(table.vector(3, 1)?).into_owned(),
        shape: shape.collect::<Option<_>>()?,
        kind: table.byte(1)?,
        scales,
        zero_points,
        axis,
        data: if buffer == 0 { vec![] } else { table.buffer.taken(data.get(buffer)?)?.to_vec() },
    })
}

fn operator(table: &Table<'_>, codes: &[(i32, String)]) -> Option<Operator> {
    let (code, custom) = codes.get(usize::try_from(table.word(0, 0)?).ok()?)?.clone();
    let options = match table.child(4)? {
        None => vec![],
        Some(options) => {
            let fields = option_widths(code).iter().enumerate();
            let field = |(field, width): (usize, &usize)| match width {
                1 => options.byte(field).map(|byte| i32::from(byte.cast_signed())),
                _ => options.word(field, 0),
            };
            fields.map(field).collect::<Option<_>>()?
        }
    };
    let variable = match (code, table.child(4)?) {
        (VAR_HANDLE, Some(options)) => {
            let text = |field| options.vector(field, 1).map(String::from_utf8_lossy);
            format!("{}/{}", text(0)?, text(1)?)
        }
        _ => String::new(),
    };
    Some(Operator {
        code,
        custom,
        inputs: indices(table, 1, MAX_ITEMS)?,
        outputs: indices(table, 2, MAX_ITEMS)?.into_iter().collect::<Option<_>>()?,
        options,
        variable,
    })
}

/// Numbers of tensors below a limit; `None` for -1.
fn indices(table: &Table<'_>, field: usize, limit: usize) -> Option<Vec<Option<usize>>> {
    let words = table.words(field)?.into_iter();
    words
        .map(|n| match n {
            -1 => Some(None),
            n => usize::try_from(n).ok().filter(|n| *n < limit).map(Some),
        })
        .collect()
}

/// The operator that makes a handle of a variable.
const VAR_HANDLE: i32 = 142;
/// How many times the file's length is taken of it: what several offsets lead to is taken several times.
const MAX_TIMES: usize = 4;

/// A FlatBuffer, of which nothing is believed.
#[derive(Clone, Copy)]
struct Buffer<'b> {
    bytes: &'b [u8],
    /// Bytes that may still be taken.
    left: &'b Cell<usize>,
}

/// A table, and where its fields lie.
struct Table<'b> {
    buffer: Buffer<'b>,
    start: usize,
    fields: &'b [u8],
}

impl<'b> Buffer<'b> {
    fn word(self, at: usize) -> Option<i32> {
        Some(i32::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }

    /// The place that an offset at `at` leads to.
    fn follow(self, at: usize) -> Option<usize> {
        at.checked_add(usize::try_from(self.word(at)?.cast_unsigned()).ok()?)
    }

    fn table(self, start: usize) -> Option<Table<'b>> {
        let fields = i64::try_from(start).ok()? - i64::from(self.word(start)?);
        let fields = self.bytes.get(usize::try_from(fields).ok()?..)?;
        let length = usize::from(u16::from_le_bytes(*fields.first_chunk()?));
        Some(Table { buffer: self, start, fields: fields.get(4..length)? })
    }

    /// The bytes of a vector of elements of `width` bytes.
    fn vector(self, at: usize, width: usize) -> Option<&'b [u8]> {
        let count = usize::try_from(self.word(at)?).ok()?;
        self.taken(self.bytes.get(at.checked_add(4)?..)?.get(..count.checked_mul(width)?)?)
    }

    /// Bytes, if there may be so many more.
    fn taken(self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        self.left.set(self.left.get().checked_sub(bytes.len())?);
        Some(bytes)
    }
}

impl<'b> Table<'b> {
    /// Where a field lies; `None` if it has its default.
    fn field(&self, number: usize) -> Option<usize> {
        let offset = u16::from_le_bytes(*self.fields.get(2 * number..)?.first_chunk()?);
        (offset > 0).then_some(self.start + usize::from(offset))
    }

    fn byte(&self, field: usize) -> Option<u8> {
        self.field(field).map_or(Some(0), |at| self.buffer.bytes.get(at).copied())
    }

    fn word(&self, field: usize, default: i32) -> Option<i32> {
        self.field(field).map_or(Some(default), |at| self.buffer.word(at))
    }

    fn vector(&self, field: usize, width: usize) -> Option<&'b [u8]> {
        let Some(at) = self.field(field) else { return Some(&[]) };
        self.buffer.vector(self.buffer.follow(at)?, width)
    }

    fn words(&self, field: usize) -> Option<Vec<i32>> {
        let bytes = self.vector(field, 4)?;
        Some(bytes.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect())
    }

    /// A table of its own; the inner `None` if there is none.
    fn child(&self, field: usize) -> Option<Option<Table<'b>>> {
        let Some(at) = self.field(field) else { return Some(None) };
        self.buffer.table(self.buffer.follow(at)?).map(Some)
    }

    /// The tables of a vector.
    fn tables(&self, field: usize) -> Option<Vec<Table<'b>>> {
        let Some(at) = self.field(field) else { return Some(vec![]) };
        let start = self.buffer.follow(at)?;
        let count = self.buffer.vector(start, 4)?.len() / 4;
        let table = |n| self.buffer.table(self.buffer.follow(start + 4 + 4 * n)?);
        (count <= MAX_ITEMS).then(|| (0..count).map(table).collect::<Option<_>>())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is changed or cut off, a file is read or refused.
    #[test]
    fn damaged_files_never_panic() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/models/tflm");
        let Ok(good) = std::fs::read(folder.join("hello_world_int8.tflite")) else {
            println!("skipped: {} is not there", folder.display());
            return;
        };
        assert!(parse(&good).is_some());
        (0..good.len()).for_each(|length| drop(parse(&good[..length])));
        for at in 0..good.len() {
            for flip in [0x01, 0x10, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                let _ = parse(&bad);
            }
        }
    }
}

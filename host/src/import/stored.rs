//! A model whose tensors lie in files, read a row at a time: memory use does not grow with the
//! model.

use super::columns::{Columns, Tiles};
use super::container::{Container, Fields, SourceFormat, TensorInfo, TokenizerSource};
use super::encoding::Encoding;
use super::source_file::SourceFile;
use crate::{Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::{Path, PathBuf},
};

/// The most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 4;

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub(super) struct StoredTensor {
    /// Index of the file.
    pub(super) file: usize,
    /// Of its first byte in the file.
    pub(super) offset: u64,
    pub(super) info: TensorInfo,
    /// Bytes of a row.
    row_bytes: u64,
    layout: Layout,
}

/// How the numbers of a tensor lie.
#[derive(Clone, Debug, PartialEq)]
enum Layout {
    /// Row behind row.
    Packed,
    /// Each row in one piece: for each dimension before the last, its size and how many bytes apart
    /// its steps are.
    Apart(Vec<(u32, u64)>),
    /// Each column in one piece, and how many bytes apart they are.
    Columns(u64),
}

impl StoredTensor {
    /// Checks that a tensor's shape makes sense, and that it lies within its file.
    pub(super) fn new(
        files: &[SourceFile],
        file: usize,
        name: &str,
        shape: &[u64],
        encoding: Encoding,
        offset: u64,
    ) -> Result<Self> {
        let source = &files[file];
        let shape_error = |expected: String| {
            let remedy = "the file is damaged: get it again";
            source.malformed(format!("shape of {name}"), format!("{shape:?}"), expected, remedy)
        };
        let Some((rows, columns)) = sides(shape) else {
            return Err(shape_error(format!("1 to {MAX_DIMENSIONS} positive dimensions")));
        };
        let Some(row_bytes) = encoding.row_bytes(columns) else {
            let values = encoding.block_values();
            return Err(shape_error(format!("rows of whole blocks of {values} values")));
        };
        let end = row_bytes.checked_mul(rows.into()).and_then(|bytes| bytes.checked_add(offset));
        if end.is_none_or(|end| end > source.length) {
            let found = format!("{rows} rows of {row_bytes} bytes from byte {offset} on");
            let expected = format!("an end within the file's {} bytes", source.length);
            return Err(source.malformed(
                name,
                found,
                expected,
                "the file is cut short: get it again",
            ));
        }
        let info = TensorInfo { rows, columns, encoding };
        Ok(Self { file, offset, info, row_bytes, layout: Layout::Packed })
    }

    /// The same for a view of numbers that lie at `span` of the file: the first of it at `start`, and
    /// those of each dimension so many numbers apart.
    pub(super) fn view(
        files: &[SourceFile],
        (file, span): (usize, Range<u64>),
        name: &str,
        (shape, strides): (&[u64], &[u64]),
        encoding: Encoding,
        start: u64,
    ) -> Result<Self> {
        let source = &files[file];
        let size = u64::from(encoding.block_bytes());
        let last = shape.iter().zip(strides).try_fold(start, |last, (side, stride)| {
            last.checked_add(side.checked_sub(1)?.checked_mul(*stride)?)
        });
        let end = last.and_then(|last| last.checked_add(1)?.checked_mul(size));
        // Numbers that are used more than once would let a small file stand for a tensor of any size.
        let all = shape.iter().try_fold(size, |all, side| all.checked_mul(*side));
        let fits = |bytes: Option<u64>| bytes.is_some_and(|bytes| bytes <= span.end - span.start);
        if !fits(end) || !fits(all) || shape.len() != strides.len() {
            let found = format!("{shape:?} from number {start} on, with strides {strides:?}");
            let storage = span.end - span.start;
            let expected = format!("numbers of its storage of {storage} bytes, none used twice");
            let remedy = "save it contiguous(), or get the file again";
            return Err(source.malformed(format!("place of {name}"), found, expected, remedy));
        }
        let offset = span.start + start * size;
        let Some(layout) = Layout::new(shape, strides, size) else {
            let (found, remedy) = (format!("{strides:?} of {shape:?}"), "save it contiguous()");
            let expected = "those of a tensor of at most 4 dimensions, or of a transposed matrix";
            return Err(source.malformed(format!("strides of {name}"), found, expected, remedy));
        };
        // Where it lies is checked; what is left to check is its shape.
        let tensor = Self::new(files, file, name, shape, encoding, 0)?;
        Ok(Self { offset, layout, ..tensor })
    }

    /// The same numbers with their columns as rows.
    pub(super) fn turned(&self) -> Option<Self> {
        let TensorInfo { rows, columns, encoding } = self.info;
        let row_bytes = encoding.row_bytes(rows)?;
        let layout = match (&self.layout, encoding.block_values()) {
            (Layout::Packed, 1) => Layout::Columns(self.row_bytes),
            _ => return None,
        };
        let info = TensorInfo { rows: columns, columns: rows, encoding };
        Some(Self { info, row_bytes, layout, ..self.clone() })
    }

    /// Offset of the first byte of a packed tensor.
    pub(super) fn packed_at(&self) -> Option<u64> {
        (self.layout == Layout::Packed).then_some(self.offset)
    }

    /// Offset of the first byte behind a packed tensor.
    pub(super) fn end(&self) -> u64 {
        self.offset + u64::from(self.info.rows) * self.row_bytes
    }

    /// Where a row lies that is in one piece.
    fn row_offset(&self, row: u32) -> u64 {
        let Layout::Apart(dimensions) = &self.layout else {
            return self.offset + u64::from(row) * self.row_bytes;
        };
        let mut rest = row;
        let steps = dimensions.iter().rev().map(|(side, apart)| {
            let step = rest % side;
            rest /= side;
            u64::from(step) * apart
        });
        self.offset + steps.sum::<u64>()
    }

    /// Fills `out` with a row as it is stored.
    fn read_row(&self, model: &StoredModel, name: &str, row: u32, out: &mut [u8]) -> Result<()> {
        let file = &model.files[self.file];
        let Layout::Columns(apart) = self.layout else {
            return file.read(name, self.row_offset(row), out);
        };
        let matrix = Columns {
            offset: self.offset,
            apart,
            rows: self.info.rows.into(),
            columns: self.info.columns.into(),
            size: self.info.encoding.block_bytes() as usize,
        };
        model.tiles.read_row((file, self.file), name, (matrix, row.into()), out)
    }
}

impl Layout {
    /// How numbers of `size` bytes lie whose dimensions have these sides and strides; none where
    /// neither rows nor columns are in one piece.
    fn new(shape: &[u64], strides: &[u64], size: u64) -> Option<Self> {
        // The stride of a dimension with one step is never taken, and may be anything.
        let taken = |side: u64, stride: u64| if side == 1 { None } else { Some(stride) };
        let steps: Vec<_> = shape.iter().zip(strides).map(|(d, s)| taken(*d, *s)).collect();
        let mut packed = 1;
        let in_order = shape.iter().zip(&steps).rev().all(|(side, stride)| {
            let fits = stride.is_none_or(|stride| stride == packed);
            packed = packed.saturating_mul(*side);
            fits
        });
        match (steps.as_slice(), shape.len()) {
            _ if in_order => Some(Self::Packed),
            ([.., None | Some(1)], 2..) => {
                let leading = shape.iter().zip(&steps).take(shape.len() - 1);
                let apart = leading.map(|(side, stride)| {
                    Some((u32::try_from(*side).ok()?, stride.unwrap_or(0).checked_mul(size)?))
                });
                Some(Self::Apart(apart.collect::<Option<_>>()?))
            }
            ([None | Some(1), Some(apart)], _) => Some(Self::Columns(apart.checked_mul(size)?)),
            _ => None,
        }
    }
}

/// The rows and columns of a tensor with this shape.
fn sides(shape: &[u64]) -> Option<(u32, u32)> {
    let positive = |d: u64| u32::try_from(d).ok().filter(|&d| d > 0);
    let (&columns, leading) = shape.split_last().filter(|_| shape.len() <= MAX_DIMENSIONS)?;
    let rows = leading.iter().try_fold(1, |rows: u32, &d| rows.checked_mul(positive(d)?));
    rows.zip(positive(columns))
}

/// A model whose tensors lie in files.
#[derive(Debug)]
pub struct StoredModel {
    pub(super) format: SourceFormat,
    /// The file that holds the hyperparameters.
    pub(super) path: PathBuf,
    pub(super) config: Fields,
    pub(super) files: Vec<SourceFile>,
    pub(super) tensors: BTreeMap<String, StoredTensor>,
    pub(super) tokenizer: Option<TokenizerSource>,
    /// Rows that were read of tensors that are stored by columns.
    pub(super) tiles: Tiles,
    pub(super) uses: Uses,
}

/// What a stored graph says of tensors.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Further names, and the tensors' own.
    pub(super) aliases: BTreeMap<String, String>,
    /// Tensors that are stored as the graph uses them, see [`Container::is_as_used`].
    pub(super) as_used: BTreeSet<String>,
    /// Tensors that may be asked for, but need not be.
    pub(super) unlisted: BTreeSet<String>,
}

impl Uses {
    /// A tensor's own name.
    pub(super) fn canonical<'n>(&'n self, name: &'n str) -> &'n str {
        self.aliases.get(name).map_or(name, String::as_str)
    }
}

impl StoredModel {
    /// The tensor, if it has this row.
    fn locate(&self, name: &str, row: u32) -> Result<&StoredTensor> {
        let Some(tensor) = self.tensors.get(name) else {
            let (found, remedy) = ("no such tensor", "ask for one of the model's tensors");
            return Err(Error::malformed(&self.path, name, found, "a tensor", remedy));
        };
        if row < tensor.info.rows {
            return Ok(tensor);
        }
        let expected = format!("less than {}", tensor.info.rows);
        let remedy = "ask for one of the tensor's rows";
        let field = format!("row of {name}");
        Err(self.files[tensor.file].malformed(field, row.to_string(), expected, remedy))
    }
}

impl Container for StoredModel {
    fn format(&self) -> SourceFormat {
        self.format
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn config(&self) -> &Fields {
        &self.config
    }

    fn names(&self) -> Vec<String> {
        let listed = self.tensors.keys().filter(|name| !self.uses.unlisted.contains(*name));
        listed.cloned().collect()
    }

    fn tensor_path(&self, name: &str) -> &Path {
        self.tensors.get(name).map_or(&self.path, |tensor| &self.files[tensor.file].path)
    }

    fn tensor(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).map(|tensor| tensor.info)
    }

    fn read_row(&self, name: &str, row: u32, out: &mut [f32]) -> Result<()> {
        let tensor = self.locate(name, row)?;
        let (file, info) = (&self.files[tensor.file], tensor.info);
        if let Encoding::Other(kind, _) = info.encoding {
            let expected = "F32, F16, BF16, F8 or blocks";
            let remedy = "convert the model to one of these types";
            return Err(file.malformed(format!("dtype of {name}"), kind, expected, remedy));
        }
        if out.len() != info.columns as usize {
            let expected = format!("{} columns", info.columns);
            let found = format!("a buffer for {}", out.len());
            return Err(file.malformed(name, found, expected, "use a buffer as long as a row"));
        }
        let mut bytes = vec![0; tensor.row_bytes as usize];
        tensor.read_row(self, name, row, &mut bytes)?;
        info.encoding.decode(&bytes, out);
        Ok(())
    }

    fn read_row_bytes(&self, name: &str, row: u32, out: &mut Vec<u8>) -> Result<()> {
        let tensor = self.locate(name, row)?;
        out.resize(tensor.row_bytes as usize, 0);
        tensor.read_row(self, name, row, out)
    }

    fn is_same(&self, name: &str, other: &str) -> bool {
        let same = |a: &StoredTensor, b: &StoredTensor| {
            (a.file, a.offset, a.info, &a.layout) == (b.file, b.offset, b.info, &b.layout)
        };
        self.tensors.get(name).zip(self.tensors.get(other)).is_some_and(|(a, b)| same(a, b))
    }

    fn stored_name(&self, name: &str) -> Option<String> {
        let name = self.uses.canonical(name);
        self.tensors.contains_key(name).then(|| name.to_owned())
    }

    fn is_as_used(&self, name: &str) -> bool {
        self.uses.as_used.contains(name)
    }

    fn tokenizer(&self) -> Option<&TokenizerSource> {
        self.tokenizer.as_ref()
    }

    fn files(&self) -> Vec<&Path> {
        let weights = self.files.iter().map(|file| file.path.as_path());
        let config = Some(self.path()).filter(|path| weights.clone().all(|file| file != *path));
        config.into_iter().chain(weights).collect()
    }

    fn kept_bytes(&self) -> u64 {
        let by_columns = |tensor: &&StoredTensor| matches!(tensor.layout, Layout::Columns(_));
        let tensors = self.tensors.values().filter(by_columns);
        tensors.map(|tensor| Tiles::most(tensor.row_bytes)).max().unwrap_or(0)
    }
}

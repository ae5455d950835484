//! A model whose tensors lie in files, read a row at a time: memory use does not grow with the
//! model.

use super::container::{Container, Fields, SourceFormat, TensorInfo, TokenizerSource};
use super::encoding::Encoding;
use crate::{Error, Result, input};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 4;

/// An open file that never reads past the length it had when it was opened.
#[derive(Debug)]
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) length: u64,
}

impl SourceFile {
    /// Opens a regular file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = input::open(path)?;
        let length = file.metadata().map_err(|e| Error::io(path, "read", e))?.len();
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// Fills `out` from `offset` on; `field` says what is there, should it be missing.
    pub(super) fn read(&self, field: &str, offset: u64, out: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(out, offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.malformed(
                field,
                "the end of the file",
                format!("{} bytes from byte {offset} on", out.len()),
                "the file is cut short: get it again",
            ),
            _ => Error::io(&self.path, "read", e),
        })
    }

    /// A field of this file that does not hold what it must.
    pub(super) fn malformed(
        &self,
        field: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Error {
        Error::malformed(&self.path, field, found, expected, remedy)
    }
}

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
        let positive = |d: u64| u32::try_from(d).ok().filter(|&d| d > 0);
        let sides = shape.split_last().filter(|_| shape.len() <= MAX_DIMENSIONS);
        let sides = sides.and_then(|(&columns, leading)| {
            let rows = leading.iter().try_fold(1, |rows: u32, &d| rows.checked_mul(positive(d)?));
            rows.zip(positive(columns))
        });
        let Some((rows, columns)) = sides else {
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
        Ok(Self { file, offset, info, row_bytes })
    }

    /// Offset of the first byte behind the tensor.
    pub(super) fn end(&self) -> u64 {
        self.offset + u64::from(self.info.rows) * self.row_bytes
    }
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
}

impl StoredModel {
    /// The tensor, its file, and the place of a row and its length in bytes.
    fn locate(&self, name: &str, row: u32) -> Result<(&SourceFile, TensorInfo, u64, usize)> {
        let Some(tensor) = self.tensors.get(name) else {
            let (found, remedy) = ("no such tensor", "ask for one of the model's tensors");
            return Err(Error::malformed(&self.path, name, found, "a tensor", remedy));
        };
        let (file, info) = (&self.files[tensor.file], tensor.info);
        let length = tensor.row_bytes;
        if row >= info.rows {
            let expected = format!("less than {}", info.rows);
            let remedy = "ask for one of the tensor's rows";
            return Err(file.malformed(
                format!("row of {name}"),
                row.to_string(),
                expected,
                remedy,
            ));
        }
        let offset = tensor.offset + u64::from(row) * length;
        Ok((file, info, offset, length as usize))
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
        self.tensors.keys().cloned().collect()
    }

    fn tensor_path(&self, name: &str) -> &Path {
        self.tensors.get(name).map_or(&self.path, |tensor| &self.files[tensor.file].path)
    }

    fn tensor(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).map(|tensor| tensor.info)
    }

    fn read_row(&self, name: &str, row: u32, out: &mut [f32]) -> Result<()> {
        let (file, info, offset, length) = self.locate(name, row)?;
        if let Encoding::Other(kind, _) = info.encoding {
            let expected = "F32, F16, BF16 or blocks";
            let remedy = "convert the model to one of these types";
            return Err(file.malformed(format!("dtype of {name}"), kind, expected, remedy));
        }
        if out.len() != info.columns as usize {
            let expected = format!("{} columns", info.columns);
            let found = format!("a buffer for {}", out.len());
            return Err(file.malformed(name, found, expected, "use a buffer as long as a row"));
        }
        let mut bytes = vec![0; length];
        file.read(name, offset, &mut bytes)?;
        info.encoding.decode(&bytes, out);
        Ok(())
    }

    fn read_row_bytes(&self, name: &str, row: u32, out: &mut Vec<u8>) -> Result<()> {
        let (file, _, offset, length) = self.locate(name, row)?;
        out.resize(length, 0);
        file.read(name, offset, out)
    }

    fn tokenizer(&self) -> Option<&TokenizerSource> {
        self.tokenizer.as_ref()
    }
}

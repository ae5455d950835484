//! A model whose tensors lie in files, read a row at a time: memory use does not grow with the
//! model.

use super::{Checkpoint, Encoding, LlamaConfig, TensorInfo, TokenizerSource, rope::Rope};
use crate::{Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

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
        // Before opening: that would wait for ever on a pipe.
        let metadata = fs::metadata(path).map_err(|e| Error::io(path, "read", e))?;
        if !metadata.is_file() {
            let found = if metadata.is_dir() { "a folder" } else { "a device or pipe" };
            let remedy = "give the path of the model's file";
            return Err(Error::malformed(path, "the path", found, "a regular file", remedy));
        }
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        Ok(Self { path: path.to_owned(), file, length: metadata.len() })
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
    /// Width of the heads within which rows have the order of interleaved RoPE pairs.
    pub(super) interleaved: Option<u32>,
}

impl StoredTensor {
    /// Checks that a tensor has a vector's or a matrix' shape and lies within its file.
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
            let remedy = "the file is damaged, or holds something else than a Llama model";
            source.malformed(format!("shape of {name}"), format!("{shape:?}"), expected, remedy)
        };
        let dimension = |d: u64| u32::try_from(d).ok().filter(|&d| d > 0);
        let sides = match *shape {
            [columns] => Some(1).zip(dimension(columns)),
            [rows, columns] => dimension(rows).zip(dimension(columns)),
            _ => None,
        };
        let Some((rows, columns)) = sides else {
            return Err(shape_error("one or two positive dimensions".into()));
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
        Ok(Self { file, offset, info, row_bytes, interleaved: None })
    }

    /// Offset of the first byte behind the tensor.
    pub(super) fn end(&self) -> u64 {
        self.offset + u64::from(self.info.rows) * self.row_bytes
    }

    /// Where the row that Hugging Face has at `row` is stored.
    ///
    /// Hugging Face rotates row `i` of a head with row `i + head_dim / 2`, llama2.c and GGUF row
    /// `2 * i` with row `2 * i + 1`.
    fn stored_row(&self, row: u32) -> u32 {
        let Some(head_dim) = self.interleaved else { return row };
        let (within, half) = (row % head_dim, head_dim / 2);
        let pair = within % half;
        row - within + 2 * pair + within / half
    }
}

/// A model whose tensors lie in files.
#[derive(Debug)]
pub struct StoredModel {
    config: LlamaConfig,
    files: Vec<SourceFile>,
    tensors: BTreeMap<String, StoredTensor>,
    tokenizer: Option<TokenizerSource>,
}

impl StoredModel {
    /// Checks the hyperparameters, which `config_file` holds, computes the RoPE frequencies, and
    /// checks that `tensors` are exactly those that the hyperparameters call for.
    pub(super) fn new(
        mut config: LlamaConfig,
        config_file: &Path,
        rope: &Rope,
        files: Vec<SourceFile>,
        tensors: BTreeMap<String, StoredTensor>,
    ) -> Result<Self> {
        config.check(config_file)?;
        config.rope_frequencies = rope.frequencies(config.head_dim, config_file)?;
        let model = Self { config, files, tensors, tokenizer: None };
        model.check_tensors(config_file)?;
        Ok(model)
    }

    /// The model with its tokenizer.
    pub(super) fn with_tokenizer(self, tokenizer: Option<TokenizerSource>) -> Self {
        Self { tokenizer, ..self }
    }

    fn check_tensors(&self, config_file: &Path) -> Result<()> {
        let mut expected_names = BTreeSet::new();
        for expected in self.config.tensors() {
            let shape = format!("shape [{}, {}]", expected.rows, expected.columns);
            let Some(tensor) = self.tensors.get(&expected.name) else {
                let remedy = "a file is missing, or the hyperparameters are another model's";
                return Err(Error::malformed(
                    config_file,
                    expected.name,
                    "no tensor",
                    shape,
                    remedy,
                ));
            };
            let TensorInfo { rows, columns, .. } = tensor.info;
            if (rows, columns) != (expected.rows, expected.columns) {
                let found = format!("shape [{rows}, {columns}]");
                let remedy = "the hyperparameters are another model's: get the files again";
                let file = &self.files[tensor.file];
                return Err(file.malformed(expected.name, found, shape, remedy));
            }
            expected_names.insert(expected.name);
        }
        match self.tensors.iter().find(|(name, _)| !expected_names.contains(*name)) {
            Some((name, tensor)) => Err(unknown_tensor(&self.files[tensor.file], name)),
            None => Ok(()),
        }
    }

    /// The tensor, its file, and the place of a row and its length in bytes.
    fn locate(&self, name: &str, row: u32) -> Result<(&SourceFile, TensorInfo, u64, usize)> {
        let Some(tensor) = self.tensors.get(name) else {
            let remedy = "ask for one of the model's tensors";
            return Err(self.files[0].malformed(name, "no such tensor", "a tensor", remedy));
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
        let offset = tensor.offset + u64::from(tensor.stored_row(row)) * length;
        Ok((file, info, offset, length as usize))
    }
}

/// A tensor that a plain Llama does not have.
pub(super) fn unknown_tensor(file: &SourceFile, name: &str) -> Error {
    file.malformed(
        name,
        "a tensor that a Llama model with these hyperparameters does not have",
        "only the tensors of a plain Llama: no biases, no adapters, no experts",
        "merge adapters first; other architectures are not supported",
    )
}

impl Checkpoint for StoredModel {
    fn config(&self) -> &LlamaConfig {
        &self.config
    }

    fn tensor(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).map(|tensor| tensor.info)
    }

    fn read_row(&self, name: &str, row: u32, out: &mut [f32]) -> Result<()> {
        let (file, info, offset, length) = self.locate(name, row)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_rows_are_found_within_their_head() {
        let info = TensorInfo { rows: 12, columns: 1, encoding: Encoding::F32 };
        let tensor = StoredTensor { file: 0, offset: 0, info, row_bytes: 4, interleaved: Some(6) };
        let stored: Vec<u32> = (0..12).map(|row| tensor.stored_row(row)).collect();
        assert_eq!(stored, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}

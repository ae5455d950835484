//! Folders as Hugging Face's transformers stores models: safetensors, `config.json`, the tokenizer.

use super::inverse::Inverse;
use super::scatter::{self, Output, Place};
use super::{Dtype, Exported, beside, hyperparameters};
use crate::arch;
use crate::cancel::Cancel;
use crate::durable::{folder_of, put_in_place};
use crate::import::{Encoding, Fields};
use crate::package::Package;
use crate::scratch::ScratchFolder;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

impl Dtype {
    /// What transformers calls it.
    pub(super) fn torch(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::Bf16 => "bfloat16",
            Dtype::F16 => "float16",
        }
    }

    fn in_header(self) -> &'static str {
        match self {
            Dtype::F32 => "F32",
            Dtype::Bf16 => "BF16",
            Dtype::F16 => "F16",
        }
    }

    pub(super) fn encoding(self) -> Encoding {
        match self {
            Dtype::F32 => Encoding::F32,
            Dtype::Bf16 => Encoding::Bf16,
            Dtype::F16 => Encoding::F16,
        }
    }
}

/// Writes a package's model as a new folder, which appears whole or not at all. `progress` is called with
/// the bytes of weights that are written and those in all.
///
/// # Errors
/// A package that is damaged or that no `config.json` describes, a folder that exists or can't be written,
/// numbers that the type does not hold, [`Error::Interrupted`].
pub fn write(
    package: &Package,
    folder: &Path,
    dtype: Dtype,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Exported> {
    check_new(folder)?;
    let fields = hyperparameters(package)?;
    let blueprint = arch::of_config(&package.path.join("hyperparameters.json"), &fields)?;
    let inverse = Inverse::new(package, &blueprint)?;
    let temporary = ScratchFolder::new(folder_of(folder), ".omex-export-")?;
    let path = temporary.path().join("model");
    std::fs::create_dir(&path).map_err(|e| Error::io(&path, "create", e))?;
    let (header, places, end) = header(&inverse, dtype);
    let exported = Exported::new("safetensors", text(&fields, "model_type"), &inverse, &places);
    let weights = Weights { header, places, end, path: path.join("model.safetensors") };
    weights.write(package, &inverse, cancel, progress)?;
    beside::write(package, fields, dtype, &path)?;
    put_in_place(&path, folder, &temporary.path().join("replaced"))?;
    Ok(exported)
}

/// Refuses a place where something is.
fn check_new(folder: &Path) -> Result<()> {
    let Ok(found) = folder.symlink_metadata() else { return Ok(()) };
    let mut entries = std::fs::read_dir(folder).into_iter().flatten();
    if found.is_dir() && entries.next().is_none() {
        return Ok(());
    }
    Err(Error::Usage(format!("{}: exists already; name a new folder", folder.display())))
}

fn text(fields: &Fields, name: &str) -> String {
    fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The file of weights.
struct Weights {
    header: Vec<u8>,
    places: Vec<Place>,
    end: u64,
    path: PathBuf,
}

impl Weights {
    fn write(
        &self,
        package: &Package,
        inverse: &Inverse,
        cancel: &Cancel,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let (path, places) = (self.path.as_path(), self.places.as_slice());
        let file = File::create_new(path).map_err(|e| Error::io(path, "create", e))?;
        let io = |e| Error::io(path, "write", e);
        file.set_len(self.end).and_then(|()| file.write_all_at(&self.header, 0)).map_err(io)?;
        let mut output = Output { file: &file, path, places, cancel, progress };
        scatter::write(package, inverse, &mut output)?;
        file.sync_all().map_err(io)
    }
}

/// The header, where each tensor lies in the file, and where they end.
fn header(inverse: &Inverse, dtype: Dtype) -> (Vec<u8>, Vec<Place>, u64) {
    let (mut tensors, mut offsets, mut end) = (Map::new(), vec![], 0);
    tensors.insert("__metadata__".into(), json!({ "format": "pt" }));
    let encoding = dtype.encoding();
    for stored in &inverse.tensors {
        let length = u64::from(stored.rows) * encoding.row_bytes(stored.columns).unwrap_or(0);
        let tensor = json!({
            "dtype": dtype.in_header(), "shape": stored.dimensions, "data_offsets": [end, end + length],
        });
        tensors.insert(stored.name.clone(), tensor);
        offsets.push(end);
        end += length;
    }
    let mut json = Value::Object(tensors).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    let start = header.len() as u64;
    let places =
        offsets.into_iter().map(|offset| Place { offset: start + offset, encoding }).collect();
    (header, places, start + end)
}

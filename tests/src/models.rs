//! Models converted into folders that vanish with the test.

use crate::json;
use omex::cancel::Cancel;
use omex::convert::{ConvertOptions, convert};
use omex::import::{Container, open};
use omex::pack::{BoardPlan, Target, pack};
use omex::package::{Package, renew_checksums};
use omex::plan::Kv;
use omex::quantize::Precision;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A package in a folder of its own.
#[derive(Debug)]
pub struct Converted {
    /// Removed with this value.
    pub folder: TempDir,
    /// The package.
    pub path: PathBuf,
}

impl Converted {
    /// Converts a model; without a precision, quantized matrices stay as they are.
    #[must_use]
    pub fn new(source: &dyn Container, precision: Option<Precision>) -> Self {
        Self::with(source, &ConvertOptions { precision, ..ConvertOptions::default() })
    }

    /// Converts a model to int4 with residual planes.
    #[must_use]
    pub fn in_planes(source: &dyn Container) -> Self {
        let precision = Some(Precision::Int4);
        Self::with(
            source,
            &ConvertOptions { precision, residual: true, ..ConvertOptions::default() },
        )
    }

    /// Converts a model in this way.
    #[must_use]
    pub fn with(source: &dyn Container, options: &ConvertOptions<'_>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("model.omex");
        let converted = convert(source, "test", "test", &path, options, &mut |_, _| {});
        converted.unwrap_or_else(|e| panic!("converting: {e}"));
        Self { folder, path }
    }

    /// Packs an image with pages of this size and plenty of memory.
    #[must_use]
    pub fn image(&self, page_size: u32, columns: u32, context: u32) -> PathBuf {
        self.image_with(page_size, columns, context, None)
    }

    /// The same with a format of the KV cache.
    #[must_use]
    pub fn image_with(
        &self,
        page_size: u32,
        columns: u32,
        context: u32,
        kv: Option<Kv>,
    ) -> PathBuf {
        let target = Target {
            ram: 64 << 20,
            reserve: 0,
            mapped: false,
            page_size: Some(page_size),
            columns: Some(columns),
            context: Some(context),
            kv,
        };
        let path = self.folder.path().join(format!("{page_size}-{columns}-{context}-{kv:?}.img"));
        pack_with(&self.path, &target, &path);
        path
    }
}

/// Packs an image.
pub fn pack_with(package: &Path, target: &Target, image: &Path) -> BoardPlan {
    let package = Package::open(package).unwrap_or_else(|e| panic!("{e}"));
    pack(&package, target, image, &Cancel::default()).unwrap_or_else(|e| panic!("packing: {e}"))
}

/// Converts the model at a path.
#[must_use]
pub fn convert_from(path: &Path, precision: Option<Precision>) -> Converted {
    let source = open(path, None).unwrap_or_else(|e| panic!("{e}"));
    Converted::new(&*source, precision)
}

/// The model that ships in the repository.
#[must_use]
pub fn shipped_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny-stories")
}

/// A package whose layers have these precisions in turn: each file comes from a package of its own.
#[must_use]
pub fn mix(source: &dyn Container, precisions: &[Precision]) -> Converted {
    let all: Vec<_> = precisions.iter().map(|p| Converted::new(source, Some(*p))).collect();
    let mixed = Converted::new(source, Some(precisions[0]));
    let index_name = "weights/quantization.json";
    let mut index = json(&mixed.path.join(index_name));
    let indices: Vec<_> = all.iter().map(|c| json(&c.path.join(index_name))).collect();
    let files = index["files"].as_array().expect("files").len();
    let mut tensors = vec![];
    for number in 0..files {
        let (from, other) = (&all[number % all.len()], &indices[number % all.len()]);
        assert_eq!(other["page_size"], index["page_size"], "pages of one size");
        let name = other["files"][number]["name"].as_str().expect("a name");
        std::fs::copy(from.path.join("weights").join(name), mixed.path.join("weights").join(name))
            .expect("a file of weights");
        let of_file =
            other["tensors"].as_array().expect("tensors").iter().filter(|t| t["file"] == name);
        tensors.extend(of_file.cloned());
        index["files"][number] = other["files"][number].clone();
    }
    index["tensors"] = tensors.into();
    std::fs::write(mixed.path.join(index_name), index.to_string()).expect("it can be written");
    renew_checksums(&mixed.path).unwrap_or_else(|e| panic!("{e}"));
    mixed
}

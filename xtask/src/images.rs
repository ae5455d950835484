//! Flash images of models that are at hand, for boards to play while they are measured.

use crate::firmware::{Board, Kind};
use crate::{Result, output_of, root, run, target_dir};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// What the firmware and its stack need besides the arena: 10 KB, and 1 KB of variables.
const RESERVE: &str = "11K";

/// Packages that were made, and what makes them.
pub(crate) struct Images {
    omex: PathBuf,
    folder: PathBuf,
    packages: BTreeMap<&'static str, Option<PathBuf>>,
}

impl Images {
    /// Builds what makes them, unless the environment's `OMEX_BINARY` names one.
    ///
    /// # Errors
    /// The compiler's.
    pub(crate) fn new() -> Result<Self> {
        let omex = match std::env::var_os("OMEX_BINARY") {
            Some(omex) => omex.into(),
            None => built()?,
        };
        let folder = target_dir("images");
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Self { omex, folder, packages: BTreeMap::new() })
    }

    /// An image of a kind that fits a board; `None` if the board is not emulated or the model is not at hand.
    ///
    /// # Errors
    /// What `omex` says.
    pub(crate) fn of(&mut self, board: &Board, kind: Kind) -> Result<Option<PathBuf>> {
        if !board.is_emulated() {
            return Ok(None);
        }
        let Some(package) = self.package(kind)? else { return Ok(None) };
        let image = self.folder.join(format!("{}-{}.img", board.name, kind.feature()));
        let mut pack = Command::new(&self.omex);
        pack.arg("pack").arg(package).args(["--ram", &board.ram.to_string()]);
        output_of(pack.args(["--reserve", RESERVE, "--output"]).arg(&image))?;
        Ok(Some(image))
    }

    fn package(&mut self, kind: Kind) -> Result<Option<PathBuf>> {
        if let Some(package) = self.packages.get(kind.feature()) {
            return Ok(package.clone());
        }
        let model = root().join(match kind {
            Kind::Text => "models/tiny-stories",
            Kind::Int8 => "../shared/models/mlperf_tiny/kws_ref_model.tflite",
        });
        let package = self.folder.join(kind.feature()).with_extension("omex");
        let made = model.exists().then_some(package.clone());
        if made.is_some() {
            if package.exists() {
                std::fs::remove_dir_all(&package)
                    .map_err(|e| format!("{}: {e}", package.display()))?;
            }
            let mut convert = Command::new(&self.omex);
            convert.arg("convert").arg(&model).arg("--output-dir").arg(&package);
            output_of(&mut convert)?;
        } else {
            println!("no stack of {}: {} is not here", kind.feature(), model.display());
        }
        self.packages.insert(kind.feature(), made.clone());
        Ok(made)
    }
}

fn built() -> Result<PathBuf> {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    build.args(["build", "--quiet", "--package", "omex-cli", "--bin", "omex"]);
    run(build.current_dir(root()))?;
    Ok(target_dir("debug").join("omex"))
}

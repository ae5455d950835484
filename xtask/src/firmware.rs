//! Boards, and their firmware.

use crate::toolchain::Toolchain;
use crate::{Result, root, run, target_dir};
use std::path::PathBuf;

/// A board that there is firmware for.
pub(crate) struct Board {
    /// Its name, its crate's and its folder's.
    pub(crate) name: &'static str,
    target: &'static str,
    /// Bytes of flash and of memory.
    pub(crate) flash: u64,
    /// Bytes of memory.
    pub(crate) ram: u64,
    /// How QEMU calls it, with everything that its firmware relies on.
    pub(crate) machine: &'static [&'static str],
}

/// All of them.
pub(crate) const BOARDS: &[Board] = &[Board {
    name: "lm3s6965evb",
    target: "thumbv7m-none-eabi",
    flash: 256 << 10,
    ram: 64 << 10,
    machine: &["-M", "lm3s6965evb", "-cpu", "cortex-m3", "-icount", "shift=7"],
}];

impl Board {
    /// The board of this name.
    ///
    /// # Errors
    /// There is none; says which there are.
    pub(crate) fn find(name: &str) -> Result<&'static Self> {
        BOARDS.iter().find(|board| board.name == name).ok_or_else(|| {
            let names: Vec<_> = BOARDS.iter().map(|board| board.name).collect();
            format!("no board {name}; there are: {}", names.join(", "))
        })
    }

    /// Builds the firmware and returns its file.
    ///
    /// # Errors
    /// What to install, or the compiler's.
    pub(crate) fn build(&self) -> Result<PathBuf> {
        self.build_with(&[])
    }

    /// Builds the firmware in a way that links only if no panic can be reached.
    ///
    /// # Errors
    /// As [`Self::build`]; a function that can panic.
    pub(crate) fn build_without_panics(&self) -> Result<()> {
        let built = self.build_with(&["--features", "assert-no-panic"]);
        built.map(|_| ()).map_err(|error| {
            format!("{error}\nif `omex_panic_is_reachable` is undefined, some code can panic")
        })
    }

    fn build_with(&self, flags: &[&str]) -> Result<PathBuf> {
        let toolchain = Toolchain::find(self.target)?;
        let folder = target_dir(toolchain.folder()).join("boards");
        let mut cargo = toolchain.cargo("build");
        cargo.args(["--release", "--quiet", "--package", self.name]).args(flags);
        cargo.arg("--target-dir").arg(&folder).current_dir(root().join("boards"));
        run(&mut cargo)?;
        Ok(folder.join(self.target).join("release").join(self.name))
    }
}

//! `cargo xtask dist`: `omex` for Linux boards, as one static file each and as a Debian package.

use crate::toolchain::Toolchain;
use crate::tools::{GCC_AARCH64, GCC_ARMV7, QEMU_AARCH64, QEMU_ARMV7, Tool};
use crate::{Result, output_of, root, run, target_dir};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const USAGE: &str = "\
Usage: cargo xtask dist [NAME]

Builds omex for 64-bit Arm (aarch64: Raspberry Pi 3 and later) and for 32-bit Arm (armv7: Raspberry Pi 2 and later),
or for one of them: files that need no library of the system, and with dpkg-deb, Debian packages. They lie in
target/dist. Where QEMU's user emulation is installed, each converts the model that ships, and writes a text.

Example:
  cargo xtask dist aarch64 && scp target/dist/omex-aarch64 pi:omex";

/// What is built for.
pub(crate) struct Machine {
    /// As users call it.
    name: &'static str,
    /// As Rust calls it.
    pub(crate) target: &'static str,
    /// As Debian calls it.
    debian: &'static str,
    compiler: &'static Tool,
    pub(crate) emulator: &'static Tool,
}

/// Raspberry Pi 3 and later, with a 64-bit system.
pub(crate) const AARCH64: Machine = Machine {
    name: "aarch64",
    target: "aarch64-unknown-linux-gnu",
    debian: "arm64",
    compiler: &GCC_AARCH64,
    emulator: &QEMU_AARCH64,
};

/// Raspberry Pi 2 and later, with a 32-bit system.
const ARMV7: Machine = Machine {
    name: "armv7",
    target: "armv7-unknown-linux-gnueabihf",
    debian: "armhf",
    compiler: &GCC_ARMV7,
    emulator: &QEMU_ARMV7,
};

/// Runs the command.
///
/// # Errors
/// Wrong arguments, tools that are missing, the compiler's, or a build that does not run.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut machines = vec![AARCH64, ARMV7];
    match arguments {
        [] => {}
        [flag] if flag == "--help" || flag == "-h" => {
            println!("{USAGE}");
            return Ok(());
        }
        [name] => machines.retain(|machine| machine.name == name),
        _ => machines.clear(),
    }
    if machines.is_empty() {
        return Err(USAGE.to_owned());
    }
    let folder = target_dir("dist");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for machine in machines {
        let file = machine.build(&folder)?;
        println!("{}: {} bytes", file.display(), length(&file)?);
        machine.try_out(&file)?;
        if let Some(package) = machine.pack(&file, &folder)? {
            println!("{}: {} bytes", package.display(), length(&package)?);
        }
    }
    Ok(())
}

impl Machine {
    /// Cargo, for programs that need no library of the system.
    ///
    /// # Errors
    /// What to install.
    pub(crate) fn cargo(&self, subcommand: &str) -> Result<Command> {
        let toolchain = Toolchain::find(self.target)?;
        let name = format!("CARGO_TARGET_{}", self.target.to_uppercase().replace('-', "_"));
        let mut cargo = toolchain.cargo(subcommand);
        cargo.env(format!("{name}_LINKER"), self.compiler.find()?);
        cargo.env(format!("{name}_RUNNER"), self.emulator.program);
        cargo.env(format!("{name}_RUSTFLAGS"), "-Ctarget-feature=+crt-static");
        cargo.args(["--quiet", "--target-dir"]).arg(target_dir(toolchain.folder()));
        cargo.current_dir(root());
        Ok(cargo)
    }

    /// Where the command is, once [`Self::cargo`] has built it.
    ///
    /// # Errors
    /// What to install.
    pub(crate) fn omex(&self, profile: &str) -> Result<PathBuf> {
        let built = target_dir(Toolchain::find(self.target)?.folder());
        Ok(built.join(self.target).join(profile).join("omex"))
    }

    fn build(&self, folder: &Path) -> Result<PathBuf> {
        let mut build = self.cargo("build")?;
        run(build.args(["--release", "--package", "omex-cli", "--bin", "omex"]))?;
        let file = folder.join(format!("omex-{}", self.name));
        copy(&self.omex("release")?, &file)?;
        Ok(file)
    }

    /// Has the build convert the model that ships, and write a text, where it can be run.
    fn try_out(&self, file: &Path) -> Result<()> {
        if let Err(missing) = self.emulator.find() {
            println!("not run: {missing}");
            return Ok(());
        }
        let omex = |arguments: &[&str]| {
            let mut omex = Command::new(self.emulator.program);
            omex.arg(file).args(arguments).current_dir(root());
            output_of(&mut omex)
        };
        let model = file.with_extension("stories.omex");
        let model = model.to_string_lossy();
        omex(&["convert", "models/tiny-stories", "--output-dir", &model, "--force"])?;
        let text = omex(&["run", &model, "The robot", "--max-tokens", "16"])?;
        println!("{}: {text}", self.emulator.program);
        fs::remove_dir_all(&*model).map_err(|e| format!("{model}: {e}"))
    }

    /// A Debian package, where what makes them is there.
    fn pack(&self, file: &Path, folder: &Path) -> Result<Option<PathBuf>> {
        if output_of(Command::new("dpkg-deb").arg("--version")).is_err() {
            println!("no package: dpkg-deb is not installed");
            return Ok(None);
        }
        let tree = folder.join(format!("deb-{}", self.name));
        if tree.exists() {
            fs::remove_dir_all(&tree).map_err(|e| format!("{}: {e}", tree.display()))?;
        }
        copy(file, &tree.join("usr/bin/omex"))?;
        copy(&root().join("LICENSE"), &tree.join("usr/share/doc/omex/copyright"))?;
        copy(&root().join("README.md"), &tree.join("usr/share/doc/omex/README.md"))?;
        write(&tree.join("DEBIAN/control"), &self.control(length(file)?))?;
        let package = folder.join(format!("omex_{VERSION}_{}.deb", self.debian));
        let mut build = Command::new("dpkg-deb");
        build.args(["--root-owner-group", "--build"]).arg(&tree).arg(&package);
        output_of(&mut build)?;
        let found = output_of(Command::new("dpkg-deb").arg("--contents").arg(&package))?;
        match found
            .lines()
            .any(|l| l.starts_with("-rwxr-xr-x root/root") && l.ends_with("./usr/bin/omex"))
        {
            true => Ok(Some(package)),
            false => Err(format!("{}: no command in it:\n{found}", package.display())),
        }
    }

    /// What the package says of itself.
    fn control(&self, bytes: u64) -> String {
        format!(
            "Package: omex\nVersion: {VERSION}\nArchitecture: {}\nInstalled-Size: {}\nSection: science\n\
             Priority: optional\nMaintainer: OMEX <omex@users.noreply.github.com>\n\
             Description: runs language models and other networks within a fixed budget of memory\n \
             A model is compiled once into a short program over fixed memory, and weights that\n \
             are read as they are used: from a microcontroller to a server.\n",
            self.debian,
            bytes.div_ceil(1024)
        )
    }
}

/// All packages of the workspace have the same.
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn length(file: &Path) -> Result<u64> {
    let found = file.metadata().map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(found.len())
}

fn parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    parent(to)?;
    fs::copy(from, to).map(|_| ()).map_err(|e| format!("{}: {e}", from.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    parent(path)?;
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

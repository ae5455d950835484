//! Programs that are not Rust's, and how to install them.

use crate::{Result, output_of, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that a chore needs.
pub(crate) struct Tool {
    /// Its name.
    pub(crate) program: &'static str,
    /// The Debian packages that it comes with.
    packages: &'static [&'static str],
    /// Where those without Debian get it.
    site: &'static str,
}

/// Runs boards with Cortex-M cores.
pub(crate) const QEMU_ARM: Tool =
    Tool { program: "qemu-system-arm", packages: &["qemu-system-arm"], site: "qemu.org" };
/// Runs boards with RISC-V cores.
pub(crate) const QEMU_RISCV32: Tool =
    Tool { program: "qemu-system-riscv32", packages: &["qemu-system-misc"], site: "qemu.org" };
/// Runs Linux programs for 64-bit Arm.
pub(crate) const QEMU_AARCH64: Tool =
    Tool { program: "qemu-aarch64", packages: &["qemu-user"], site: "qemu.org" };
/// Links them.
pub(crate) const GCC_AARCH64: Tool = Tool {
    program: "aarch64-linux-gnu-gcc",
    packages: &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
    site: "gcc.gnu.org",
};
/// Runs Linux programs for 32-bit Arm.
pub(crate) const QEMU_ARMV7: Tool =
    Tool { program: "qemu-arm", packages: &["qemu-user"], site: "qemu.org" };
/// Compiles C for it.
pub(crate) const GCC_ARMV7: Tool = Tool {
    program: "arm-linux-gnueabihf-gcc",
    packages: &["gcc-arm-linux-gnueabihf", "libc6-dev-armhf-cross"],
    site: "gcc.gnu.org",
};
/// Counts instructions.
pub(crate) const VALGRIND: Tool =
    Tool { program: "valgrind", packages: &["valgrind"], site: "valgrind.org" };
/// Runs WebAssembly.
pub(crate) const NODE: Tool = Tool { program: "node", packages: &["nodejs"], site: "nodejs.org" };

impl Tool {
    /// The Debian packages that it comes with.
    pub(crate) fn packages(&self) -> &'static [&'static str] {
        self.packages
    }

    /// Where it is.
    ///
    /// # Errors
    /// It is not installed; says how to install it.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join(self.program));
        found.into_iter().find(|file| file.is_file()).ok_or_else(|| {
            let Self { program, site, .. } = self;
            let packages = self.packages.join(" ");
            format!("{program} is missing: run `apt-get install {packages}`, or see {site}")
        })
    }

    /// Installs it if it is missing.
    ///
    /// # Errors
    /// What the installer says.
    pub(crate) fn install(&self) -> Result<()> {
        if self.find().is_ok() {
            return Ok(());
        }
        eprintln!("installing {}", self.packages.join(" "));
        let plain = apt_get(self.packages);
        // A newer qemu-utils than the release's own forbids the release's QEMU: take it back.
        if plain.is_err() && is_installed("qemu-utils") {
            let own = format!("qemu-utils/{}", codename()?);
            let packages: Vec<_> = self.packages.iter().copied().chain([own.as_str()]).collect();
            apt_get(&packages)?;
        }
        self.find().map(|_| ())
    }
}

/// True if packages may be installed: for root, on Debian and its kin.
pub(crate) fn may_install() -> bool {
    let is_root = output_of(Command::new("id").arg("-u")).is_ok_and(|id| id == "0");
    is_root && Path::new("/usr/bin/apt-get").exists()
}

/// Brings the list of packages up to date.
///
/// # Errors
/// What `apt-get` says.
pub(crate) fn update() -> Result<()> {
    run(Command::new("apt-get").args(["update", "--quiet"]))
}

/// Installs packages.
pub(crate) fn apt_get(packages: &[&str]) -> Result<()> {
    let mut apt_get = Command::new("apt-get");
    apt_get.args(["install", "--yes", "--quiet", "--no-install-recommends", "--allow-downgrades"]);
    run(apt_get.args(packages).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_installed(package: &str) -> bool {
    let status = output_of(Command::new("dpkg-query").args(["-W", "-f=${Status}", package]));
    status.is_ok_and(|status| status.ends_with(" installed"))
}

fn codename() -> Result<String> {
    let release =
        std::fs::read_to_string("/etc/os-release").map_err(|e| format!("/etc/os-release: {e}"))?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_owned())
        .ok_or("/etc/os-release has no codename".to_owned())
}

//! How to build for a target: with rustup's library for it, or with Debian's compiler and the
//! sources of the library.

use crate::{Result, output_of};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A cargo that can build for one target.
pub(crate) struct Toolchain {
    target: &'static str,
    build_std: Option<BuildStd>,
}

/// Debian's packages `cargo-web`, `rustc-web` and `rust-web-src`.
struct BuildStd {
    crates: &'static str,
    linker: Option<PathBuf>,
}

const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

impl Toolchain {
    /// Finds a way to build for `target`; asks rustup for its library if that is missing.
    ///
    /// # Errors
    /// What to install.
    pub(crate) fn find(target: &'static str) -> Result<Self> {
        if has_library(target) || add_library(target) && has_library(target) {
            return Ok(Self { target, build_std: None });
        }
        if has_debian_sources() {
            let hosted = target.contains("linux");
            let crates = if hosted { "std,panic_unwind,test" } else { "core" };
            let linker = if hosted { None } else { rust_lld() };
            return Ok(Self { target, build_std: Some(BuildStd { crates, linker }) });
        }
        Err(format!(
            "Rust's library for {target} is missing: run `rustup target add {target}`, \
             or on Debian `apt-get install {}`",
            DEBIAN_PACKAGES.join(" ")
        ))
    }

    /// `cargo SUBCOMMAND` for the target.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let Some(build_std) = &self.build_std else {
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
            cargo.args([subcommand, "--target", self.target]);
            return cargo;
        };
        let mut cargo = Command::new(DEBIAN_CARGO);
        // The sources of the library are built with features that only the compiler's own release
        // may use.
        cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1").env_remove("RUSTUP_TOOLCHAIN");
        cargo.args([subcommand, "--target", self.target]);
        cargo.arg(format!("-Zbuild-std={}", build_std.crates));
        // As its release is built: at another level, formatting a number may panic.
        cargo.args(["--config", "profile.release.package.core.opt-level=3"]);
        if let Some(linker) = &build_std.linker {
            let name = self.target.to_uppercase().replace('-', "_");
            cargo.env(format!("CARGO_TARGET_{name}_LINKER"), linker);
        }
        cargo
    }

    /// What compiles, as `rustc 1.95.0`.
    ///
    /// # Errors
    /// A compiler that doesn't say what it is.
    pub(crate) fn compiler(&self) -> Result<String> {
        let rustc = if self.build_std.is_some() { DEBIAN_RUSTC } else { "rustc" };
        let version = output_of(Command::new(rustc).arg("--version"))?;
        Ok(version.split(' ').take(2).collect::<Vec<_>>().join(" "))
    }

    /// What the builds of this toolchain can't be mixed with the builds of others by.
    pub(crate) fn folder(&self) -> &'static str {
        if self.build_std.is_some() { "cross-debian" } else { "cross" }
    }
}

/// The Debian packages that [`install`] installs.
pub(crate) fn packages() -> &'static [&'static str] {
    &DEBIAN_PACKAGES
}

/// Installs Debian's compiler.
///
/// # Errors
/// What `apt-get` says.
pub(crate) fn install() -> Result<()> {
    crate::tools::apt_get(&DEBIAN_PACKAGES)
}

fn has_library(target: &str) -> bool {
    let folder =
        output_of(Command::new("rustc").args(["--print", "target-libdir", "--target", target]));
    folder.is_ok_and(|folder| Path::new(&folder).exists())
}

fn add_library(target: &str) -> bool {
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", target]).stdout(Stdio::null()).stderr(Stdio::null());
    rustup.status().is_ok_and(|status| status.success())
}

fn has_debian_sources() -> bool {
    let sysroot = output_of(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]));
    let sources =
        |sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/Cargo.lock").exists();
    Path::new(DEBIAN_CARGO).exists() && sysroot.is_ok_and(sources)
}

/// The linker that rustup installs beside its compiler; Debian's looks for it in vain.
fn rust_lld() -> Option<PathBuf> {
    let sysroot = output_of(Command::new("rustc").args(["--print", "sysroot"])).ok()?;
    let hosts = std::fs::read_dir(Path::new(&sysroot).join("lib/rustlib")).ok()?;
    hosts.flatten().map(|host| host.path().join("bin/rust-lld")).find(|linker| linker.exists())
}

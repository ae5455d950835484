//! The kernels of boards' cores against the portable ones, in QEMU.

use crate::toolchain::Toolchain;
use crate::tools::QEMU_ARM;
use crate::{Result, root, run, target_dir};
use std::process::Command;

/// A machine for each core that has kernels of its own, or software floats, what it is built for, and with which
/// features.
const MACHINES: [(&str, &str, &str); 3] = [
    ("mps2-an385", "thumbv7m-none-eabi", ""),
    ("mps2-an386", "thumbv7em-none-eabihf", ""),
    ("mps3-an547", "thumbv8m.main-none-eabihf", "dsp"),
];

/// Builds and runs `boards/kernels` for each of them.
///
/// # Errors
/// What to install, the compiler's, or kernels that differ.
pub(crate) fn check() -> Result<()> {
    for (machine, target, features) in MACHINES {
        eprintln!("{machine}");
        let toolchain = Toolchain::find(target)?;
        let folder = target_dir(toolchain.folder()).join("boards");
        let mut cargo = toolchain.cargo("build");
        cargo.args(["--release", "--quiet", "--package", "kernels", "--features", features]);
        run(cargo.arg("--target-dir").arg(&folder).current_dir(root().join("boards/kernels")))?;
        let mut qemu = Command::new(QEMU_ARM.program);
        qemu.args(["-M", machine, "-nographic", "-serial", "null", "-monitor", "none"]);
        qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel"]);
        run(qemu.arg(folder.join(target).join("release/kernels")))?;
    }
    Ok(())
}

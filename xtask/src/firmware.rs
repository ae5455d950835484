//! Boards, and their firmware.

use crate::toolchain::Toolchain;
use crate::tools::{self, Tool};
use crate::{Result, root, run, target_dir};
use std::path::PathBuf;

/// A board that there is firmware for.
pub(crate) struct Board {
    /// Its name, its crate's and its folder's.
    pub(crate) name: &'static str,
    target: &'static str,
    /// Bytes of flash for the firmware.
    pub(crate) flash: u64,
    /// Bytes of memory.
    pub(crate) ram: u64,
    /// Where its firmware expects the image.
    pub(crate) image: Place,
    /// How QEMU calls it, with everything that its firmware relies on; empty if it isn't emulated.
    pub(crate) machine: &'static [&'static str],
    /// It has firmware that answers over a serial port in QEMU.
    has_serial: bool,
    /// `cargo xtask test` builds it without being asked.
    pub(crate) by_default: bool,
}

/// Where a board's image lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the beginning of an SD card.
    Card,
    /// In memory, flash usually, from this address on, with room for so many bytes.
    Memory(u64, u64),
}

/// The board that `boards/examples` are for.
const EXAMPLES: &str = "mps2-an386";

/// All of them.
pub(crate) const BOARDS: &[Board] = &[
    Board {
        name: "lm3s6965evb",
        target: "thumbv7m-none-eabi",
        flash: 256 << 10,
        ram: 64 << 10,
        image: Place::Card,
        machine: &["-M", "lm3s6965evb", "-cpu", "cortex-m3", "-icount", "shift=7"],
        has_serial: false,
        by_default: true,
    },
    Board {
        name: "mps2-an386",
        target: "thumbv7em-none-eabihf",
        flash: 256 << 10,
        ram: 4 << 20,
        image: Place::Memory(0x0004_0000, 3840 << 10),
        // Its timer counts instructions if they take 64 ns.
        machine: &["-M", "mps2-an386", "-icount", "shift=6"],
        has_serial: false,
        by_default: true,
    },
    Board {
        name: "mps3-an547",
        target: "thumbv8m.main-none-eabihf",
        flash: 256 << 10,
        ram: 512 << 10,
        image: Place::Memory(0x0100_0000, 2 << 20),
        machine: &["-M", "mps3-an547", "-icount", "shift=6"],
        has_serial: false,
        by_default: true,
    },
    Board {
        name: "netduinoplus2",
        target: "thumbv7em-none-eabihf",
        flash: 256 << 10,
        ram: 128 << 10,
        image: Place::Memory(0x0804_0000, 768 << 10),
        machine: &["-M", "netduinoplus2", "-icount", "shift=7"],
        has_serial: false,
        by_default: true,
    },
    Board {
        name: "nrf52840",
        target: "thumbv7em-none-eabihf",
        flash: 256 << 10,
        ram: 256 << 10,
        image: Place::Memory(0x0004_0000, 768 << 10),
        machine: &[],
        has_serial: false,
        by_default: false,
    },
    Board {
        name: "pico2",
        target: "thumbv8m.main-none-eabihf",
        flash: 512 << 10,
        ram: 512 << 10,
        image: Place::Memory(0x1008_0000, 3584 << 10),
        machine: &[],
        has_serial: false,
        by_default: false,
    },
    Board {
        name: "stm32h743",
        target: "thumbv7em-none-eabihf",
        flash: 2 << 20,
        ram: 512 << 10,
        image: Place::Card,
        machine: &[],
        has_serial: false,
        by_default: false,
    },
    Board {
        name: "virt-rv32",
        target: "riscv32imc-unknown-none-elf",
        flash: 256 << 10,
        ram: 384 << 10,
        image: Place::Memory(0x8004_0000, 3836 << 10),
        machine: &["-M", "virt", "-cpu", "rv32,f=off,d=off", "-bios", "none", "-icount", "shift=0"],
        has_serial: true,
        by_default: true,
    },
];

/// What a build of firmware plays: only one kind of model, so that it fits small flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Language models.
    Text,
    /// Int8 graphs.
    Int8,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Text, Self::Int8];

    /// The feature of each board's crate that links what it needs.
    pub(crate) fn feature(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int8 => "int8",
        }
    }
}

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

    /// Whether QEMU runs it.
    pub(crate) fn is_emulated(&self) -> bool {
        !self.machine.is_empty()
    }

    /// What compiles its firmware, as `rustc 1.95.0`.
    ///
    /// # Errors
    /// What to install.
    pub(crate) fn compiler(&self) -> Result<String> {
        Toolchain::find(self.target)?.compiler()
    }

    /// The QEMU that runs it.
    pub(crate) fn qemu(&self) -> &'static Tool {
        if self.target.starts_with("riscv32") { &tools::QEMU_RISCV32 } else { &tools::QEMU_ARM }
    }

    /// Builds the firmware that plays models of a kind, and returns its file. If QEMU runs it, it links only if no
    /// panic can be reached; of other boards, the chip's crates can panic.
    ///
    /// # Errors
    /// What to install, the compiler's, or a function that can panic.
    pub(crate) fn build(&self, kind: Kind) -> Result<PathBuf> {
        let without = if self.is_emulated() { ",assert-no-panic" } else { "" };
        let built =
            self.build_program(self.name, self.name, &format!("{}{without}", kind.feature()));
        built.map_err(|error| {
            format!("{error}\nif `omex_panic_is_reachable` is undefined, some code can panic")
        })
    }

    /// Builds the firmware that answers over a serial port.
    ///
    /// # Errors
    /// A board without one, what to install, or the compiler's.
    pub(crate) fn build_serial(&self) -> Result<PathBuf> {
        if !self.has_serial {
            return Err(format!("--serial: the {} is emulated without a serial port", self.name));
        }
        self.build_program(self.name, "serial", "text,int8,serial")
    }

    /// Builds an application of `boards/examples`. It links only if no panic can be reached.
    ///
    /// # Errors
    /// A board that they aren't for, what to install, or the compiler's.
    pub(crate) fn build_example(&self, name: &str) -> Result<PathBuf> {
        if self.name != EXAMPLES {
            return Err(format!(
                "--example: they are for the {EXAMPLES}, and this is the {}",
                self.name
            ));
        }
        self.build_program("examples", name, "assert-no-panic")
    }

    /// Builds a program of a folder of `boards/`.
    fn build_program(&self, folder: &str, program: &str, features: &str) -> Result<PathBuf> {
        let toolchain = Toolchain::find(self.target)?;
        let built = target_dir(toolchain.folder()).join("boards");
        let mut cargo = toolchain.cargo("build");
        // Of the package that lies there.
        cargo.args(["--release", "--quiet", "--bin", program]);
        cargo.args(["--no-default-features", "--features", features]);
        // There, cargo finds what the board's own builds are set up with.
        let place = root().join("boards").join(folder);
        run(cargo.arg("--target-dir").arg(&built).current_dir(place))?;
        Ok(built.join(self.target).join("release").join(program))
    }
}

//! What firmware of every board has in common. A board says where its image lies ([`Card`], [`Flash`], or a
//! [`Medium`] of its own) and gives an arena to one of the two applications:
//!
//! * [`run`] (feature `debugger`) does what the command line of a debugger asks, and says all there is to measure;
//!   [`end`] ends tests instead.
//!   `play` opens the image, `generate` makes text of a language model, `infer` outputs of inputs, `command` says
//!   what text is wanted, `report` prints, `memory` knows what was used, `counter` counts instructions, `host` is
//!   the computer at the other end of the debugger, and `arch` what differs from core to core.
//! * [`serve`] (feature `serial`) answers whoever types at the other end of a serial port.
//!
//! Firmware that does something else has [`with_model`], which gives it an engine; [`quantized`] and [`real`] are for
//! its inputs and outputs, and [`attended`] is the frame around what runs under a debugger.
//!
//! `soft_float` computes where the core can't, `image` is an image on a medium, `text` knows the tokenizer, and `inputs` makes inputs.
#![no_std]

#[cfg(feature = "debugger")]
#[cfg_attr(target_arch = "arm", path = "arch/cortex_m.rs")]
#[cfg_attr(target_arch = "riscv32", path = "arch/riscv32.rs")]
mod arch;
mod arena;
#[cfg(all(feature = "debugger", feature = "text"))]
mod command;
mod counter;
#[cfg(feature = "debugger")]
mod debugger;
mod failure;
#[cfg(all(feature = "debugger", feature = "text"))]
mod generate;
#[cfg(feature = "debugger")]
mod host;
mod image;
#[cfg(all(feature = "debugger", feature = "int8"))]
mod infer;
#[cfg(feature = "int8")]
mod inputs;
mod levels;
mod medium;
#[cfg(feature = "debugger")]
mod memory;
#[cfg(feature = "debugger")]
mod play;
#[cfg(feature = "debugger")]
mod report;
#[cfg(feature = "serial")]
mod serve;
#[cfg(all(target_arch = "arm", not(target_abi = "eabihf")))]
mod soft_float;
#[cfg(feature = "text")]
mod text;

pub use arena::Arena;
pub use counter::Counter;
#[cfg(feature = "debugger")]
pub use debugger::{attended, end, run};
pub use failure::Failure;
#[cfg(feature = "debugger")]
pub use host::Output;
#[cfg(all(feature = "debugger", feature = "int8"))]
pub use host::{COMMAND_BYTES, File, argument};
pub use image::with_model;
pub use levels::{quantized, real};
pub use medium::{Card, Counted, Flash, Medium};

#[cfg(feature = "serial")]
pub use serve::{Console, serve};

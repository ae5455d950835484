//! The core for C: `include/omex.h` is made of this file and those below, by cbindgen.
//!
//! `engine` opens an image, `source` reads it, `room` cuts up the caller's memory, `cores` shares work out,
//! `tensor` is for models that take arrays, `text` for those that take tokens, and `status` is what every
//! function returns. Nothing here allocates, and nothing is global.
//!
//! # Safety
//! All functions for C ask the same: pointers are null or point at what their types say, engines were made by
//! `omex_open`, and one thread at a time uses one.
#![no_std]
#![allow(clippy::missing_safety_doc, reason = "it is the same for all functions, and said above")]

// Where there is an operating system, what happens on a panic is the standard library's.
#[cfg(not(target_os = "none"))]
extern crate std;

mod cores;
mod engine;
#[cfg(target_os = "none")]
mod panic;
mod room;
mod source;
mod status;
mod tensor;
#[cfg(feature = "text")]
mod text;
#[cfg(feature = "text")]
mod text_state;

/// The version of this interface. It grows when a program that was compiled for the last one no longer works.
pub const VERSION: u32 = 1;

/// The version that the library was built with: compare it with OMEX_VERSION.
#[unsafe(no_mangle)]
pub extern "C" fn omex_version() -> u32 {
    VERSION
}

//! The host for C: `include/omex_host.h` is made of this file and those below, by cbindgen.
//!
//! `model` opens and plans, `text` generates and embeds, `arrays` is for models that take arrays, and `failure` keeps
//! panics on this side and what went wrong in words.
//!
//! # Safety
//! All functions for C ask the same: pointers are null or point at what their types say, models were made by
//! `omex_model_open` and not closed, and one thread at a time uses one.
#![allow(clippy::missing_safety_doc, reason = "it is the same for all functions, and said above")]

mod arrays;
mod failure;
mod model;
mod text;

/// The version of this interface. It grows when a program that was compiled for the last one no longer works.
pub const VERSION: u32 = 1;

/// The version that the library was built with: compare it with OMEX_HOST_VERSION.
#[unsafe(no_mangle)]
pub extern "C" fn omex_host_version() -> u32 {
    VERSION
}

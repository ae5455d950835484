//! Packages as other programs store models.

pub mod gguf;

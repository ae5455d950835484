//! skeleton
pub mod error;
pub mod import;
pub mod tokenizer;
pub use error::{Error, Result};

//! What OMEX asks of a machine, and nothing more.
//!
//! * [`Pager`]: where pages of weights come from (mapped flash, an SD card, a file).
//! * [`Parallel`]: how many cores there are, and how to run a closure on all of them.
//!
//! Implementations for common devices are in `omex-hal-adapters`; [`Serial`] is the one for a
//! single core.
#![no_std]

mod pager;
mod parallel;

pub use pager::{PageError, PageErrorKind, PageGeometry, Pager};
pub use parallel::{Parallel, Serial};

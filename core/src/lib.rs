//! Runs quantized neural networks in one fixed arena, paging weights in as it goes: no `std`, no
//! `alloc`, no knowledge of files or of architectures.
//!
//! # The layers, from bytes to words
//!
//! 1. An **image** ([`image`]) is a model as one run of bytes, behind an [`omex_hal::Pager`].
//!    [`image::open`] reads its header and tables into memory, checks them, and gives an
//!    [`engine::Model`].
//! 2. Its **program** ([`program`]) is what a model is once it is compiled: slots for values, ports,
//!    states, tensors by their address, and records, all read in place.
//! 3. Each record is an **operation** ([`ops`]): one file has its fields, what it reads and writes,
//!    how it is checked, how it is played, and what it costs.
//! 4. **States** ([`state`]) are what a text keeps from one pass to the next: keys and values, or the
//!    bytes of a recurrence.
//! 5. The **arena** ([`arena`]) is the one piece of memory that all of it lies in. Its [`arena::Layout`]
//!    follows from the program and the [`arena::Plan`], before anything runs.
//! 6. The **player** plays operation after operation. Weights come page by page, each with a checksum
//!    ([`page`]), and go through the kernels of an instruction set ([`simd`], [`quant`]), on as many
//!    cores as an [`omex_hal::Parallel`] has.
//! 7. The **engine** ([`engine::Engine`]) runs texts on it: a pass takes tokens of any sequences
//!    ([`pass`]) and leaves logits. Programs that take no tokens have [`engine::Engine::infer`].
//! 8. **Tokens**: [`token`] makes ids of a text and text of ids, [`sample`] chooses the next one, and
//!    [`generate`] goes round.
//!
//! Nothing here panics or allocates, whatever the bytes: what is wrong is a [`error::LoadError`] while
//! a model is opened, and a [`error::RunError`] while it runs.
//!
//! # An image, a pager, tokens
//!
//! The model in this image knows a sentence of eight words, each of which leads to the next.
//!
//! ```
//! use omex_core::{engine::Engine, generate::Generation, image, simd::PORTABLE};
//! use omex_core::sample::{Sampler, Sampling};
//! use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager, Serial};
//!
//! #[repr(align(16))]
//! struct Memory([u8; 16 << 10]);
//! /// An image in memory that can be addressed.
//! struct Flash(&'static [u8]);
//!
//! impl Pager for Flash {
//!     fn geometry(&self) -> PageGeometry {
//!         PageGeometry { page_size: 512, pages: self.0.len().div_ceil(512) as u32 }
//!     }
//!     fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
//!         let rest = self.0.get(page as usize * 512..).filter(|bytes| !bytes.is_empty());
//!         rest.ok_or(PageError { page, kind: PageErrorKind::OutOfRange })
//!     }
//!     fn discard(&mut self, _page: u32) {}
//! }
//!
//! let mut pager = Flash(include_bytes!("../tests/words.img"));
//! let (mut tables, mut memory) = ([0; 2048], Memory([0; 16 << 10]));
//! let (_, model, _) = image::open(&mut pager, PORTABLE.crc32c, &mut tables)?;
//! let bytes = model.layout(&pager)?.total() as usize;
//! let mut engine = Engine::new(model, &mut memory.0[..bytes], &mut pager, &PORTABLE, &Serial)?;
//! let greedy = Sampler::new(Sampling::GREEDY);
//! let mut text = Generation::prefill(&mut engine, greedy, &[3])?;
//! let words = core::iter::from_fn(|| text.next_token().transpose());
//! assert_eq!(words.collect::<Result<Vec<u32>, _>>()?, [4, 5, 6, 7, 8, 9, 10]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `omex-hal-adapters` has pagers for flash, cards and files; the library `omex` makes images.
#![no_std]

/// What functions of assembly begin with, which are not told what the target has: a core with the DSP extension, and
/// with a floating point unit.
#[cfg(all(dsp, armv8m))]
macro_rules! dsp_core {
    () => {
        ".cpu cortex-m33"
    };
}
/// As above.
#[cfg(all(dsp, not(armv8m)))]
macro_rules! dsp_core {
    () => {
        ".cpu cortex-m4"
    };
}

pub mod arena;
mod columns;
mod convolve;
pub mod draft;
pub mod engine;
pub mod error;
pub mod fixed_point;
pub mod generate;
pub mod image;
pub mod math;
pub mod ops;
pub mod page;
pub mod pass;
mod plan;
pub mod program;
pub mod quant;
mod rows;
pub mod sample;
pub mod simd;
pub mod state;
pub mod token;

//! What OMEX asks of a machine, and nothing more.
//!
//! * [`Pager`]: where pages of weights come from (mapped flash, an SD card, a file). The engine asks
//!   for them in the order of use, over and over, and checks what it gets.
//! * [`Parallel`]: how many cores there are, and how to run a closure on all of them. [`Serial`] is the
//!   one for a single core.
//!
//! Nothing here knows what a tensor or a model is. On top of it lies `omex-core`, which plays models;
//! `omex-hal-adapters` has pagers for common devices, wrappers that inject faults and that trace, and
//! a conformance suite for pagers of your own.
//!
//! ```
//! use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager, Parallel, Serial};
//! use std::sync::atomic::{AtomicU32, Ordering};
//!
//! /// A device that is read page by page, into room for one.
//! struct Card {
//!     device: Vec<u8>,
//!     page: [u8; 512],
//!     held: Option<u32>,
//! }
//!
//! impl Pager for Card {
//!     fn geometry(&self) -> PageGeometry {
//!         PageGeometry { page_size: 512, pages: self.device.len().div_ceil(512) as u32 }
//!     }
//!     fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
//!         let bytes = self.device.chunks(512).nth(page as usize);
//!         let bytes = bytes.ok_or(PageError { page, kind: PageErrorKind::OutOfRange })?;
//!         if self.held.replace(page) != Some(page) {
//!             self.page[..bytes.len()].copy_from_slice(bytes);
//!         }
//!         Ok(&self.page[..bytes.len()])
//!     }
//!     fn discard(&mut self, _page: u32) {
//!         self.held = None;
//!     }
//! }
//!
//! let mut card = Card { device: vec![1; 1000], page: [0; 512], held: None };
//! let (last, sum) = (card.page(1)?, AtomicU32::new(0));
//! Serial.run(last.len(), &|i| _ = sum.fetch_add(last[i].into(), Ordering::Relaxed));
//! assert_eq!(sum.into_inner(), 488);
//! # Ok::<(), PageError>(())
//! ```
#![no_std]

mod pager;
mod parallel;

pub use pager::{PageError, PageErrorKind, PageGeometry, Pager};
pub use parallel::{Parallel, Serial};

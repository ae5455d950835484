//! Ready-made [`Pager`](omex_hal::Pager)s, for boards that have common devices.
//!
//! * Memory that can be addressed (flash that runs in place, a mapped file): [`SlicePager`], which
//!   copies nothing.
//! * Everything else is a [`Storage`] behind a [`BufferedPager`], which reads ahead into memory that
//!   the caller gives it: [`Blocks`] (SD cards and other [`BlockDevice`]s), [`Seekable`]
//!   (`embedded-io`'s `Read + Seek`), [`NorFlash`] (`embedded-storage`'s `ReadNorFlash`).
//! * [`SdCard`] drives an SD card over SPI (`embedded-hal`'s `SpiBus`).
//! * `TwoCores` has a chip's second core help (`omex-hal`'s [`Parallel`](omex_hal::Parallel)), where it has atomics.
//! * Around any pager: [`FaultyPager`] makes a device fail as devices do, and [`TracingPager`] tells
//!   what is asked of it.
//! * [`conformance::check`] and [`conformance::check_reads`] test a pager of your own.
//!
//! ```
//! use omex_hal::Pager;
//! use omex_hal_adapters::{Block, BlockDevice, Blocks, BufferedPager, StorageError, conformance};
//!
//! struct Card(Vec<u8>);
//!
//! impl BlockDevice for Card {
//!     fn read_blocks(&mut self, first: u32, out: &mut [Block]) -> Result<(), StorageError> {
//!         let bytes = self.0.get(first as usize * 512..).ok_or(StorageError::End)?;
//!         let bytes = bytes.get(..out.len() * 512).ok_or(StorageError::End)?;
//!         out.as_flattened_mut().copy_from_slice(bytes);
//!         Ok(())
//!     }
//! }
//!
//! let weights: Vec<u8> = (0..8192u32).map(|i| (i / 3) as u8).collect();
//! let mut memory = [0; 4 * 1024]; // Room for four pages.
//! let mut pager = BufferedPager::new(Blocks(Card(weights.clone())), &mut memory, 1024, 8000)?;
//! assert_eq!(pager.page(3)?, &weights[3072..4096]);
//! conformance::check(&mut pager, &weights[..8000])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]

mod announced;
mod block;
mod buffered;
pub mod conformance;
mod faulty;
mod nor_flash;
mod sd_card;
mod seekable;
mod slice;
#[cfg(test)]
mod testing;
mod tracing;
#[cfg(target_has_atomic = "ptr")]
mod two_cores;

pub use block::{BLOCK_BYTES, Block, BlockDevice, Blocks};
pub use buffered::{BufferedPager, SetupError, Storage, StorageError};
pub use faulty::{Faults, FaultyPager};
pub use nor_flash::NorFlash;
pub use sd_card::{SdCard, SdCardError};
pub use seekable::Seekable;
pub use slice::SlicePager;
pub use tracing::{Counters, Event, TracingPager};
#[cfg(target_has_atomic = "ptr")]
pub use two_cores::TwoCores;

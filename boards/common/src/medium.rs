//! Where a board's image lies.

use crate::counter::Counter;
use core::cell::{Cell, RefCell};
use omex_hal::Pager;
use omex_hal_adapters::{
    BLOCK_BYTES, Block, BlockDevice, Blocks, BufferedPager, SetupError, SlicePager, StorageError,
};

/// What an image begins with: its pages are the device's.
pub trait Medium {
    /// How it is read.
    type Pager<'m>: Pager
    where
        Self: 'm;

    /// Pages are read into memory, so that a pager needs a page's.
    const COPIES: bool;

    /// The first `length` bytes in pages of `page_size`, read into `memory` if they are copied.
    ///
    /// # Errors
    /// Pages that don't suit the device, or too little memory.
    fn pager<'m>(
        &'m self,
        memory: &'m mut [u8],
        page_size: u32,
        length: u64,
    ) -> Result<Self::Pager<'m>, SetupError>;

    /// Bytes read since the start, if they are copied.
    fn bytes_read(&self) -> Option<u64>;

    /// What counts the instructions of its board, if anything does.
    fn counter(&self) -> Option<Counter> {
        None
    }
}

/// A card of 512-byte blocks, shared by those who read it.
pub struct Card<D> {
    device: RefCell<D>,
    bytes_read: Cell<u64>,
}

impl<D: BlockDevice> Card<D> {
    /// A card that was started.
    pub fn new(device: D) -> Self {
        Self { device: RefCell::new(device), bytes_read: Cell::new(0) }
    }
}

impl<D: BlockDevice> BlockDevice for &Card<D> {
    fn read_blocks(&mut self, first: u32, out: &mut [Block]) -> Result<(), StorageError> {
        self.bytes_read.set(self.bytes_read.get() + (out.len() * BLOCK_BYTES) as u64);
        (&self.device).read_blocks(first, out)
    }

    fn want(&mut self, first: u32) {
        (&self.device).want(first);
    }
}

impl<D: BlockDevice> Medium for Card<D> {
    type Pager<'m>
        = BufferedPager<'m, Blocks<&'m Self>>
    where
        Self: 'm;

    const COPIES: bool = true;

    fn pager<'m>(
        &'m self,
        memory: &'m mut [u8],
        page_size: u32,
        length: u64,
    ) -> Result<Self::Pager<'m>, SetupError> {
        BufferedPager::new(Blocks(self), memory, page_size, length)
    }

    fn bytes_read(&self) -> Option<u64> {
        Some(self.bytes_read.get())
    }
}

/// Flash that can be addressed: nothing is copied.
pub struct Flash(pub &'static [u8]);

impl Medium for Flash {
    type Pager<'m> = SlicePager<'static>;

    const COPIES: bool = false;

    fn pager<'m>(
        &'m self,
        _: &'m mut [u8],
        page_size: u32,
        length: u64,
    ) -> Result<Self::Pager<'m>, SetupError> {
        // An image that ends beyond the flash is found out when its last page is wanted.
        let bytes = usize::try_from(length).ok().and_then(|length| self.0.get(..length));
        SlicePager::new(bytes.unwrap_or(self.0), page_size)
    }

    fn bytes_read(&self) -> Option<u64> {
        None
    }
}

/// A medium of a board that counts instructions.
pub struct Counted<M>(pub M, pub Counter);

impl<M: Medium> Medium for Counted<M> {
    type Pager<'m>
        = M::Pager<'m>
    where
        Self: 'm;

    const COPIES: bool = M::COPIES;

    fn pager<'m>(
        &'m self,
        memory: &'m mut [u8],
        page_size: u32,
        length: u64,
    ) -> Result<Self::Pager<'m>, SetupError> {
        self.0.pager(memory, page_size, length)
    }

    fn bytes_read(&self) -> Option<u64> {
        self.0.bytes_read()
    }

    fn counter(&self) -> Option<Counter> {
        Some(self.1)
    }
}

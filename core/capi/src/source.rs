//! Where an image lies.

use crate::room::{OMEX_ALIGNMENT, Room};
use crate::status::Status;
use core::ffi::c_void;
use core::ops::Range;
use omex_core::image::{self, Extent, HEADER_BYTES, ImageHeader};
use omex_core::simd::PORTABLE;
use omex_core::token::{SourceError, TableSource};
use omex_hal::{PageError, PageGeometry, Pager};
use omex_hal_adapters::{BufferedPager, SlicePager, Storage, StorageError};

/// What reads begin on and are multiples of, in bytes.
pub const OMEX_BLOCK: usize = 512;

/// Reads bytes of an image; returns 0, or anything else if they can't be had. Offset and length are multiples
/// of OMEX_BLOCK; what lies behind the end of the image may be anything.
pub type ReadFn = Option<
    unsafe extern "C" fn(context: *mut c_void, offset: u64, out: *mut u8, length: usize) -> i32,
>;

/// Where an image lies: in memory that can be addressed, as flash or a mapped file, or anywhere else.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Source {
    /// The image, on a multiple of OMEX_ALIGNMENT: it stays, and does not change. Weights and tables are used
    /// where they lie. Null if it is read.
    pub mapped: *const u8,
    /// Bytes of it.
    pub length: usize,
    /// Reads it, if it is not mapped.
    pub read: ReadFn,
    /// Given to `read`.
    pub context: *mut c_void,
}

/// A source that was checked.
#[derive(Clone, Copy)]
pub(crate) enum Checked {
    Mapped(&'static [u8]),
    Read(Callback),
}

/// The caller's function.
#[derive(Clone, Copy)]
pub(crate) struct Callback {
    read: unsafe extern "C" fn(*mut c_void, u64, *mut u8, usize) -> i32,
    context: *mut c_void,
}

impl Storage for Callback {
    const READ_BYTES: u32 = OMEX_BLOCK as u32;

    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), StorageError> {
        // SAFETY: the caller gave both, and promises that the function fills so many bytes and no others.
        let result = unsafe { (self.read)(self.context, offset, out.as_mut_ptr(), out.len()) };
        if result == 0 { Ok(()) } else { Err(StorageError::Device) }
    }
}

impl Source {
    /// # Safety
    /// What is mapped stays, and is not written to.
    pub(crate) unsafe fn check(&self) -> Result<Checked, Status> {
        if self.mapped.is_null() {
            let read = self.read.ok_or(Status::Argument)?;
            return Ok(Checked::Read(Callback { read, context: self.context }));
        }
        if !self.mapped.addr().is_multiple_of(OMEX_ALIGNMENT) {
            return Err(Status::Alignment);
        }
        if self.length > isize::MAX as usize {
            return Err(Status::Argument);
        }
        // SAFETY: the caller says that so many bytes lie there, stay there, and are not written to.
        Ok(Checked::Mapped(unsafe { core::slice::from_raw_parts(self.mapped, self.length) }))
    }
}

impl Checked {
    /// What the image begins with.
    #[inline(never)]
    pub(crate) fn header(self) -> Result<ImageHeader, Status> {
        let (mut block, mut bytes) = ([0; OMEX_BLOCK], [0; HEADER_BYTES]);
        let mut pages = self.pages(&mut block, OMEX_BLOCK as u32, HEADER_BYTES as u64)?;
        let read = image::read(&mut pages, 0, &mut bytes);
        // What ends before its header is over is no image.
        let missing = |status| if status == Status::Damaged { Status::NotAnImage } else { status };
        read.map_err(|error| missing(error.into()))?;
        Ok(ImageHeader::parse(&bytes, PORTABLE.crc32c)?)
    }

    /// The first `length` bytes in pages, which are read into `memory` if they are not mapped.
    pub(crate) fn pages(
        self,
        memory: &mut [u8],
        page_size: u32,
        length: u64,
    ) -> Result<Pages<'_>, Status> {
        Ok(match self {
            Self::Mapped(image) => {
                // An image that is cut short is found out when its last page is wanted.
                let end = usize::try_from(length).unwrap_or(usize::MAX).min(image.len());
                let image = image.get(..end).unwrap_or(image);
                Pages::Mapped(SlicePager::new(image, page_size)?)
            }
            Self::Read(callback) => {
                Pages::Read(BufferedPager::new(callback, memory, page_size, length)?)
            }
        })
    }

    /// A section: where it lies, or read into the arena. `None` if it has no room for it.
    pub(crate) fn section(
        self,
        extent: Extent,
        room: &mut Room,
    ) -> Result<Option<&'static [u8]>, Status> {
        let bytes: &'static [u8] = match self {
            Self::Mapped(image) => {
                let bytes = range(extent).and_then(|range| image.get(range));
                bytes.ok_or(Status::Damaged)?
            }
            Self::Read(_) => {
                let Some(out) = room.take(extent.length) else { return Ok(None) };
                if room.free().len() < OMEX_BLOCK {
                    return Ok(None);
                }
                let end = extent.offset.saturating_add(extent.length);
                let mut pages = self.pages(room.free(), OMEX_BLOCK as u32, end)?;
                image::read(&mut pages, extent.offset, out)?;
                out
            }
        };
        let whole = (PORTABLE.crc32c)(0, bytes) == extent.crc32c;
        if whole { Ok(Some(bytes)) } else { Err(Status::Damaged) }
    }
}

fn range(extent: Extent) -> Option<Range<usize>> {
    let (start, length) =
        (usize::try_from(extent.offset).ok()?, usize::try_from(extent.length).ok()?);
    Some(start..start.checked_add(length)?)
}

/// An image's pages.
pub(crate) enum Pages<'m> {
    Mapped(SlicePager<'static>),
    Read(BufferedPager<'m, Callback>),
}

impl<'m> Pages<'m> {
    fn pager(&self) -> &(dyn Pager + 'm) {
        match self {
            Self::Mapped(pager) => pager,
            Self::Read(pager) => pager,
        }
    }

    fn pager_mut(&mut self) -> &mut (dyn Pager + 'm) {
        match self {
            Self::Mapped(pager) => pager,
            Self::Read(pager) => pager,
        }
    }
}

impl Pager for Pages<'_> {
    fn geometry(&self) -> PageGeometry {
        self.pager().geometry()
    }

    fn is_stable(&self, page: u32) -> bool {
        self.pager().is_stable(page)
    }

    fn is_mapped(&self) -> bool {
        self.pager().is_mapped()
    }

    fn want(&mut self, pages: Range<u32>) {
        self.pager_mut().want(pages);
    }

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        self.pager_mut().page(page)
    }

    fn discard(&mut self, page: u32) {
        self.pager_mut().discard(page);
    }

    fn intact(&self) -> Result<(), PageError> {
        self.pager().intact()
    }
}

/// The tokenizer's tables, left in the image.
pub(crate) struct Tables {
    pages: Pages<'static>,
    extent: Extent,
}

impl Tables {
    /// Those that lie at `extent`.
    pub(crate) fn open(pages: Pages<'static>, extent: Extent) -> Result<Self, Status> {
        let mut tables = Self { pages, extent };
        let (mut at, mut crc, mut bytes) = (0, 0, [0; 64]);
        while at < extent.length {
            let left = usize::try_from(extent.length - at).unwrap_or(usize::MAX);
            let length = left.min(bytes.len());
            let bytes = bytes.get_mut(..length).unwrap_or_default();
            image::read(&mut tables.pages, extent.offset.saturating_add(at), bytes)?;
            crc = (PORTABLE.crc32c)(crc, bytes);
            at += length as u64;
        }
        if crc == extent.crc32c { Ok(tables) } else { Err(Status::Damaged) }
    }
}

impl TableSource for Tables {
    fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), SourceError> {
        if u64::from(offset) + out.len() as u64 > self.extent.length {
            return Err(SourceError);
        }
        let address = self.extent.offset.saturating_add(offset.into());
        image::read(&mut self.pages, address, out).map_err(|_| SourceError)
    }
}

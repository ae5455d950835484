//! The flash image: a model as one run of bytes, ready for a board.
//!
//! The first [`HEADER_BYTES`] bytes say where the sections lie; `docs/format.md` draws them. The
//! pages of the device begin with the image, so that everything in it can be paged.

use crate::engine::Model;
use crate::error::{Lack, LoadError, Section};
use crate::plan::Plan;
use crate::program::{Needs, Program};
use crate::state::kv::KvFormat;
use omex_hal::Pager;

/// How an image begins.
pub const MAGIC: [u8; 8] = *b"OMEXIMG\0";
/// The version that this code reads and writes.
pub const VERSION: u32 = 2;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 256;
/// Number of sections.
const SECTIONS: usize = 5;

/// Where a section lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// First byte, from the image's start.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// CRC-32C of the bytes; 0 for the pages, which have a checksum each.
    pub crc32c: u32,
}

/// The header of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// Bytes a page, a power of two from 512 to 2^24.
    pub page_size: u32,
    /// What was decided for the device: always for one sequence.
    pub plan: Plan,
    /// Memory that the plan was made for, in bytes.
    pub ram_bytes: u32,
    /// What the program needs of a build that plays it.
    pub needs: Needs,
    /// The program: [`crate::program::Header`], tables and operations.
    pub program: Extent,
    /// The tensor table; addresses are bytes from the image's start.
    pub tensors: Extent,
    /// The tokenizer's tables, for [`crate::token`]; empty if the model has none.
    pub tokenizer: Extent,
    /// CRC-32C of each page of weights.
    pub checksums: Extent,
    /// The weights; begins on a page.
    pub pages: Extent,
}

impl ImageHeader {
    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self, crc32c: fn(u32, &[u8]) -> u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut writer = Writer(&mut bytes);
        writer.put(&MAGIC);
        let plan = &self.plan;
        let numbers = [
            VERSION,
            self.page_size,
            plan.columns,
            plan.logit_columns,
            plan.kv_capacity,
            plan.kv_sinks,
            self.ram_bytes,
            plan.kv_format as u32,
        ];
        numbers.iter().for_each(|n| writer.put(&n.to_le_bytes()));
        for extent in [self.program, self.tensors, self.tokenizer, self.checksums, self.pages] {
            writer.put(&extent.offset.to_le_bytes());
            writer.put(&extent.length.to_le_bytes());
            writer.put(&extent.crc32c.to_le_bytes());
            writer.put(&[0; 4]);
        }
        self.needs.ops.iter().for_each(|bits| writer.put(&bits.to_le_bytes()));
        writer.put(&self.needs.formats.to_le_bytes());
        let (covered, crc) = bytes.split_at_mut(HEADER_BYTES - 4);
        crc.copy_from_slice(&crc32c(0, covered).to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// Another magic or version, a checksum that does not match, or numbers that can't be.
    pub fn parse(
        bytes: &[u8; HEADER_BYTES],
        crc32c: fn(u32, &[u8]) -> u32,
    ) -> Result<Self, LoadError> {
        let damaged = LoadError::Section(Section::Header);
        let mut reader = Reader(bytes);
        if reader.take() != Some(MAGIC) {
            return Err(LoadError::Magic);
        }
        let mut number = || reader.take().map(u32::from_le_bytes).ok_or(damaged);
        let version = number()?;
        if version != VERSION {
            return Err(LoadError::Version(version));
        }
        let page_size = number()?;
        let [columns, logit_columns] = [number()?, number()?];
        let [kv_capacity, kv_sinks, ram_bytes] = [number()?, number()?, number()?];
        let kv_format = KvFormat::from_number(number()?).ok_or(damaged)?;
        let sequences = 1;
        let plan = Plan { columns, logit_columns, kv_capacity, kv_sinks, kv_format, sequences };
        let mut extents = [Extent::default(); SECTIONS];
        for extent in &mut extents {
            *extent = reader.extent().ok_or(damaged)?;
        }
        let [program, tensors, tokenizer, checksums, pages] = extents;
        let mut needs = Needs::default();
        for bits in &mut needs.ops {
            *bits = reader.take().map(u64::from_le_bytes).ok_or(damaged)?;
        }
        needs.formats = reader.take().map(u32::from_le_bytes).ok_or(damaged)?;
        let (covered, crc) = bytes.split_at(HEADER_BYTES - 4);
        let valid_page = page_size.is_power_of_two() && (512..=1 << 24).contains(&page_size);
        let aligned = pages.offset.is_multiple_of(u64::from(page_size.max(1)));
        if crc != crc32c(0, covered).to_le_bytes() || !valid_page || !aligned {
            return Err(damaged);
        }
        if let Some(lack) = needs.lack() {
            return Err(LoadError::Lack(lack));
        }
        if !kv_format.is_played() {
            return Err(LoadError::Lack(Lack::Kv(kv_format)));
        }
        Ok(Self {
            page_size,
            plan,
            ram_bytes,
            needs,
            program,
            tensors,
            tokenizer,
            checksums,
            pages,
        })
    }

    /// Bytes of the sections that a board keeps in memory.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        [self.program, self.tensors, self.checksums]
            .iter()
            .fold(0, |sum, e| sum.saturating_add(e.length))
    }
}

/// Opens an image: reads its header and the sections that stay in memory into `resident`, and
/// checks them. Returns the model and what is left of `resident`, which is
/// `[ImageHeader::resident_bytes()]` or longer, on any address.
///
/// # Errors
/// Pages that can't be read, or contents that are damaged or do not fit together.
pub fn open<'a>(
    pager: &mut dyn Pager,
    crc32c: fn(u32, &[u8]) -> u32,
    resident: &'a mut [u8],
) -> Result<(ImageHeader, Model<'a>, &'a mut [u8]), LoadError> {
    let mut bytes = [0; HEADER_BYTES];
    read(pager, 0, &mut bytes)?;
    let header = ImageHeader::parse(&bytes, crc32c)?;
    if header.page_size != pager.geometry().page_size {
        return Err(LoadError::Section(Section::Header));
    }
    let (needed, given) = (header.resident_bytes(), resident.len() as u64);
    let mut rest = resident;
    let mut load = |extent: Extent, section| -> Result<&'a [u8], LoadError> {
        let whole = core::mem::take(&mut rest);
        let (part, behind) = usize::try_from(extent.length)
            .ok()
            .and_then(|length| whole.split_at_mut_checked(length))
            .ok_or(LoadError::Memory { needed, given })?;
        rest = behind;
        read(pager, extent.offset, part)?;
        if crc32c(0, part) == extent.crc32c { Ok(part) } else { Err(LoadError::Section(section)) }
    };
    let program = load(header.program, Section::Program)?;
    let tensors = load(header.tensors, Section::Tensors)?;
    let (checksums, odd) = load(header.checksums, Section::Checksums)?.as_chunks();
    let end = header.pages.offset.checked_add(header.pages.length);
    let end = end.ok_or(LoadError::Section(Section::Pages))?;
    let page_size = u64::from(header.page_size.max(1));
    if !odd.is_empty() || checksums.len() as u64 != header.pages.length.div_ceil(page_size) {
        return Err(LoadError::Section(Section::Checksums));
    }
    let first_checked = u32::try_from(header.pages.offset / page_size)
        .map_err(|_| LoadError::Section(Section::Pages))?;
    let program = Program::parse(program, tensors, header.pages.offset..end)?;
    let model = Model { program, plan: header.plan, end, checksums, first_checked };
    Ok((header, model, rest))
}

/// Fills `out`, of any length, with the bytes from `offset` on, from anywhere in a pager's pages.
///
/// # Errors
/// The pager's.
pub fn read(pager: &mut dyn Pager, offset: u64, out: &mut [u8]) -> Result<(), LoadError> {
    let page_size = u64::from(pager.geometry().page_size.max(1));
    let mut address = offset;
    let mut rest = out;
    while !rest.is_empty() {
        let page = u32::try_from(address / page_size).unwrap_or(u32::MAX);
        let within = (address % page_size) as usize;
        let bytes = pager.page(page)?.get(within..).unwrap_or_default();
        let length = bytes.len().min(rest.len());
        let (now, later) = core::mem::take(&mut rest).split_at_mut(length);
        let source = bytes.get(..length).filter(|b| !b.is_empty());
        let kind = omex_hal::PageErrorKind::Truncated;
        now.copy_from_slice(source.ok_or(omex_hal::PageError { page, kind })?);
        rest = later;
        address += length as u64;
    }
    Ok(())
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn extent(&mut self) -> Option<Extent> {
        let offset = u64::from_le_bytes(self.take()?);
        let length = u64::from_le_bytes(self.take()?);
        let crc32c = u32::from_le_bytes(self.take()?);
        self.take::<4>()?;
        Some(Extent { offset, length, crc32c })
    }
}

struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    /// Appends bytes; the header has room for all of them.
    fn put(&mut self, bytes: &[u8]) {
        if let Some((now, later)) = core::mem::take(&mut self.0).split_at_mut_checked(bytes.len()) {
            now.copy_from_slice(bytes);
            self.0 = later;
        }
    }
}

//! The flash image: writing one from a package, and opening one on the host.

use crate::bands::{self, Bands};
use crate::cancel::Cancel;
use crate::compile::largest_operation;
use crate::durable::{create_beside, persist};
use crate::import::unconverted;
use crate::package::validate::Report;
use crate::package::{CONVERT_AGAIN, Package, TensorEntry};
use crate::page_writer::PageWriter;
use crate::plan::{Kv, kv_format};
use crate::{Error, Result, dispatch, input};
use omex_core::arena::{Layout, Plan};
use omex_core::error::LoadError;
use omex_core::image::{Extent, HEADER_BYTES, ImageHeader};
use omex_core::program::{Needs, Program};
use omex_core::simd::LANES;
use omex_core::state::kv::KvFormat;
use omex_core::token::Tokenizer;
use serde::Serialize;
use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use tempfile::NamedTempFile;

/// What an image is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Memory of the board in bytes.
    pub ram: u64,
    /// Bytes of it that the firmware needs for itself: stack and static variables.
    pub reserve: u64,
    /// The image lies where it can be addressed, as in flash: no pages are copied to memory.
    pub mapped: bool,
    /// Bytes a page; chosen from `ram` if `None`.
    pub page_size: Option<u32>,
    /// Tokens in one pass of the prompt; chosen from `ram` if `None`.
    pub columns: Option<u32>,
    /// Positions of the KV cache; as many as fit if `None`.
    pub context: Option<u32>,
    /// How keys and values are stored; if `None`, by the model's precision, but in bytes where more
    /// positions fit and otherwise not all do.
    pub kv: Option<Kv>,
}

/// Pages that a board holds at once.
pub const RING_PAGES: u64 = 2;

/// Where every byte of the board's memory goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BoardPlan {
    /// Memory of the board.
    pub ram: u64,
    /// Stack and static variables of the firmware.
    pub reserve: u64,
    /// Program, tensor table and checksums.
    pub tables: u64,
    /// Pages of weights.
    pub ring: u64,
    /// Keys and values.
    pub kv_cache: u64,
    /// Activations, logits included.
    pub activations: u64,
    /// Positions that the KV cache holds.
    pub context: u32,
    /// The first of them, which stay for ever.
    pub sinks: u32,
    /// Positions that the model was trained for; 0 if it has none.
    pub model_context: u32,
    /// How keys and values are stored.
    pub kv_format: Kv,
    /// Tokens in one pass of the prompt.
    pub prefill_chunk: u32,
    /// Bytes a page.
    pub page_size: u32,
    /// Bytes of the image.
    pub image: u64,
    /// Operations over images that are played in bands, where the memory has no room for whole images.
    pub bands: Option<Bands>,
}

impl BoardPlan {
    /// What is played in bands, and what that costs.
    #[must_use]
    pub fn banded(&self) -> Option<String> {
        let Bands { first, end, count, extra_products } = self.bands?;
        Some(format!(
            "operations {first} to {} are played in {count} bands of rows, since their images have no room as a \
             whole: {extra_products} products more, the same output",
            end - 1
        ))
    }

    /// Where a text loses its thread, if the KV cache is shorter than what the model was trained for.
    #[must_use]
    pub fn thread(&self) -> Option<String> {
        let Self { context, sinks, model_context, .. } = *self;
        (context < model_context).then(|| {
            format!(
                "a text keeps its thread for {context} tokens, prompt included, of the {model_context} \
                 that the model was trained for; from there on, a token sees only the first {sinks} \
                 and the last {} before it",
                context - sinks
            )
        })
    }
}

/// Packs a package into a flash image; the file appears whole or not at all.
///
/// # Errors
/// A board too small for the model, with the shortfall, or files that can't be read or written.
pub fn pack(
    package: &Package,
    target: &Target,
    output: &Path,
    cancel: &Cancel,
) -> Result<BoardPlan> {
    let (plan, mut image) = fit(package, target)?;
    image.write(output, cancel)?;
    Ok(plan)
}

/// Where every byte of the board's memory will go.
///
/// # Errors
/// A board too small for the model, with the shortfall.
pub fn plan(package: &Package, target: &Target) -> Result<BoardPlan> {
    fit(package, target).map(|(plan, _)| plan)
}

/// The largest plan that fits the board, and what writes its image: operations over images are played in bands if
/// there is no room for whole ones.
fn fit<'p>(package: &'p Package, target: &Target) -> Result<(BoardPlan, Writer<'p>)> {
    let page_size = target.page_size.unwrap_or(if target.ram <= 128 << 10 { 1024 } else { 4096 });
    if !page_size.is_power_of_two() || !(512..=1 << 20).contains(&page_size) {
        let message =
            format!("--page-size: found {page_size}, expected a power of two from 512 to 1048576");
        return Err(Error::Usage(message));
    }
    let whole = Writer::new(Cow::Borrowed(package), page_size, target);
    let Err(Error::Budget { needed: mut least, given }) = whole else { return whole };
    let graph = &package.graph;
    for way in bands::ways(graph, largest_operation(graph).unwrap_or(0)) {
        let Some(graph) = bands::cut(graph, way) else { continue };
        let banded = package.clone().with_graph(graph).map_err(Error::Usage)?;
        match Writer::new(Cow::Owned(banded), page_size, target) {
            Err(Error::Budget { needed, .. }) => least = least.min(needed),
            fits => {
                return fits.map(|(plan, image)| (BoardPlan { bands: Some(way), ..plan }, image));
            }
        }
    }
    Err(Error::Budget { needed: least, given })
}

struct Writer<'p> {
    package: Cow<'p, Package>,
    header: ImageHeader,
    tensors: Vec<u8>,
    /// Where each tensor of the index goes.
    places: Vec<u64>,
}

impl<'p> Writer<'p> {
    /// Decides where everything lies in the image, and in the board's memory.
    fn new(
        package: Cow<'p, Package>,
        page_size: u32,
        target: &Target,
    ) -> Result<(BoardPlan, Self)> {
        let index = &package.index;
        let mut places = vec![];
        let mut length = 0u64;
        for tensor in &index.tensors {
            length = length.next_multiple_of(16);
            places.push(length);
            length += tensor.length;
        }
        let section = |offset: u64, length: u64| Extent { offset, length, crc32c: 0 };
        let after = |e: Extent| (e.offset + e.length).next_multiple_of(16);
        let program = section(HEADER_BYTES as u64, package.compiled.program.len() as u64);
        let tensors = section(after(program), package.compiled.tensors.len() as u64);
        let checksums = section(after(tensors), 4 * length.div_ceil(u64::from(page_size)));
        let tokenizer = package.tokenizer_tables().unwrap_or_default().len() as u64;
        let tokenizer = section(after(checksums), tokenizer);
        let pages = section(after(tokenizer).next_multiple_of(u64::from(page_size)), length);
        places.iter_mut().for_each(|to| *to += pages.offset);
        let kv_format = target.kv.map_or(kv_format(&package.program()?), Kv::format);
        let (columns, kv_capacity, kv_sinks) = (1, 1, 0);
        let plan =
            Plan { columns, logit_columns: 1, kv_capacity, kv_sinks, kv_format, sequences: 1 };
        let needs = Needs::of(&package.program()?);
        let header = ImageHeader {
            page_size,
            plan,
            ram_bytes: u32::try_from(target.ram).unwrap_or(u32::MAX),
            needs,
            program,
            tensors,
            tokenizer,
            checksums,
            pages,
        };
        let mut tensors_by_name = index.by_name();
        for (entry, to) in index.tensors.iter().zip(&places) {
            if let Some(tensor) = tensors_by_name.get_mut(&(entry.name.as_str(), entry.plane)) {
                tensor.address = *to;
            }
        }
        let mut table = vec![];
        for (name, plane) in &package.compiled.names {
            let tensor = tensors_by_name.get(&(name.as_str(), *plane));
            let tensor = tensor.ok_or_else(|| Error::Usage(format!("no tensor {name}")))?;
            table.extend(tensor.to_record());
        }
        let mut image = Self { package, header, tensors: table, places };
        let (board, plan) = image.best(target)?;
        image.header.plan = plan;
        Ok((board, image))
    }

    /// The largest plan that fits the board, with bytes as keys and values where that holds more of a text
    /// than floats do.
    fn best(&mut self, target: &Target) -> Result<(BoardPlan, Plan)> {
        let floats = self.fit(target);
        let wanted = target.context.unwrap_or(self.package.program()?.header().context_length);
        let positions = floats.as_ref().map_or(0, |(_, plan)| plan.kv_capacity);
        let default = self.header.plan.kv_format == KvFormat::Half && target.kv.is_none();
        if positions >= wanted.max(1) || !default {
            return floats;
        }
        self.header.plan.kv_format = KvFormat::Int8;
        match self.fit(target) {
            Ok(bytes) if bytes.1.kv_capacity > positions => Ok(bytes),
            _ => floats,
        }
    }

    /// The largest plan that fits the board, with this format of keys and values.
    fn fit(&self, target: &Target) -> Result<(BoardPlan, Plan)> {
        let program = self.package.program()?;
        let tables = self.header.resident_bytes();
        let page_size = u64::from(self.header.page_size);
        let pages = self.length().div_ceil(page_size);
        let (ring, stable) = if target.mapped { (0, pages) } else { (RING_PAGES * page_size, 0) };
        let budget = target.ram.saturating_sub(target.reserve);
        let layout = |columns, kv_capacity: u32| {
            let kv_sinks = 4.min(kv_capacity.saturating_sub(1));
            let kv_format = self.header.plan.kv_format;
            let (logit_columns, sequences) = (1, 1);
            let plan = Plan { columns, logit_columns, kv_capacity, kv_sinks, kv_format, sequences };
            let layout = Layout::new(&program, &plan, u32::try_from(stable).unwrap_or(u32::MAX));
            let layout = layout.map_err(|error| Error::load(&self.package.path, error))?;
            let carry = if target.mapped { 0 } else { layout.carry };
            Ok::<_, Error>((plan, Layout { carry, ..layout }))
        };
        let least_context = target.context.unwrap_or(1);
        let columns = match target.columns {
            Some(columns) => columns,
            None => {
                let small = |c: &u32| layout(*c, 1).is_ok_and(|(_, l)| l.total() <= budget / 6);
                [8, 4, 2].into_iter().find(small).unwrap_or(1)
            }
        };
        let (_, smallest) = layout(columns, least_context)?;
        let needed = smallest.total() + tables + ring;
        if needed > budget {
            let (needed, given) = (needed + target.reserve, target.ram);
            return Err(Error::Budget { needed, given });
        }
        let header = program.header();
        let panel = LANES as u32;
        let one_panel = Plan { kv_capacity: panel, kv_sinks: 0, ..self.header.plan };
        let bytes_a_panel: u64 = program.states().map(|s| one_panel.state_bytes(&s)).sum();
        let panels = 1 + (budget - needed).checked_div(bytes_a_panel).unwrap_or(0);
        let most = header.context_length.max(least_context);
        // A panel of positions costs the same as one position; the last one may not fit with what
        // rounding adds.
        let whole = |panels: u64| {
            let positions = u32::try_from(panels * u64::from(panel)).unwrap_or(u32::MAX);
            positions.clamp(least_context, most)
        };
        let contexts = [0, 1, 2].map(|less| whole(panels.saturating_sub(less)));
        let (plan, layout) = target
            .context
            .map_or(contexts, |context| [context; 3])
            .into_iter()
            .filter_map(|context| layout(columns, context).ok())
            .find(|(_, l)| l.total() + tables + ring <= budget)
            .unwrap_or(layout(columns, least_context)?);
        let board = BoardPlan {
            ram: target.ram,
            reserve: target.reserve,
            tables,
            ring,
            kv_cache: layout.states,
            activations: layout.total() - layout.states,
            context: plan.kv_capacity,
            sinks: plan.kv_sinks,
            model_context: header.context_length,
            kv_format: plan.kv_format.into(),
            prefill_chunk: columns,
            page_size: self.header.page_size,
            image: self.length(),
            bands: None,
        };
        Ok((board, plan))
    }

    /// Bytes of the image.
    fn length(&self) -> u64 {
        self.header.pages.offset + self.header.pages.length
    }

    /// Writes the image.
    fn write(&mut self, output: &Path, cancel: &Cancel) -> Result<()> {
        let package = &*self.package;
        let crc32c = dispatch::kernels()?.crc32c;
        let io = |e| Error::io(output, "write", e);
        let target = ImageFile::new(output, self.length())?;
        let mut file = BufWriter::new(target.file());
        file.seek(SeekFrom::Start(self.header.pages.offset)).map_err(io)?;
        let mut pages = PageWriter::new(file, self.header.page_size, crc32c);
        for (tensor, to) in package.index.tensors.iter().zip(&self.places) {
            let padding = to - self.header.pages.offset - pages.length();
            pages.write(&vec![0; padding as usize]).map_err(io)?;
            copy(package, tensor, crc32c, |bytes| pages.write(bytes).map_err(io))?;
            cancel.check()?;
        }
        let (_, checksums) = pages.finish().map_err(io)?;
        let checksums: Vec<u8> = checksums.iter().flat_map(|crc| crc.to_le_bytes()).collect();
        let program = &package.compiled.program;
        let sections: [(&mut Extent, &[u8]); 4] = [
            (&mut self.header.program, program),
            (&mut self.header.tensors, &self.tensors),
            (&mut self.header.checksums, &checksums),
            (&mut self.header.tokenizer, package.tokenizer_tables().unwrap_or_default()),
        ];
        let mut file = target.file();
        for (extent, bytes) in sections {
            extent.crc32c = crc32c(0, bytes);
            file.seek(SeekFrom::Start(extent.offset)).map_err(io)?;
            file.write_all(bytes).map_err(io)?;
        }
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        file.write_all(&self.header.to_bytes(crc32c)).map_err(io)?;
        target.finish(output)
    }
}

/// What an image is written to.
enum ImageFile {
    /// A file that gets its name when it is whole.
    File(NamedTempFile),
    /// A card or disk, written in place.
    Device(File),
}

impl ImageFile {
    fn new(output: &Path, length: u64) -> Result<Self> {
        if output.symlink_metadata().is_ok_and(|found| found.file_type().is_block_device()) {
            return Self::device(output, length);
        }
        create_beside(output).map(Self::File)
    }

    /// Opens a device that nothing else uses, and that an image of this length fits on. What it
    /// holds from now on is no image until the header is written.
    fn device(output: &Path, length: u64) -> Result<Self> {
        let failed = |e| Error::io(output, "write", e);
        // Exclusive: the system refuses a device that is mounted.
        let mut options = OpenOptions::new();
        let mut device =
            options.write(true).custom_flags(libc::O_EXCL).open(output).map_err(failed)?;
        let room = device.seek(SeekFrom::End(0)).map_err(failed)?;
        if room < length {
            let message = format!("the image has {length} bytes, the device room for {room}");
            return Err(Error::Usage(format!("{}: {message}", output.display())));
        }
        device.rewind().map_err(failed)?;
        device.write_all(&[0; HEADER_BYTES]).map_err(failed)?;
        device.sync_all().map_err(failed)?;
        Ok(Self::Device(device))
    }

    fn file(&self) -> &File {
        match self {
            Self::File(file) => file.as_file(),
            Self::Device(device) => device,
        }
    }

    fn finish(self, output: &Path) -> Result<()> {
        match self {
            Self::File(file) => persist(file, output),
            Self::Device(device) => device.sync_all().map_err(|e| Error::io(output, "write", e)),
        }
    }
}

/// Hands a tensor to `put`, piece by piece, and checks it: an image has checksums of its own, which
/// would be those of damaged weights.
fn copy(
    package: &Package,
    tensor: &TensorEntry,
    crc32c: fn(u32, &[u8]) -> u32,
    mut put: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let path = package.path.join("weights").join(&tensor.file);
    let source = package.file(&tensor.file)?;
    let (mut buffer, mut done, mut crc) = (vec![0; 1 << 20], 0, 0);
    while done < tensor.length {
        let now = (tensor.length - done).min(buffer.len() as u64);
        let bytes = &mut buffer[..now as usize];
        let read = source.read_exact_at(bytes, tensor.offset + done);
        read.map_err(|e| Error::io(&path, "read", e))?;
        crc = crc32c(crc, bytes);
        put(bytes)?;
        done += now;
    }
    let found = format!("{crc:08x}");
    if found.eq_ignore_ascii_case(&tensor.crc32c) {
        return Ok(());
    }
    let field = format!("checksum of {}", tensor.name);
    Err(Error::malformed(&path, field, found, &tensor.crc32c, CONVERT_AGAIN))
}

/// The longest section that is held in memory.
const MAX_SECTION_BYTES: u64 = 256 << 20;

/// A flash image on the host.
pub struct Image {
    /// The header.
    pub header: ImageHeader,
    /// The program.
    pub program: Vec<u8>,
    /// The tensor table.
    pub tensors: Vec<u8>,
    /// CRC-32C of each page of weights.
    pub checksums: Vec<[u8; 4]>,
    /// The tokenizer's tables, if the model has a tokenizer.
    pub tokenizer: Option<Vec<u8>>,
    /// Bytes of the file.
    pub length: u64,
    /// The file. Under its name may lie another by now.
    pub file: Arc<File>,
}

impl Image {
    /// Opens an image and checks everything but the pages, which are checked as they are used.
    ///
    /// # Errors
    /// A file that is no image, or a damaged one.
    pub fn open(path: &Path) -> Result<Self> {
        let crc32c = dispatch::kernels()?.crc32c;
        let mut file = input::open(path)?;
        let length = file.metadata().map_err(|e| Error::io(path, "read", e))?.len();
        let mut bytes = [0; HEADER_BYTES];
        let foreign = |error| unconverted(path).unwrap_or(error);
        let read = file.read_exact(&mut bytes).map(|()| ImageHeader::parse(&bytes, crc32c));
        let header = match read {
            Ok(Err(LoadError::Magic)) => {
                return Err(foreign(Error::load(path, LoadError::Magic)));
            }
            Ok(header) => header.map_err(|error| Error::load(path, error))?,
            Err(_) => {
                let (found, expected) =
                    (format!("{length} bytes"), format!("{HEADER_BYTES} at least"));
                return Err(foreign(Error::malformed(
                    path,
                    "header",
                    found,
                    expected,
                    NOT_A_MODEL,
                )));
            }
        };
        let mut section = |name: &str, extent: Extent| -> Result<Vec<u8>> {
            if extent.offset.checked_add(extent.length).is_none_or(|end| end > length) {
                let found = format!("bytes {} and {} more", extent.offset, extent.length);
                let expected = format!("bytes inside of the file's {length}");
                return Err(Error::malformed(path, name, found, expected, "pack the image again"));
            }
            if extent.length > MAX_SECTION_BYTES {
                let expected = format!("at most {MAX_SECTION_BYTES} bytes");
                let found = extent.length.to_string();
                return Err(Error::malformed(path, name, found, expected, "pack the image again"));
            }
            let mut bytes = vec![0; extent.length as usize];
            file.seek(SeekFrom::Start(extent.offset))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(|e| Error::io(path, "read", e))?;
            let crc = crc32c(0, &bytes);
            if crc != extent.crc32c {
                let (found, expected) = (format!("{crc:08x}"), format!("{:08x}", extent.crc32c));
                let field = format!("{name}: crc32c");
                return Err(Error::malformed(path, field, found, expected, "pack the image again"));
            }
            Ok(bytes)
        };
        let program = section("program", header.program)?;
        let tensors = section("tensors", header.tensors)?;
        let checksums = section("checksums", header.checksums)?.as_chunks().0.to_vec();
        let tokenizer = Some(section("tokenizer", header.tokenizer)?).filter(|t| !t.is_empty());
        let end = header.pages.offset.checked_add(header.pages.length);
        let pages = header.pages.length.div_ceil(u64::from(header.page_size));
        if end != Some(length) || checksums.len() as u64 != pages {
            let found = format!("{length} bytes, {} checksums", checksums.len());
            let expected = format!("{} bytes, {pages} checksums", end.unwrap_or(u64::MAX));
            return Err(Error::malformed(path, "pages", found, expected, "pack the image again"));
        }
        let file = Arc::new(file);
        Ok(Self { header, program, tensors, checksums, tokenizer, length, file })
    }
}

const NOT_A_MODEL: &str = "give a package (a folder) or an image made by omex pack";

/// Checks everything in an image, pages included.
///
/// # Errors
/// Only [`Error::Interrupted`]; everything that is wrong with the image is in the report.
pub fn validate(path: &Path, cancel: &Cancel) -> Result<Report> {
    let mut report = Report { files: 1, ..Report::default() };
    let image = match Image::open(path) {
        Ok(image) => image,
        Err(error) => {
            report.problems.push(error.to_string());
            return Ok(report);
        }
    };
    let ImageHeader { pages, page_size, .. } = image.header;
    let program = Program::parse(&image.program, &image.tensors, pages.offset..image.length);
    if let Err(error) = program {
        report.problems.push(Error::load(path, error).to_string());
    }
    if let Some(Err(error)) = image.tokenizer.as_deref().map(Tokenizer::open) {
        report
            .problems
            .push(format!("{}: tokenizer: {error}; pack the image again", path.display()));
    }
    let crc32c = dispatch::kernels()?.crc32c;
    let mut page = vec![0; page_size as usize];
    for (number, expected) in image.checksums.iter().enumerate() {
        cancel.check()?;
        let offset = pages.offset + number as u64 * u64::from(page_size);
        let length = u64::from(page_size).min(image.length - offset) as usize;
        let page = &mut page[..length];
        image.file.read_exact_at(page, offset).map_err(|e| Error::io(path, "read", e))?;
        report.bytes += length as u64;
        let (found, expected) = (crc32c(0, page), u32::from_le_bytes(*expected));
        if found != expected {
            report.problems.push(format!(
                "{}: page at byte {offset}: crc32c: found {found:08x}, expected {expected:08x}; \
                 pack the image again",
                path.display()
            ));
        }
    }
    Ok(report)
}

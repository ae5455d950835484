//! Opening an image.

use crate::cores::{self, Cores};
use crate::room::{OMEX_ALIGNMENT, Room};
use crate::source::{Checked, Source};
use crate::status::{Status, of};
#[cfg(feature = "text")]
use crate::text_state::Text;
use core::ffi::c_void;
use omex_core::arena::Layout;
use omex_core::engine;
use omex_core::image::ImageHeader;
use omex_core::program::Program;
use omex_core::simd::NATIVE;
use omex_hal::{Parallel, Serial};

/// A model that is open: it lies in the arena that it was opened in, and needs no closing. One thread at a time
/// may use it.
pub struct Engine {
    pub(crate) engine: engine::Engine<'static>,
    #[cfg(feature = "text")]
    pub(crate) text: Text,
}

/// What a model is.
#[repr(C)]
pub struct Description {
    /// Tokens of its vocabulary; 0 if it takes tensors.
    pub vocabulary: u32,
    /// Positions that its cache holds: beyond them the middle of a text is forgotten; 0 if it takes tensors.
    pub context: u32,
    /// Tensors that it takes, for omex_input.
    pub inputs: u32,
    /// Tensors that it gives, for omex_output.
    pub outputs: u32,
    /// Whether the image has a tokenizer.
    pub has_tokenizer: bool,
}

/// Opens an image in `arena`, which is aligned to OMEX_ALIGNMENT and belongs to the engine for as long as it is
/// used, as do the source's image and context. What an image that is read leaves of the arena holds its pages.
///
/// `cores` may be null, for one core. `needed` may be null; else it becomes the bytes that the arena must have,
/// as soon as they are known. So with a null arena of 0 bytes the result is OMEX_STATUS_MEMORY, and `needed` the
/// size of the arena to open it with. Of an image that is read, its tables have to be seen for that: then it is
/// their size, and the second call tells the rest.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_open(
    source: *const Source,
    arena: *mut c_void,
    arena_bytes: usize,
    cores: *const Cores,
    engine: *mut *mut Engine,
    needed: *mut usize,
) -> Status {
    if source.is_null() || engine.is_null() || arena.is_null() && arena_bytes > 0 {
        return Status::Argument;
    }
    if !arena.addr().is_multiple_of(OMEX_ALIGNMENT) {
        return Status::Alignment;
    }
    let arena: &'static mut [u8] = if arena.is_null() {
        &mut []
    } else {
        let length = arena_bytes.min(isize::MAX as usize);
        // SAFETY: the caller gives so many bytes away, which need not hold anything yet.
        unsafe {
            arena.cast::<u8>().write_bytes(0, length);
            core::slice::from_raw_parts_mut(arena.cast(), length)
        }
    };
    // SAFETY: the pointers are valid or null, and the image stays, as the caller says.
    let (source, cores) = unsafe { ((*source).check(), cores.as_ref()) };
    let mut bytes = 0;
    let opened = source.and_then(|source| open(source, arena, cores, &mut bytes));
    // SAFETY: the pointers are valid or null, as the caller says.
    unsafe {
        if let Some(needed) = needed.as_mut() {
            *needed = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        *engine = core::ptr::null_mut();
        of(opened.map(|opened| *engine = opened))
    }
}

fn open(
    source: Checked,
    arena: &'static mut [u8],
    cores: Option<&Cores>,
    needed: &mut u64,
) -> Result<&'static mut Engine, Status> {
    let header = source.header()?;
    let mapped = matches!(source, Checked::Mapped(_));
    let page_size = u64::from(header.page_size.max(1));
    let page = if mapped { 0 } else { page_size };
    let mut room = Room::new(arena);
    let (place, pages, parallel) = (room.place(), room.place(), room.place());
    let mut sections = [&[][..]; 3];
    for (bytes, extent) in
        sections.iter_mut().zip([header.program, header.tensors, header.checksums])
    {
        let Some(section) = source.section(extent, &mut room)? else {
            *needed = room.needed().saturating_add(header.resident_bytes()).saturating_add(page);
            return Err(Status::Memory);
        };
        *bytes = section;
    }
    let end = header.pages.offset.saturating_add(header.pages.length);
    let model = model(&header, end, sections)?;
    let layout = if mapped {
        model.layout(&source.pages(&mut [], header.page_size, end)?)?
    } else {
        Layout::new(&model.program, &model.plan, 0)?
    };
    let memory = room.take(layout.total());
    #[cfg(feature = "text")]
    let block = room.take(Text::block_bytes(mapped, &header));
    *needed = room.needed().saturating_add(page);
    let ring = room.rest(page).map_err(|_| Status::Memory)?;
    let memory = memory.ok_or(Status::Memory)?;
    let pages = pages.ok_or(Status::Memory)?.put(source.pages(ring, header.page_size, end)?);
    let parallel: &'static dyn Parallel = match cores.and_then(|cores| Some((cores, cores.run?))) {
        Some((&Cores { count, context, .. }, run)) => {
            parallel.ok_or(Status::Memory)?.put(cores::Checked { count, run, context })
        }
        None => &Serial,
    };
    let engine = engine::Engine::new(model, memory, pages, &NATIVE, parallel)?;
    Ok(place.ok_or(Status::Memory)?.put(Engine {
        engine,
        #[cfg(feature = "text")]
        text: Text::open(source, &header, block.ok_or(Status::Memory)?)?,
    }))
}

/// The model whose program, tensor table and checksums these are, and whose pages end there.
fn model(
    header: &ImageHeader,
    end: u64,
    [program, tensors, checksums]: [&'static [u8]; 3],
) -> Result<engine::Model<'static>, Status> {
    let page_size = u64::from(header.page_size.max(1));
    let (checksums, odd) = checksums.as_chunks();
    if !odd.is_empty() || checksums.len() as u64 != header.pages.length.div_ceil(page_size) {
        return Err(Status::Damaged);
    }
    let first_checked = u32::try_from(header.pages.offset / page_size);
    let first_checked = first_checked.map_err(|_| Status::Damaged)?;
    let program = Program::parse(program, tensors, header.pages.offset..end)?;
    Ok(engine::Model { program, plan: header.plan, end, checksums, first_checked })
}

/// What a model is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_describe(
    engine: *const Engine,
    description: *mut Description,
) -> Status {
    // SAFETY: both are valid or null, as the caller says.
    let (Some(engine), Some(description)) = (unsafe { (engine.as_ref(), description.as_mut()) })
    else {
        return Status::Argument;
    };
    let (program, plan) = (engine.engine.program(), engine.engine.plan());
    let header = program.header();
    let vocabulary = header.vocab_size;
    *description = Description {
        vocabulary,
        context: if vocabulary > 0 { plan.kv_capacity } else { 0 },
        inputs: header.inputs.into(),
        outputs: if vocabulary > 0 { 0 } else { header.outputs.into() },
        #[cfg(feature = "text")]
        has_tokenizer: engine.text.has_tokenizer(),
        #[cfg(not(feature = "text"))]
        has_tokenizer: false,
    };
    Status::Ok
}

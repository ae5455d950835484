//! The core as a WebAssembly module: compares kernels, and computes logits of an image.
//!
//! `run.mjs` copies its input to `input()` and calls the other functions.
#![no_std]

#[path = "../../../core/tests/comparison/mod.rs"]
mod comparison;

use core::cell::UnsafeCell;
use omex_core::engine::{Engine, Wanted};
use omex_core::image;
use omex_core::simd::{Kernels, PORTABLE, wasm};
use omex_hal::Serial;
use omex_hal_adapters::SlicePager;

/// Bytes for the image, for its tables, and for the engine.
const INPUT: usize = 4 << 20;
const TABLES: usize = 256 << 10;
const ARENA: usize = 4 << 20;
const MAX_TOKENS: usize = 256;

/// What `run.mjs` fills, and what the engine works in.
#[repr(C, align(16))]
struct Memory {
    input: [u8; INPUT],
    tokens: [u32; MAX_TOKENS],
    tables: [u8; TABLES],
    arena: [u8; ARENA],
}

struct Shared(UnsafeCell<Memory>);

// SAFETY: the module has one thread.
unsafe impl Sync for Shared {}

static MEMORY: Shared = Shared(UnsafeCell::new(Memory {
    input: [0; INPUT],
    tokens: [0; MAX_TOKENS],
    tables: [0; TABLES],
    arena: [0; ARENA],
}));

/// Where the image goes.
#[unsafe(no_mangle)]
pub extern "C" fn input() -> *mut u8 {
    MEMORY.0.get().cast()
}

/// Where the tokens go.
#[unsafe(no_mangle)]
pub extern "C" fn tokens() -> *mut u32 {
    input().wrapping_add(INPUT).cast()
}

/// Compares the kernels with the portable ones: 0, or the number of the comparison that differs.
#[unsafe(no_mangle)]
pub extern "C" fn check() -> u32 {
    comparison::compare(&wasm::KERNELS).map_or_else(|difference| difference.number, |()| 0)
}

/// The checksum of the logits after every pass, of as many tokens as the image is planned for;
/// `simd` chooses the kernels.
#[unsafe(no_mangle)]
pub extern "C" fn logits_checksum(bytes: usize, page_size: u32, count: usize, simd: bool) -> u32 {
    // SAFETY: there is one thread, and no other reference to it lives during a call.
    let memory = unsafe { &mut *MEMORY.0.get() };
    let kernels = if simd { &wasm::KERNELS } else { &PORTABLE };
    forward(memory, bytes, page_size, count, kernels).expect("the image opens and runs")
}

fn forward(
    memory: &mut Memory,
    bytes: usize,
    page_size: u32,
    count: usize,
    kernels: &Kernels,
) -> Option<u32> {
    let Memory { input, tokens, tables, arena } = memory;
    let mut pager = SlicePager::new(input.get(..bytes)?, page_size).ok()?;
    let (_, model, _) = image::open(&mut pager, kernels.crc32c, tables).ok()?;
    let layout = model.layout(&pager).ok()?;
    let memory = arena.get_mut(..layout.total() as usize)?;
    let mut engine = Engine::new(model, memory, &mut pager, kernels, &Serial).ok()?;
    let mut checksum = 0;
    for tokens in tokens.get(..count)?.chunks(engine.plan().columns as usize) {
        engine.forward(tokens, Wanted::Last).ok()?;
        let logits = engine.logits(0).iter();
        checksum = logits.fold(checksum, |crc, x| (kernels.crc32c)(crc, &x.to_le_bytes()));
    }
    Some(checksum)
}

/// Ends the module; `run.mjs` reports it.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

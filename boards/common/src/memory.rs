//! How much memory there is, and how much of it was used.

use cortex_m_rt::STACK_PAINT_VALUE;

/// Bytes of the arena, aligned as the engine wants them.
#[repr(align(16))]
pub struct Arena<const N: usize>(pub [u8; N]);

const MPU_CONTROL: usize = 0xe000_ed94;
const MPU_ENABLE_WITH_DEFAULTS: u32 = 0b101;
const MPU_REGION_BASE: usize = 0xe000_ed9c;
const MPU_REGION_ATTRIBUTES: usize = 0xe000_eda0;
/// The guard is region 0.
const GUARD_NUMBER: usize = 1 << 4;
/// It lies below the stack.
const GUARD_BYTES: usize = 4 << 10;
/// 4 KB, no access.
const GUARD_ATTRIBUTES: u32 = 1 << 28 | 11 << 1 | 1;

/// Makes a stack overflow a fault.
pub fn guard_stack() {
    let guard = (&raw const _stack_end).addr().wrapping_sub(GUARD_BYTES);
    let registers = [
        (MPU_REGION_BASE, (guard | GUARD_NUMBER) as u32),
        (MPU_REGION_ATTRIBUTES, GUARD_ATTRIBUTES),
        (MPU_CONTROL, MPU_ENABLE_WITH_DEFAULTS),
    ];
    for (register, value) in registers {
        // SAFETY: these registers of the memory protection unit forbid access to addresses at
        // which the board has no memory, and change nothing else.
        unsafe { (register as *mut u32).write_volatile(value) }
    }
    cortex_m::asm::dsb();
    cortex_m::asm::isb();
}

unsafe extern "C" {
    static _stack_end: u32;
    static _stack_start: u32;
    static __sdata: u32;
    static __euninit: u32;
}

/// Bytes of all static variables, the arena included.
pub fn static_bytes() -> usize {
    (&raw const __euninit).addr() - (&raw const __sdata).addr()
}

/// Bytes that there are for the stack.
pub fn stack_room() -> usize {
    (&raw const _stack_start).addr() - (&raw const _stack_end).addr()
}

/// The most bytes of the stack that were ever in use: below them, the paint of the reset is whole.
pub fn stack_bytes() -> usize {
    let (mut place, start) = (&raw const _stack_end, &raw const _stack_start);
    // SAFETY: these addresses are the stack's, which is always readable; the values are plain
    // words that nothing else writes meanwhile.
    while place < start && unsafe { place.read_volatile() } == STACK_PAINT_VALUE {
        place = place.wrapping_add(1);
    }
    start.addr() - place.addr()
}

//! How much memory there is, and how much of it was used.

use crate::arch;

/// Makes a stack overflow a fault.
pub fn guard_stack() {
    arch::guard_stack((&raw const _stack_end).addr());
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
    while place < start && unsafe { place.read_volatile() } == arch::PAINT {
        place = place.wrapping_add(1);
    }
    start.addr() - place.addr()
}

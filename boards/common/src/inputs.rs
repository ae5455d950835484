//! Inputs that are made, and not measured.

use omex_core::engine::Engine;

/// What `seeded` inputs begin with.
pub const SEED: u32 = 0x1234_5678;

/// Sets all inputs to the bytes of xorshift32 with this state, one after another; 0 gives zeros.
pub fn make(engine: &mut Engine<'_>, seed: u32) {
    let mut state = seed;
    for port in engine.program().inputs() {
        engine.input_mut(port.name).fill_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 24) as u8
        });
    }
}

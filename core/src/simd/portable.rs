//! The inner loops in plain Rust: what every other table must equal, bit for bit.

#[cfg(target_arch = "x86_64")]
use super::FEW_COLUMNS;
use super::attend::attend_singly;
use super::recur::recur;
use super::{Kernels, LANES};
#[cfg(feature = "float")]
use crate::math;
use crate::quant::{Format, QuantizedGroup, float16, float32, int4, int8, quantize_group};
use crate::state::kv::KvFormat;

/// Works everywhere.
pub static PORTABLE: Kernels = Kernels {
    name: "portable",
    #[cfg(target_arch = "x86_64")]
    columns: FEW_COLUMNS,
    int4: if Format::Int4.is_played() { int4::dot } else { |_, _, _, _| () },
    int8: if Format::Int8.is_played() { int8::dot } else { |_, _, _, _| () },
    float16: if Format::F16.is_played() { float16::dot } else { |_, _, _, _| () },
    float32: if Format::F32.is_played() { float32::dot } else { |_, _, _, _| () },
    quantize: if Format::Int8.is_played() {
        |x| quantize_group(x)
    } else {
        |_| QuantizedGroup::ZERO
    },
    // SAFETY: plain Rust needs no instruction set; so it is for all of these.
    attend_half: |head, places, scale, queries| unsafe {
        if cfg!(feature = "text") {
            attend_singly::<[f32; LANES], _>(head, places, scale, queries);
        }
    },
    // SAFETY: as above.
    attend_single: |head, places, scale, queries| unsafe {
        if cfg!(feature = "text") && KvFormat::Single.is_played() {
            attend_singly::<[f32; LANES], _>(head, places, scale, queries);
        }
    },
    // SAFETY: as above.
    attend_int8: |head, places, scale, queries| unsafe {
        if cfg!(feature = "text") {
            attend_singly::<[f32; LANES], _>(head, places, scale, queries);
        }
    },
    // SAFETY: as above.
    recur: |state, step, out| unsafe {
        if cfg!(feature = "float") {
            recur::<[f32; LANES]>(state, step, out);
        }
    },
    #[cfg(feature = "float")]
    gelu,
    #[cfg(feature = "float")]
    gelu_tanh,
    #[cfg(target_arch = "x86_64")]
    convolve: None,
    crc32c,
};

/// Written so that compilers vectorise it.
#[cfg(feature = "float")]
pub(super) fn gelu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::gelu(*x));
}

/// As [`gelu`].
#[cfg(feature = "float")]
pub(super) fn gelu_tanh(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::gelu_tanh(*x));
}

/// The remainders of every byte, CRC-32C reflected.
static BYTES: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
            bit += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            table[i] = crc;
        }
        i += 1;
    }
    table
};

fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    let step = |crc: u32| crc >> 8 ^ BYTES.get(crc as usize & 255).copied().unwrap_or_default();
    let (words, rest) = bytes.as_chunks::<4>();
    let crc = words
        .iter()
        .fold(!crc, |crc, word| step(step(step(step(crc ^ u32::from_le_bytes(*word))))));
    !rest.iter().fold(crc, |crc, byte| step(crc ^ u32::from(*byte)))
}

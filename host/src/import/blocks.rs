//! ggml's quantized blocks as floats
//! ([`ggml-quants.c`](https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c)).
//!
//! Each function turns one block into its values. Where a block has parts with a scale of their
//! own, `d` is the scale of these scales.

use half::f16;

/// The values that IQ4_NL's and IQ4_XS's nibbles stand for.
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// The values that MXFP4's nibbles stand for, doubled.
pub(crate) const FP4: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The half float at a byte.
pub(super) fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Values whose low nibbles come first, then the high ones, in each `bytes`.
fn nibbles(bytes: &[u8], out: &mut [f32], value: impl Fn(usize, u8) -> f32) {
    let middle = bytes.len();
    for (i, &byte) in bytes.iter().enumerate() {
        out[i] = value(i, byte & 15);
        out[i + middle] = value(i + middle, byte >> 4);
    }
}

pub(super) fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (value, &byte) in out.iter_mut().zip(&block[2..]) {
        *value = f32::from(byte.cast_signed()) * d;
    }
}

pub(super) fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    nibbles(&block[2..], out, |_, q| (f32::from(q) - 8.0) * d);
}

pub(super) fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, least) = (half(block, 0), half(block, 2));
    nibbles(&block[4..], out, |_, q| f32::from(q) * d + least);
}

pub(super) fn q5_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    nibbles(&block[6..], out, |i, q| (f32::from(q | fifth(&block[2..6], i)) - 16.0) * d);
}

pub(super) fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, least) = (half(block, 0), half(block, 2));
    nibbles(&block[8..], out, |i, q| f32::from(q | fifth(&block[4..8], i)) * d + least);
}

/// The fifth bit of value `i`.
fn fifth(bits: &[u8], i: usize) -> u8 {
    (bits[i / 8] >> (i % 8) & 1) << 4
}

pub(super) fn iq4_nl(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    nibbles(&block[2..], out, |_, q| f32::from(IQ4[usize::from(q)]) * d);
}

pub(super) fn iq4_xs(block: &[u8], out: &mut [f32]) {
    let (d, high) = (half(block, 0), u16::from_le_bytes([block[2], block[3]]));
    let parts = block[8..].chunks_exact(16).zip(out.chunks_exact_mut(32));
    for (part, (bytes, out)) in parts.enumerate() {
        let low = block[4 + part / 2] >> (4 * (part % 2)) & 15;
        let scale = f32::from(u16::from(low) | (high >> (2 * part) & 3) << 4) - 32.0;
        nibbles(bytes, out, |_, q| f32::from(IQ4[usize::from(q)]) * (d * scale));
    }
}

pub(super) fn mxfp4(block: &[u8], out: &mut [f32]) {
    // Half of 2 to the power of the exponent less 127: the values are doubled.
    let bits = match block[0] {
        exponent @ 0..2 => 0x0020_0000 << exponent,
        exponent => (u32::from(exponent) - 1) << 23,
    };
    let d = f32::from_bits(bits);
    nibbles(&block[1..], out, |_, q| f32::from(FP4[usize::from(q)]) * d);
}

pub(super) fn q2_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half(block, 80), half(block, 82));
    for (i, value) in out.iter_mut().enumerate() {
        let scale = block[i / 16];
        let q = two_bits(&block[16..80], i);
        *value = d * f32::from(scale & 15) * f32::from(q) - dmin * f32::from(scale >> 4);
    }
}

pub(super) fn q3_k(block: &[u8], out: &mut [f32]) {
    let d = half(block, 108);
    for (i, value) in out.iter_mut().enumerate() {
        let part = i / 16;
        let low = block[96 + part % 8] >> (4 * (part / 8)) & 15;
        let high = block[104 + part % 4] >> (2 * (part / 4)) & 3;
        let scale = f32::from(low | high << 4) - 32.0;
        // A third bit that is not set takes 4 away.
        let missing = if block[i % 32] >> (i / 32) & 1 == 0 { 4.0 } else { 0.0 };
        *value = d * scale * (f32::from(two_bits(&block[32..96], i)) - missing);
    }
}

/// Value `i` of pairs of bits: 32 bytes hold the lowest pairs of 32 values, then the next ones.
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3
}

/// Scale and minimum of part `i` of eight, six bits each in 12 bytes.
fn scale_and_least(scales: &[u8], i: usize) -> (f32, f32) {
    let (scale, least) = match i {
        0..4 => (scales[i] & 63, scales[i + 4] & 63),
        _ => {
            (scales[i + 4] & 15 | scales[i - 4] >> 6 << 4, scales[i + 4] >> 4 | scales[i] >> 6 << 4)
        }
    };
    (f32::from(scale), f32::from(least))
}

pub(super) fn q4_k(block: &[u8], out: &mut [f32]) {
    k_nibbles(block, &block[16..], out, |_| 0);
}

pub(super) fn q5_k(block: &[u8], out: &mut [f32]) {
    k_nibbles(block, &block[48..], out, |i| (block[16 + i % 32] >> (i / 32) & 1) << 4);
}

/// Values in eight parts; `high` gives the bits above a nibble.
fn k_nibbles(block: &[u8], bytes: &[u8], out: &mut [f32], high: impl Fn(usize) -> u8) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    for (part, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, least) = scale_and_least(&block[4..16], part);
        for (i, value) in out.iter_mut().enumerate() {
            let q = bytes[part / 2 * 32 + i] >> (4 * (part % 2)) & 15;
            let q = f32::from(q | high(32 * part + i));
            *value = d * scale * q - dmin * least;
        }
    }
}

pub(super) fn q6_k(block: &[u8], out: &mut [f32]) {
    let d = half(block, 208);
    for (i, value) in out.iter_mut().enumerate() {
        let (middle, rest) = (i / 128, i % 128);
        let low = block[64 * middle + rest % 64] >> (4 * (rest / 64)) & 15;
        let high = two_bits(&block[128..192], i);
        let scale = f32::from(block[192 + i / 16].cast_signed());
        *value = d * scale * (f32::from(low | high << 4) - 32.0);
    }
}

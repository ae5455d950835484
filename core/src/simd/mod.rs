//! The inner loops, behind one table: portable code, and one file an instruction set.
//!
//! Every table gives the same bits. Detecting what a CPU can do is the host's business; it hands
//! the table to [`crate::engine::Engine`].
#![allow(unsafe_code, reason = "instruction sets are reached through intrinsics")]

mod attend;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
mod lanes;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
pub mod neon;
mod portable;
mod recur;
#[cfg(any(
    target_arch = "x86_64",
    all(target_arch = "aarch64", target_endian = "little"),
    all(target_arch = "wasm32", target_feature = "simd128"),
))]
mod tiles;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod wasm;

use crate::quant::{FloatGroup, PANEL, QuantizedGroup};
pub use attend::{ATTENDED_AT_ONCE, Attend, KvHead, MAX_QUERIES, Query, Scaling, Softmax};
pub use lanes::LANES;
pub use portable::PORTABLE;
pub use recur::{Recur, Step};

/// Adds the dot products of panels with activations to running sums, for `columns` tokens, at most
/// [`MAX_COLUMNS`].
///
/// `blocks` is `[panels][groups][bytes of a block]`, `x` is `[groups][columns]`, and `sums` is
/// `[panels][columns][PANEL rows]`. Elements beyond whole panels or groups are left out.
pub type PanelDot<X> = fn(blocks: &[u8], x: &[X], columns: usize, sums: &mut [[f32; PANEL]]);

/// The most columns that a kernel takes in one call.
pub const MAX_COLUMNS: usize = 8;
/// The most panels that a kernel is given in one call.
pub const MAX_PANELS: usize = 2;

/// The inner loops of one instruction set.
pub struct Kernels {
    /// The instruction set's name.
    pub name: &'static str,
    /// 4-bit weights.
    pub int4: PanelDot<QuantizedGroup>,
    /// 8-bit weights.
    pub int8: PanelDot<QuantizedGroup>,
    /// 16-bit float weights.
    pub float16: PanelDot<FloatGroup>,
    /// 32-bit float weights.
    pub float32: PanelDot<FloatGroup>,
    /// Quantizes a group of activations.
    pub quantize: fn(x: &FloatGroup) -> QuantizedGroup,
    /// Attention over a cache of 16-bit floats.
    pub attend_half: Attend<u16>,
    /// Attention over a cache of 32-bit floats.
    pub attend_single: Attend<f32>,
    /// Attention over a cache of signed bytes.
    pub attend_int8: Attend<i8>,
    /// A step of a linear attention.
    pub recur: Recur,
    /// The GELU of each number, in place.
    #[cfg(feature = "float")]
    pub gelu: fn(x: &mut [f32]),
    /// The GELU of each number by its approximation with tanh, in place.
    #[cfg(feature = "float")]
    pub gelu_tanh: fn(x: &mut [f32]),
    /// Continues a CRC-32C (Castagnoli) over `bytes`, of any length; the first call starts from 0.
    pub crc32c: fn(crc: u32, bytes: &[u8]) -> u32,
}

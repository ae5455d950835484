//! The inner loops, behind one table: portable code, and one file an instruction set.
//!
//! Every table gives the same bits. Detecting what a CPU can do is the host's business; it hands
//! the table to [`crate::engine::Engine`].
#![allow(unsafe_code, reason = "instruction sets are reached through intrinsics")]

#[cfg(target_arch = "x86_64")]
pub mod amx;
mod attend;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(target_arch = "x86_64")]
pub mod channels;
#[cfg(all(dsp, target_abi = "eabihf"))]
pub mod dsp;
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
/// What is best for the target, as far as it is known while building.
#[cfg(all(dsp, target_abi = "eabihf"))]
pub use dsp::KERNELS as NATIVE;
pub use lanes::LANES;
pub use portable::PORTABLE;
#[cfg(not(all(dsp, target_abi = "eabihf")))]
pub use portable::PORTABLE as NATIVE;
pub use recur::{Recur, Step};

/// Adds the dot products of panels with activations to running sums, for `columns` tokens, at most
/// [`Kernels::tile`].
///
/// `blocks` is `[panels][groups][bytes of a block]`, `x` is `[groups][columns]`, and `sums` is
/// `[panels][columns][PANEL rows]`. Elements beyond whole panels or groups are left out.
pub type PanelDot<X> = fn(blocks: &[u8], x: &[X], columns: usize, sums: &mut [[f32; PANEL]]);

/// The columns that every kernel takes in one call.
pub const FEW_COLUMNS: usize = 8;
/// From so many columns on, kernels that take more than few pay.
#[cfg(target_arch = "x86_64")]
const MANY_COLUMNS: usize = 32;
/// The most columns that a kernel of any table takes in one call. Boards have little stack.
pub const MAX_COLUMNS: usize = if cfg!(target_arch = "x86_64") { 64 } else { FEW_COLUMNS };
/// The most panels that a kernel is given in one call.
pub const MAX_PANELS: usize = 2;

/// The inner loops of one instruction set.
pub struct Kernels {
    /// The instruction set's name.
    pub name: &'static str,
    /// The most columns that kernels of integers take in one call.
    #[cfg(target_arch = "x86_64")]
    pub columns: usize,
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
    /// Convolutions of signed bytes, if there is more than plain Rust for them.
    #[cfg(target_arch = "x86_64")]
    pub convolve: Option<channels::Convolve>,
    /// Continues a CRC-32C (Castagnoli) over `bytes`, of any length; the first call starts from 0.
    pub crc32c: fn(crc: u32, bytes: &[u8]) -> u32,
}

impl Kernels {
    /// The tiles in which kernels of integers are given a pass's columns; those of floats are given
    /// [`Tile::FEW`].
    #[must_use]
    pub const fn tile(&self, columns: usize) -> Tile {
        #[cfg(target_arch = "x86_64")]
        if columns >= MANY_COLUMNS {
            return Tile { columns: self.columns };
        }
        let _ = columns;
        Tile::FEW
    }
}

/// How many columns kernels are given in one call; where it is always the same, it takes no memory.
#[derive(Clone, Copy)]
pub struct Tile {
    #[cfg(target_arch = "x86_64")]
    columns: usize,
}

impl Tile {
    /// As many as every kernel takes.
    pub const FEW: Self = Self {
        #[cfg(target_arch = "x86_64")]
        columns: FEW_COLUMNS,
    };

    /// The most columns of one call.
    #[must_use]
    pub const fn columns(self) -> usize {
        #[cfg(target_arch = "x86_64")]
        return self.columns;
        #[cfg(not(target_arch = "x86_64"))]
        FEW_COLUMNS
    }
}

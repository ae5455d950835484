//! Eight floats at once, whatever an instruction set has for them.

/// Floats in a `Lanes`.
pub const LANES: usize = 8;

/// Eight floats.
///
/// # Safety
/// Every function needs the instruction set that the type stands for.
pub(super) trait Lanes: Copy {
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(x: &[f32; LANES]) -> Self;
    unsafe fn store(self, x: &mut [f32; LANES]);
    /// `self + a * b`, rounded twice.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// `self * by`.
    unsafe fn product(self, by: Self) -> Self;
    /// `self` and the products of numbers with eights of a cache: `x[i]` with those from `numbers[i * step]`
    /// on, as long as there are both.
    #[inline(always)]
    unsafe fn add_products<T: KvNumber>(self, x: &[f32], numbers: &[T], step: usize) -> Self {
        let mut sum = self;
        for (x, numbers) in x.iter().zip(numbers.chunks(step.max(1))) {
            let Some(eight) = numbers.first_chunk() else { break };
            // SAFETY: the caller vouches for the CPU.
            sum = unsafe { sum.add_product(Self::splat(*x), T::lanes(eight)) };
        }
        sum
    }
    /// 16-bit floats.
    unsafe fn halves(x: &[u16; LANES]) -> Self;
    /// Signed bytes.
    unsafe fn bytes(x: &[i8; LANES]) -> Self;
}

/// How a KV cache stores a number.
pub(super) trait KvNumber: Copy {
    unsafe fn lanes<L: Lanes>(x: &[Self; LANES]) -> L;
    fn to_f32(self) -> f32;
}

impl KvNumber for u16 {
    #[inline(always)]
    unsafe fn lanes<L: Lanes>(x: &[Self; LANES]) -> L {
        // SAFETY: the caller vouches for the CPU.
        unsafe { L::halves(x) }
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        half::f16::from_bits(self).to_f32()
    }
}

impl KvNumber for f32 {
    #[inline(always)]
    unsafe fn lanes<L: Lanes>(x: &[Self; LANES]) -> L {
        // SAFETY: the caller vouches for the CPU.
        unsafe { L::load(x) }
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl KvNumber for i8 {
    #[inline(always)]
    unsafe fn lanes<L: Lanes>(x: &[Self; LANES]) -> L {
        // SAFETY: the caller vouches for the CPU.
        unsafe { L::bytes(x) }
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
}

/// Plain Rust: needs nothing.
impl Lanes for [f32; LANES] {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(x: &[f32; LANES]) -> Self {
        *x
    }

    #[inline(always)]
    unsafe fn store(self, x: &mut [f32; LANES]) {
        *x = self;
    }

    #[inline(always)]
    unsafe fn add_product(mut self, a: Self, b: Self) -> Self {
        self.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum += a * b);
        self
    }

    #[inline(always)]
    unsafe fn product(mut self, by: Self) -> Self {
        self.iter_mut().zip(by).for_each(|(x, by)| *x *= by);
        self
    }

    #[inline(always)]
    unsafe fn halves(x: &[u16; LANES]) -> Self {
        x.map(|bits| half::f16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    unsafe fn bytes(x: &[i8; LANES]) -> Self {
        x.map(f32::from)
    }
}

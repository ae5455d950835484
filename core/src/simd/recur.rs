//! A step of a linear attention over one head's state, written once over [`Lanes`] and compiled for each
//! instruction set.
//!
//! Lanes are numbers of a value: each is added up in the same order everywhere, key by key.

use super::lanes::{LANES, Lanes};

/// Panels of values whose sums are kept at hand at once.
const PANELS: usize = 4;

/// What a token does to the state of one head.
#[derive(Clone, Copy)]
pub struct Step<'s> {
    /// What the state is multiplied with first.
    pub decay: f32,
    /// What of the value is written.
    pub rate: f32,
    /// Writes what the value has beyond that which the key finds already (the delta rule).
    pub delta: bool,
    /// `[keys]`.
    pub key: &'s [f32],
    /// `[keys]`.
    pub query: &'s [f32],
    /// `[values]`.
    pub value: &'s [f32],
}

/// Writes a token into a state, `[panels of values][keys][LANES]`, and adds what its query finds there
/// then to `out`, `[values]`.
pub type Recur = fn(state: &mut [[f32; LANES]], step: &Step<'_>, out: &mut [f32]);

/// A [`Recur`] of any instruction set.
///
/// # Safety
/// The CPU must have what `L` needs.
#[inline(always)]
pub(super) unsafe fn recur<L: Lanes>(state: &mut [[f32; LANES]], step: &Step<'_>, out: &mut [f32]) {
    let keys = step.key.len().max(1);
    let mut tiles = state.chunks_exact_mut(PANELS * keys);
    let mut first = 0;
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        for tile in tiles.by_ref() {
            panels::<L, PANELS>(tile, step, first, out);
            first += PANELS * LANES;
        }
        for panel in tiles.into_remainder().chunks_exact_mut(keys) {
            panels::<L, 1>(panel, step, first, out);
            first += LANES;
        }
    }
}

/// The same for as many panels, of values from `first` on.
#[inline(always)]
unsafe fn panels<L: Lanes, const P: usize>(
    state: &mut [[f32; LANES]],
    step: &Step<'_>,
    first: usize,
    out: &mut [f32],
) {
    let keys = step.key.len().max(1);
    let mut written = [[0.0; LANES]; P];
    for (written, value) in
        written.as_flattened_mut().iter_mut().zip(step.value.get(first..).unwrap_or_default())
    {
        *written = *value;
    }
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        let decay = L::splat(step.decay);
        let mut found = [L::splat(0.0); P];
        if step.delta {
            for (i, key) in step.key.iter().enumerate() {
                let key = L::splat(*key);
                for (p, found) in found.iter_mut().enumerate() {
                    if let Some(state) = state.get(p * keys + i) {
                        *found = found.add_product(key, L::load(state));
                    }
                }
            }
        }
        let mut values = [L::splat(0.0); P];
        for ((value, written), found) in values.iter_mut().zip(&written).zip(found) {
            let left = L::load(written).add_product(L::splat(-step.decay), found);
            *value = left.product(L::splat(step.rate));
        }
        let mut sums = [L::splat(0.0); P];
        for (i, (key, query)) in step.key.iter().zip(step.query).enumerate() {
            let (key, query) = (L::splat(*key), L::splat(*query));
            for (p, (sum, value)) in sums.iter_mut().zip(values).enumerate() {
                if let Some(state) = state.get_mut(p * keys + i) {
                    let next = L::load(state).product(decay).add_product(key, value);
                    next.store(state);
                    *sum = sum.add_product(query, next);
                }
            }
        }
        for (sum, written) in sums.into_iter().zip(&mut written) {
            sum.store(written);
        }
    }
    let out = out.get_mut(first..).unwrap_or_default();
    out.iter_mut().zip(written.as_flattened()).for_each(|(y, x)| *y += *x);
}

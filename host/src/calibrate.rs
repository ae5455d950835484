//! What a model's matrices are multiplied with: second moments, for quantizing with care.

use crate::Result;
use crate::generate::forward;
use crate::quantize::Hessian;
use crate::session::Session;
use omex_core::engine::Wanted;
use omex_core::generate::Generation;
use omex_core::sample::{Sampler, Sampling};
use std::collections::BTreeMap;

/// Tokens that a model is shown.
const TOKENS: usize = 16384;
/// Tokens of one text that it writes itself.
const TEXT: usize = 128;

/// The inputs of each matrix that is wanted, by the tensor's number, while the model runs the text of
/// `data`, or, without any, texts that it writes itself from `first` on.
///
/// # Errors
/// A model that can't be run, being cancelled.
pub fn calibrate(
    session: &mut Session,
    data: Option<&[u32]>,
    first: u32,
    wanted: &(dyn Fn(u32) -> bool + Sync),
) -> Result<BTreeMap<u32, Hessian>> {
    let mut hessians: BTreeMap<u32, Hessian> = BTreeMap::new();
    let mut observe = |tensor: u32, x: &[f32]| {
        if wanted(tensor) {
            hessians.entry(tensor).or_insert_with(|| Hessian::new(x.len())).add(x);
        }
    };
    let context = session.plan().context as usize;
    let (failed, cancel) = (session.failure(), session.cancel().clone());
    let mut engine = session.engine()?;
    engine.observe(&mut observe);
    if let Some(ids) = data {
        for window in ids.get(..ids.len().min(TOKENS)).unwrap_or_default().chunks(context) {
            engine.reset();
            forward(&mut engine, window, Wanted::Last, &cancel, &failed, &mut |_, _| Ok(()))?;
        }
        return Ok(hessians);
    }
    let sampling = |seed| Sampling { temperature: 1.0, seed, ..Sampling::GREEDY };
    let (mut seen, mut seed) = (0, 0);
    while seen < TOKENS {
        engine.reset();
        let sampler = Sampler::new(sampling(seed));
        let mut text = Generation::prefill(&mut engine, sampler, &[first]).map_err(&failed)?;
        let mut length = 1;
        while length < TEXT.min(context) && text.next_token().map_err(&failed)?.is_some() {
            length += 1;
        }
        (seen, seed) = (seen + length, seed + 1);
        cancel.check()?;
    }
    Ok(hessians)
}

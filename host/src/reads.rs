//! What of its weights a pass reads.

use omex_core::ops::Reads;
use omex_core::program::{PartKind, Parts, Program, Tensor};

/// These parts, for tokens that ask for no adapter.
pub(crate) fn without_adapters(parts: &dyn Parts) -> impl Parts + '_ {
    move |part: u16, kind: PartKind, layer: u32| {
        kind != PartKind::Adapter && parts.plays(part, kind, layer)
    }
}

/// Bytes of weights that a pass of one token reads that asks for no adapter: every matrix and vector of
/// the parts that are played, and of the embedding the panel that the token's row is in.
#[must_use]
pub fn weight_bytes_per_token(program: &Program<'_>, parts: &dyn Parts) -> u64 {
    let parts = without_adapters(parts);
    let whole = program.ranges_in_order(&parts).map(|range| range.end - range.start);
    let chosen = chosen(program, &parts).map(|(_, part)| part.bytes());
    whole.chain(chosen).sum()
}

/// The matrices of which a pass reads the rows that its tokens choose, each with the part that one
/// token chooses.
pub(crate) fn chosen<'p>(
    program: &'p Program<'_>,
    parts: &'p dyn Parts,
) -> impl Iterator<Item = (Tensor, Tensor)> + 'p {
    let steps = program.steps(parts).filter(|(op, _)| op.reads() == Reads::Rows);
    steps.flat_map(|(op, layer)| {
        let mut found = vec![];
        op.weights(&mut |weight| found.extend(program.tensor(weight.at(layer))));
        found.into_iter().map(move |tensor| (tensor, op.part_per_token(&tensor)))
    })
}

//! What firmware has to be built with for an image: features of `omex-board`, and of `omex-core` below it.

use crate::Result;
use crate::package::Package;
use crate::plan::Kv;
use omex_core::ops::{Activation, Attend, Index, Mask, Norm, NormKind, Op};
use omex_core::program::{ALL, Program};
use omex_core::quant::Format;
use omex_core::state::State;
use omex_core::token::layout::{Kind, PreTokenizer, field};
use std::collections::BTreeSet;

/// The widest head of an attention that builds without `float` have room for.
const NARROW_HEAD: u32 = 256;
/// The features that playing a package needs, with a KV cache in this format.
///
/// # Errors
/// A package that is damaged.
pub fn of(package: &Package, kv: Kv) -> Result<BTreeSet<&'static str>> {
    let program = package.program()?;
    let mut features = of_program(&program);
    let has_cache = program.states().any(|state| matches!(state, State::Kv { .. }));
    if has_cache && kv == Kv::F32 {
        features.insert("unquantized");
    }
    if let Some(tables) = package.tokenizer_tables() {
        features.extend(of_tokenizer(tables));
    }
    Ok(features)
}

fn of_program(program: &Program<'_>) -> BTreeSet<&'static str> {
    let mut features = BTreeSet::new();
    for tensor in program.tensors() {
        if let Format::F32 | Format::F16 = tensor.format {
            features.insert("unquantized");
        }
    }
    // Firmware takes arrays where it plays graphs in signed bytes.
    if program.header().vocab_size == 0 {
        features.insert("int8");
    }
    if program.header().parts > 0 {
        features.insert("float");
    }
    for (op, layer) in program.steps(ALL) {
        features.insert(op.feature());
        if needs_float(program, &op, layer) {
            features.insert("float");
        }
    }
    features
}

/// True if one of its fields asks for more than an operation of `text` has without `float`.
fn needs_float(program: &Program<'_>, op: &Op, layer: u32) -> bool {
    match op {
        Op::Embed(op) => op.index == Index::Segment,
        Op::Norm(op) => op.kind == NormKind::Layer || scales_whole(program, op, layer),
        Op::Gated(op) => op.activation != Activation::Silu,
        Op::Attend(op) => looks_elsewhere(op) || has_wide_heads(program, op, layer),
        _ => false,
    }
}

/// A norm of pieces whose vectors are as long as the whole value.
fn scales_whole(program: &Program<'_>, op: &Norm, layer: u32) -> bool {
    let vectors = std::iter::once(op.weight).chain(op.bias);
    let mut lengths = vectors.filter_map(|vector| program.tensor(vector.at(layer)));
    let in_pieces = op.group != 0 && op.group != op.output.width;
    in_pieces && lengths.any(|vector| vector.columns == op.output.width)
}

fn looks_elsewhere(op: &Attend) -> bool {
    op.mask == Mask::Alibi || op.reach > 0 || op.head_scores.is_some() || op.cap != 0.0
}

fn has_wide_heads(program: &Program<'_>, op: &Attend, layer: u32) -> bool {
    let state = program.state(op.state.at(layer));
    matches!(state, Some(State::Kv { width, .. }) if width > NARROW_HEAD)
}

fn of_tokenizer(tables: &[u8]) -> BTreeSet<&'static str> {
    let is = |place: usize, byte: u8| tables.get(place) == Some(&byte);
    let tries = [Kind::WordPiece, Kind::Unigram];
    let few = [
        PreTokenizer::None,
        PreTokenizer::Gpt2,
        PreTokenizer::Gpt2Digits,
        PreTokenizer::Llama3,
        PreTokenizer::Qwen2,
    ];
    let mut features = BTreeSet::new();
    if tries.iter().any(|kind| is(field::KIND, *kind as u8)) {
        features.insert("piece-tries");
    }
    if !few.iter().any(|pre_tokenizer| is(field::PRE_TOKENIZER, *pre_tokenizer as u8)) {
        features.insert("scanners");
    }
    features
}

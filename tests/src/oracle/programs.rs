//! Random programs over tokens.

use super::blocks::{ADAPTERS, LASTING};
use super::choices::Choices;
use super::maker::{Made, Maker};
use super::rules::Rules;
use super::script::SEGMENTS;
use omex::graph::{LOGITS, Names, Node, PartShape, Port, ValueRef, ValueShape};
use omex_core::arena::Plan;
use omex_core::ops::{Embed, Index, Mask, Op, Select};
use omex_core::program::{ALL, BASE, NONE, PartKind, Parts, Per};
use omex_core::quant::Format;
use omex_core::state::kv::KvFormat;

/// The longest text of a test.
pub(super) const LONGEST: u32 = 64;

/// A program, and how it is to be played: what changes its numbers.
pub(super) struct Setting {
    pub(super) made: Made,
    pub(super) plan: Plan,
    pub(super) parts: &'static dyn Parts,
    /// How far numbers may be from the naive player's, as a share of the largest.
    pub(super) bound: f32,
}

impl Setting {
    pub(super) fn rules(&self, plan: Plan) -> Rules {
        Rules::new(&self.made.program(), plan, self.whole())
    }

    /// Tokens see all of a text, which one pass runs.
    pub(super) fn whole(&self) -> bool {
        let sees_all = |(op, _)| matches!(op, Op::Attend(op) if op.mask == Mask::Full);
        self.made.program().steps(ALL).any(sees_all)
    }
}

pub(super) fn make(choices: &[u8]) -> Setting {
    let mut maker = Maker::new(Choices::new(choices));
    let random = &mut maker.random;
    let formats: &[Format] = match random.below(3) {
        0 => &[Format::F32],
        1 => &[Format::F32, Format::F16],
        _ => &[Format::F32, Format::F16, Format::Int8, Format::Int4],
    };
    let masks: &[Mask] = match random.below(7) {
        0 => &[Mask::Full],
        1 => &[Mask::Full, Mask::Causal],
        2 => &[Mask::Alibi, Mask::Causal],
        _ => &[Mask::Causal],
    };
    let plan = plan(random);
    let parts = random.pick(&[ALL, ALL, BASE, NONE]);
    let exact = formats.len() < 4;
    // A number that is rounded to the next byte, up here and down there, moves everything behind it.
    let bound = match plan.kv_format {
        KvFormat::Single if exact => 2e-4,
        KvFormat::Half if exact => 5e-3,
        KvFormat::Int8 if exact => 0.05,
        _ => 0.15,
    };
    (maker.formats, maker.masks, maker.fits) = (formats, masks, plan.kv_capacity == LONGEST);
    Setting { made: whole(maker), plan, parts, bound }
}

/// What a cache holds, and how.
pub(super) fn plan(random: &mut Choices<'_>) -> Plan {
    let kv_capacity = if random.chance(4) { random.between(5, 20) } else { LONGEST };
    Plan {
        columns: LONGEST,
        logit_columns: LONGEST,
        kv_capacity,
        kv_sinks: random.below(5),
        kv_format: random.pick(&[
            KvFormat::Single,
            KvFormat::Single,
            KvFormat::Single,
            KvFormat::Half,
            KvFormat::Int8,
        ]),
        sequences: 1,
    }
}

fn whole(mut maker: Maker<'_>) -> Made {
    let (width, vocab_size) = (maker.random.between(2, 70), maker.random.between(2, 40));
    if maker.random.chance(2) {
        let parts = &mut maker.graph.parts;
        parts.extend(ADAPTERS.map(|name| (name.to_owned(), PartShape { kind: PartKind::Adapter })));
        parts.insert(LASTING.to_owned(), PartShape { kind: PartKind::Correction });
    }
    (maker.graph.vocab_size, maker.graph.context_length) = (vocab_size, LONGEST);
    let residual = maker.value(width);
    embed(&mut maker, &residual, width);
    for _ in 0..maker.random.between(1, 2) {
        maker.layers = maker.random.between(1, 3);
        let outside = std::mem::take(&mut maker.nodes);
        maker.block(&residual, width);
        let body = std::mem::replace(&mut maker.nodes, outside);
        if maker.layers == 1 {
            maker.nodes.extend(body);
        } else {
            let (subgraph, layers) = (maker.name("block"), maker.layers);
            maker.graph.subgraphs.insert(subgraph.clone(), body);
            maker.push(Node::Repeat { subgraph, layers });
        }
    }
    maker.layers = 1;
    end(&mut maker, &residual, [width, vocab_size]);
    maker.compile()
}

/// The sum of a token's row, perhaps its position's, its segment's, and a row for all, in any order.
fn embed(maker: &mut Maker<'_>, residual: &ValueRef, width: u32) {
    let offset = maker.random.pick(&[0, 2]);
    let mut tables = vec![(Index::Token, maker.graph.vocab_size, 0)];
    if maker.random.chance(2) {
        tables.push((Index::Position, LONGEST + offset, offset));
    }
    if maker.random.chance(4) {
        tables.push((Index::First, 1, 0));
    }
    if maker.random.chance(3) {
        tables.push((Index::Segment, SEGMENTS, 0));
    }
    let first = maker.random.below(tables.len() as u32) as usize;
    tables.rotate_left(first);
    for (number, (index, rows, offset)) in tables.into_iter().enumerate() {
        let weight = maker.tensor(maker.formats[0], rows, width, 0.0, 0);
        let (output, accumulate) = (residual.clone(), number > 0);
        maker.push(Embed::<Names> { weight, output, index, offset, accumulate });
    }
}

fn end(maker: &mut Maker<'_>, residual: &ValueRef, [width, vocab_size]: [u32; 2]) {
    let (selected, last) = (maker.value(width), maker.value(width));
    maker.push(Select::<Names> { input: residual.clone(), output: selected.clone() });
    for value in [&selected.name, &last.name] {
        maker.graph.values.get_mut(value).unwrap().per = Per::Output;
    }
    maker.norm(&selected, &last, width, 0);
    let logits = ValueShape { width: vocab_size, per: Per::Output, ..ValueShape::default() };
    maker.graph.values.insert(LOGITS.into(), logits);
    maker.graph.outputs = vec![Port::of(LOGITS)];
    maker.linear(&last, [width, vocab_size], &ValueRef::all(LOGITS), false);
}

//! Programs that nobody thought of, and whether the engine computes what a naive player computes.

mod blocks;
mod choices;
#[cfg(test)]
mod coverage;
mod images;
mod known;
mod maker;
mod naive;
mod play;
mod programs;
mod rules;
mod script;
mod tensors;

use choices::Choices;
use known::Known;
use naive::{NaiveBytes, NaiveTensors};
use omex::pool::Pool;
use omex_core::arena::Plan;
use omex_core::ops::Op;
use omex_core::program::ALL;
use omex_core::simd::{Kernels, PORTABLE};
use omex_hal::Serial;
use play::{Way, infer, infer_floats};
use script::{plain, write};

/// Makes a program of these choices, the first eight of which begin all that is random, and has it
/// played naively and by the engine.
///
/// # Panics
/// They find other numbers; or the engine finds other bits when it is used in another way.
pub fn check_program(choices: &[u8], pool: &Pool) {
    match takes(choices) {
        Takes::Images => check_images(choices, pool),
        Takes::Tensors => check_tensors(choices, pool),
        Takes::Texts => check_texts(choices, pool),
    }
}

/// What a program is over.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Texts,
    Images,
    Tensors,
}

fn takes(choices: &[u8]) -> Takes {
    match Choices::new(choices).below(8) {
        0 => Takes::Images,
        1 | 2 => Takes::Tensors,
        _ => Takes::Texts,
    }
}

/// A program over tokens, in passes of any length, over texts that go back, branch and are forked, with
/// any kernels, threads and pages.
fn check_texts(choices: &[u8], pool: &Pool) {
    let setting = programs::make(choices);
    let mut random = Choices::others(choices);
    let mut plan = |sequences| {
        let columns = random.pick(&[8, 24]);
        let logit_columns = random.between(1, columns);
        Plan { columns, logit_columns, sequences, ..setting.plan }
    };
    let simple = Way { kernels: &PORTABLE, parallel: &Serial, page_size: 64, plan: setting.plan };
    let ways = [
        Way { kernels: fast(), page_size: 512, plan: plan(1), ..simple },
        Way { parallel: pool, page_size: 4096, plan: plan(3), ..simple },
    ];
    let scripts = ways.each_ref().map(|way| write(&mut random, &setting.rules(way.plan)));
    let known = Known::of(&setting, &simple, &scripts.concat());
    for (way, script) in ways.iter().zip(&scripts) {
        known.check(&setting, way, script, choices);
    }
    if let Some(text) = known.longest().filter(|_| !setting.whole()) {
        known.check(&setting, &simple, &plain(text, true), choices);
    }
    known.check_naively(&setting, choices);
}

/// A program over an image.
fn check_images(choices: &[u8], pool: &Pool) {
    let made = images::make(choices);
    let program = made.program();
    let mut random = Choices::others(choices);
    let width = program.inputs().next().map_or(0, |port| port.value.width);
    let image: Vec<i8> = (0..width).map(|_| random.byte()).collect();
    let expected = NaiveBytes::new(&program, &made.weights).infer(&image);
    // What is computed in fractions may be rounded to the next byte.
    let fractions = program.steps(ALL).any(|(op, _)| matches!(op, Op::Softmax(_)));
    let plan = programs::plan(&mut random);
    let simple = Way { kernels: &PORTABLE, parallel: &Serial, page_size: 64, plan };
    let fast = Way { kernels: fast(), parallel: pool, page_size: 4096, ..simple };
    for way in [simple, fast] {
        let found = infer(&made, &way, &image);
        let near = |x: &i8, y: &i8| x.abs_diff(*y) <= u8::from(fractions);
        let same =
            found.len() == expected.len() && found.iter().zip(&expected).all(|(x, y)| near(x, y));
        assert!(same, "{choices:?}: {found:?}, naively {expected:?}: {:?}", made.graph);
    }
}

/// A program over tensors of floats.
fn check_tensors(choices: &[u8], pool: &Pool) {
    let made = tensors::make(choices);
    let program = made.program();
    let mut random = Choices::others(choices);
    let width = program.inputs().next().map_or(0, |port| port.value.width);
    let inputs = [(); 2].map(|()| (0..width).map(|_| 2.0 * random.unit()).collect::<Vec<f32>>());
    let mut naive = NaiveTensors::new(&program, &made.weights);
    let expected: Vec<f32> = inputs.iter().flat_map(|input| naive.infer(input)).collect();
    let plan = programs::plan(&mut random);
    let simple = Way { kernels: &PORTABLE, parallel: &Serial, page_size: 64, plan };
    let fast = Way { kernels: fast(), parallel: pool, page_size: 4096, ..simple };
    let found = [simple, fast].map(|way| infer_floats(&made, &way, &inputs));
    let bits = |found: &[f32]| found.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&found[0]), bits(&found[1]), "{choices:?}: {:?}", made.graph);
    let largest = expected.iter().fold(1.0f32, |most, x| most.max(x.abs()));
    // Integers of kernels may be rounded otherwise where sums differ by a bit.
    let bound = if made.rounds() { 3e-2 } else { 2e-4 };
    let near = |x: &f32, y: &f32| (x - y).abs() <= bound * largest;
    let same =
        found[0].len() == expected.len() && found[0].iter().zip(&expected).all(|(x, y)| near(x, y));
    assert!(same, "{choices:?}: {:?}, naively {expected:?}: {:?}", found[0], made.graph);
}

fn fast() -> &'static Kernels {
    omex::dispatch::kernels().expect("kernels for this machine")
}

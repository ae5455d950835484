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

use choices::Choices;
use known::Known;
use naive::NaiveBytes;
use omex::pool::Pool;
use omex_core::arena::Plan;
use omex_core::ops::Op;
use omex_core::program::ALL;
use omex_core::simd::{Kernels, PORTABLE};
use omex_hal::Serial;
use play::{Way, infer};
use script::{plain, write};

/// Makes a program of these choices, the first eight of which begin all that is random, and has it
/// played naively and by the engine.
///
/// # Panics
/// They find other numbers; or the engine finds other bits when it is used in another way.
pub fn check_program(choices: &[u8], pool: &Pool) {
    if takes_images(choices) {
        check_images(choices, pool);
    } else {
        check_texts(choices, pool);
    }
}

fn takes_images(choices: &[u8]) -> bool {
    Choices::new(choices).chance(8)
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

fn fast() -> &'static Kernels {
    omex::dispatch::kernels().expect("kernels for this machine")
}

//! Programs, played by the engine.

use super::images::{INPUT, OUTPUT};
use super::maker::Made;
use super::programs::Setting;
use super::script::Step;
use omex_core::arena::Plan;
use omex_core::engine::{Engine, Model};
use omex_core::error::RunError;
use omex_core::simd::Kernels;
use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager, Parallel};
use omex_hal_adapters::SlicePager;
use std::cell::Cell;
use zerocopy::IntoBytes;

/// How a program is played: the bits are the same.
pub(super) struct Way<'w> {
    pub(super) kernels: &'w Kernels,
    pub(super) parallel: &'w dyn Parallel,
    pub(super) page_size: u32,
    pub(super) plan: Plan,
}

/// Pages of which it may be found, when all has been played, that they changed on the way.
struct Changing<'p> {
    pages: SlicePager<'p>,
    changed: &'p Cell<bool>,
}

impl Pager for Changing<'_> {
    fn geometry(&self) -> PageGeometry {
        self.pages.geometry()
    }

    fn is_stable(&self, page: u32) -> bool {
        self.pages.is_stable(page)
    }

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        self.pages.page(page)
    }

    fn discard(&mut self, page: u32) {
        self.pages.discard(page);
    }

    fn intact(&self) -> Result<(), PageError> {
        let error = PageError { page: 0, kind: PageErrorKind::Changed };
        if self.changed.get() { Err(error) } else { Ok(()) }
    }
}

/// Shows an engine that plays this program, and what makes its passes fail at their end.
fn with_engine<T>(
    made: &Made,
    way: &Way<'_>,
    show: impl FnOnce(Engine<'_>, &Cell<bool>) -> T,
) -> T {
    let (program, end) = (made.program(), made.weights.len() as u64);
    let pages = made.weights.chunks(way.page_size as usize);
    let checksums: Vec<_> = pages.map(|page| crc32c::crc32c(page).to_le_bytes()).collect();
    let model = Model { program, plan: way.plan, end, checksums: &checksums, first_checked: 0 };
    let changed = Cell::new(false);
    let pages = SlicePager::new(&made.weights, way.page_size).unwrap();
    let mut pager = Changing { pages, changed: &changed };
    let mut memory = vec![0u128; model.layout(&pager).unwrap().total().div_ceil(16) as usize];
    let memory = memory.as_mut_bytes();
    let engine = Engine::new(model, memory, &mut pager, way.kernels, way.parallel).unwrap();
    show(engine, &changed)
}

/// The outputs of all passes of a script that are wanted.
pub(super) fn play(setting: &Setting, way: &Way<'_>, script: &[Step]) -> Vec<Vec<f32>> {
    with_engine(&setting.made, way, |mut engine, changed| {
        engine.set_parts(setting.parts);
        let mut found = vec![];
        for step in script {
            match step {
                Step::Pass(inputs, seen) => {
                    engine.pass(inputs.iter().copied()).unwrap();
                    found.extend((0..seen.len()).map(|column| engine.logits(column).to_vec()));
                }
                Step::Refused(inputs) => assert!(engine.pass(inputs.iter().copied()).is_err()),
                Step::Failed(inputs) => {
                    changed.set(true);
                    assert!(matches!(engine.pass(inputs.iter().copied()), Err(RunError::Page(_))));
                    changed.set(false);
                }
                Step::Accept(column) => engine.accept(*column).unwrap(),
                Step::Fork([from, to], length) => engine.fork(*from, *to, *length as u32).unwrap(),
            }
        }
        found
    })
}

/// What a program makes of floats, pass after pass.
pub(super) fn infer_floats(made: &Made, way: &Way<'_>, inputs: &[Vec<f32>]) -> Vec<f32> {
    with_engine(made, way, |mut engine, _| {
        let program = made.program();
        let port = program.outputs().find(|port| port.name == OUTPUT).unwrap();
        let mut outputs = vec![];
        for input in inputs {
            engine.input_mut(INPUT).copy_from_slice(input.as_bytes());
            engine.infer().unwrap();
            outputs.extend_from_slice(engine.output(&port, 0));
        }
        outputs
    })
}

/// What a program makes of an image.
pub(super) fn infer(made: &Made, way: &Way<'_>, image: &[i8]) -> Vec<i8> {
    with_engine(made, way, |mut engine, _| {
        engine.input_mut(INPUT).copy_from_slice(image.as_bytes());
        engine.infer().unwrap();
        let program = made.program();
        let port = program.outputs().find(|port| port.name == OUTPUT).unwrap();
        engine.output_i8(&port, 0).to_vec()
    })
}

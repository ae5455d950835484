//! Weights in two planes: the base alone or with the residual, layer by layer, between passes.

use omex::cancel::Cancel;
use omex::convert::{Calibration, ConvertOptions};
use omex::dispatch;
use omex::export::{Dtype, gguf};
use omex::package::Package;
use omex::pager::PageSource;
use omex::plan::{MemoryPlan, Residency, RunPrecision};
use omex::pressure::waiting;
use omex::quantize::Precision;
use omex::session::{Session, SessionOptions, plan_model};
use omex_core::engine::{Engine, Wanted};
use omex_core::image;
use omex_core::ops::Reads;
use omex_core::program::{ALL, BASE, PartKind, Parts};
use omex_core::simd::PORTABLE;
use omex_hal::Serial;
use omex_hal_adapters::{Event, TracingPager};
use omex_tests::{Converted, FaultyPager, Setting, Synthetic, checksum, logits};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use zerocopy::IntoBytes;

const IDS: [u32; 12] = [1, 15, 27, 3, 280, 9, 9, 77, 131, 2, 60, 11];

fn read(precision: RunPrecision) -> Setting<'static> {
    Setting { precision, ..Setting::default() }
}

/// Corrections in some layers.
fn in_layers(layers: Range<u32>) -> impl Parts {
    move |_: u16, kind: PartKind, layer: u32| {
        assert_eq!(kind, PartKind::Correction);
        layers.contains(&layer)
    }
}

fn logits_behind(engine: &mut Engine<'_>, id: u32) -> Vec<f32> {
    engine.forward(&[id], Wanted::Last).unwrap();
    engine.logits(0).to_vec()
}

/// Logits of one token after another, each in its planes.
fn play(model: &Path, planes: &[&dyn Parts]) -> u32 {
    let mut session = Setting::default().open(model, 1).unwrap();
    let mut engine = session.engine().unwrap();
    let rows = planes.iter().zip(IDS).map(|(planes, id)| {
        engine.set_parts(*planes);
        logits_behind(&mut engine, id)
    });
    checksum(&rows.collect())
}

#[test]
fn base_planes_alone_are_the_int4_package_and_its_image() {
    for source in [Synthetic::odd(), Synthetic::odd_untied()] {
        let planes = Converted::in_planes(&source);
        let int4 = Converted::new(&source, Some(Precision::Int4));
        let ids = &IDS.map(|id| id % 131);
        let expected = logits(&int4.path, ids, &Setting::default());
        assert!(logits(&planes.path, ids, &read(RunPrecision::Base)) == expected);
        let full = logits(&planes.path, ids, &Setting::default());
        assert!(full != expected);
        for (precision, expected) in [(RunPrecision::Base, expected), (RunPrecision::Full, full)] {
            let setting = Setting { chunks: &[1], ..read(precision) };
            assert!(logits(&planes.image(512, 4, 64), ids, &setting) == expected);
        }
    }
}

#[test]
fn planes_change_between_passes_and_by_layer() {
    let model = Converted::in_planes(&Synthetic::odd());
    // The model has three layers.
    let same = |planes: &dyn Parts| play(&model.path, &[planes; IDS.len()]);
    assert_eq!(same(&in_layers(0..3)), same(ALL));
    assert_eq!(same(&in_layers(3..9)), same(BASE));
    let ways: [&dyn Parts; 5] = [BASE, ALL, &in_layers(0..1), &in_layers(1..2), &in_layers(1..3)];
    let mut sums: Vec<_> = ways.map(same).into();
    let (mut down, mut up) = ([ALL; IDS.len()], [BASE; IDS.len()]);
    down[5..].fill(BASE);
    up[5..].fill(ALL);
    sums.extend([play(&model.path, &down), play(&model.path, &up)]);
    let different: BTreeSet<_> = sums.iter().collect();
    assert_eq!(different.len(), sums.len(), "{sums:x?}");
}

/// Pages of an image that the engine asks for or announces in one pass, from the second pass on.
fn pages_of_a_pass(image: &Path, planes: &dyn Parts) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let events = std::cell::RefCell::new(vec![]);
    let device = FaultyPager::new(std::fs::read(image).unwrap(), 512);
    let mut pager = TracingPager::new(device, |event| events.borrow_mut().push(event));
    let mut tables = vec![0; 1 << 16];
    let (_, model, _) = image::open(&mut pager, PORTABLE.crc32c, &mut tables).unwrap();
    let mut expected = BTreeSet::new();
    let pages = |range: Range<u64>| (range.start / 512) as u32..=((range.end - 1) / 512) as u32;
    model.program.ranges_in_order(planes).for_each(|range| expected.extend(pages(range)));
    for (op, layer) in model.program.steps(planes).filter(|(op, _)| op.reads() == Reads::Rows) {
        op.weights(&mut |weight| {
            let tensor = model.program.tensor(weight.at(layer)).unwrap();
            expected.extend(pages(tensor.address..tensor.address + tensor.bytes()));
        });
    }
    let mut memory = vec![0u128; model.layout(&pager).unwrap().total().div_ceil(16) as usize];
    let memory = memory.as_mut_bytes();
    let mut engine = Engine::new(model, memory, &mut pager, &PORTABLE, &Serial).unwrap();
    engine.set_parts(planes);
    engine.forward(&[7], Wanted::Last).unwrap();
    events.borrow_mut().clear();
    engine.forward(&[8], Wanted::Last).unwrap();
    drop(pager);
    let touched = events.into_inner().into_iter().flat_map(|event| match event {
        Event::Page { page, .. } => page..page + 1,
        Event::Want { first, end } => first..end,
        _ => 0..0,
    });
    (touched.collect(), expected)
}

#[test]
fn pages_of_residuals_that_are_not_played_are_neither_read_nor_announced() {
    // Planes of several pages each.
    let source = Synthetic::new(64, 160, 3, 4, 2, 96, 64);
    let model = Converted::in_planes(&source);
    let image = model.image(512, 1, 16);
    let mut read = vec![];
    for planes in [BASE, &in_layers(1..2)] {
        let (touched, expected) = pages_of_a_pass(&image, planes);
        assert!(touched.is_subset(&expected), "{:?}", touched.difference(&expected));
        read.push(touched.len());
    }
    let (touched, expected) = pages_of_a_pass(&image, ALL);
    assert!(expected.is_subset(&touched), "{:?}", expected.difference(&touched));
    read.push(expected.len());
    assert!(read.is_sorted() && read[0] * 5 < read[2] * 4, "{read:?} pages");
}

#[test]
fn ranges_come_in_the_order_of_the_paged_space() {
    let model = Converted::in_planes(&Synthetic::odd_untied());
    let session = Setting::default().open(&model.path, 1).unwrap();
    let program = session.program().unwrap();
    let [full, base] = [ALL, BASE].map(|p| program.ranges_in_order(p).collect::<Vec<_>>());
    assert!(full.windows(2).all(|pair| pair[0].end <= pair[1].start), "{full:?}");
    let index = Package::open(&model.path).unwrap().index;
    let tensors = index.tensors.iter().filter(|t| t.name != "embedding");
    let (bases, residuals): (Vec<_>, Vec<_>) = tensors.partition(|t| t.plane == 0);
    assert_eq!(base.len(), bases.len());
    assert_eq!(full.len(), bases.len() + residuals.len());
    assert!(base.iter().all(|range| full.contains(range)));
    // Four matrices in each of two layers.
    assert_eq!(residuals.len(), 8);
}

/// A model whose base planes are much less than all of it.
fn large() -> Converted {
    let source = Synthetic::new(512, 1408, 4, 8, 4, 256, 512);
    let (precision, calibration) = (Some(Precision::Int4), Calibration::Off);
    Converted::with(
        &source,
        &ConvertOptions { precision, residual: true, calibration, ..Default::default() },
    )
}

#[test]
fn automatic_precision_is_full_where_all_fits_and_base_where_only_that_does() {
    let model = large();
    let plan = |memory, precision| -> MemoryPlan {
        let pages = None;
        plan_model(
            &model.path,
            &SessionOptions { memory, precision, pages, ..SessionOptions::default() },
        )
        .unwrap_or_else(|e| panic!("{e}"))
    };
    let full = plan(None, RunPrecision::Auto);
    assert_eq!((full.precision, full.residency), (RunPrecision::Full, Residency::Mapped));
    assert_eq!(full, plan(None, RunPrecision::Full));
    let base = plan(None, RunPrecision::Base);
    assert!(base.total * 4 < full.total * 3, "{} {}", base.total, full.total);
    for (memory, precision, residency) in [
        (full.total, RunPrecision::Full, true),
        (base.total, RunPrecision::Base, true),
        (base.bytes.weights / 2, RunPrecision::Full, false),
    ] {
        let found = plan(Some(memory), RunPrecision::Auto);
        assert_eq!(found.precision, precision, "{memory}");
        assert_eq!(found.residency == Residency::Mapped, residency, "{memory}");
    }
    let plain = Converted::new(&Synthetic::odd(), Some(Precision::Int8));
    let options = SessionOptions { precision: RunPrecision::Base, ..SessionOptions::default() };
    assert_eq!(plan_model(&plain.path, &options).unwrap().precision, RunPrecision::Full);
}

#[test]
fn every_setting_gives_the_same_bits_in_either_precision() {
    let model = Converted::in_planes(&Synthetic::odd());
    for precision in [RunPrecision::Base, RunPrecision::Full] {
        let mut sums = BTreeSet::new();
        for kernels in dispatch::available() {
            for (threads, pages) in [(1, PageSource::Mmap), (3, PageSource::Read)] {
                for chunks in [&[16][..], &[1], &[5, 3, 7]] {
                    let setting = Setting {
                        kernels: Some(kernels),
                        threads: Some(threads),
                        pages: Some(pages),
                        chunks,
                        ..read(precision)
                    };
                    sums.insert(checksum(&logits(&model.path, &IDS, &setting)));
                }
            }
        }
        assert_eq!(sums.len(), 1, "{precision}: {sums:x?}");
    }
}

#[test]
fn pressure_leaves_residuals_out_step_by_step_and_relief_brings_them_back() {
    let model = Converted::in_planes(&Synthetic::new(32, 32, 6, 4, 1, 64, 64));
    let open = |precision| {
        Session::open(&model.path, &SessionOptions { precision, ..SessionOptions::default() })
            .unwrap()
    };
    let session = open(RunPrecision::Auto);
    assert!(open(RunPrecision::Full).pressure_watch().is_none());
    let watch = session.pressure_watch().unwrap();
    let plays = |kind, layer: &u32| watch.plays(1, kind, *layer);
    let after = |waiting: f64| {
        watch.answer(waiting);
        assert!((0..6).all(|layer| plays(PartKind::Adapter, &layer)));
        (0..6).filter(|layer| plays(PartKind::Correction, layer)).count()
    };
    assert_eq!([0.0, 12.5, 3.0, 40.0, 9.0, 9.0, 9.0].map(after), [6, 4, 4, 3, 1, 0, 0]);
    assert_eq!([3.0, 0.0, 0.0, 0.5, 0.0, 0.0].map(after), [0, 1, 3, 4, 6, 6]);
    let text = "some avg10=7.25 avg60=1.00 avg300=0.00 total=5\nfull avg10=1.00 avg60=0.00\n";
    assert_eq!((waiting(text), waiting("full avg10=1.00"), waiting("")), (Some(7.25), None, None));
}

#[test]
fn a_session_plays_what_its_plan_says_and_what_its_watch_leaves() {
    let model = Converted::in_planes(&Synthetic::odd());
    let same = |planes: &dyn Parts| play(&model.path, &[planes; IDS.len()]);
    let [base, full] = [same(BASE), same(ALL)];
    for (precision, under_pressure) in
        [(RunPrecision::Base, base), (RunPrecision::Full, full), (RunPrecision::Auto, base)]
    {
        let mut session = read(precision).open(&model.path, 1).unwrap();
        let shared = session.model();
        let mut played = |waiting: f64| {
            let mut engine = session.engine().unwrap();
            if let Some(watch) = shared.pressure_watch() {
                (0..4).for_each(|_| watch.answer(waiting));
            }
            checksum(&IDS.map(|id| logits_behind(&mut engine, id)).into())
        };
        assert_eq!(played(50.0), under_pressure, "{precision}");
        // A text that begins has all that the plan says.
        let calm = if precision == RunPrecision::Base { base } else { full };
        assert_eq!(played(3.0), calm, "{precision}");
    }
}

#[test]
fn both_planes_are_one_tensor_of_floats_in_a_gguf() {
    let model = Converted::in_planes(&Synthetic::new(64, 96, 1, 4, 2, 96, 64));
    let path = model.folder.path().join("model.gguf");
    let package = Package::open(&model.path).unwrap();
    let written = gguf::write(&package, &path, Dtype::F32, &Cancel::default(), &mut |_, _| {});
    let written = written.unwrap();
    let sums = written.groups.iter().find(|group| group.from == "int4+4");
    assert!(sums.is_some_and(|group| group.to == "f32" && group.tensors == 7), "{written:?}");
}

#[test]
fn layers_are_not_counted_to_128() {
    // The last of 200 layers alone has its corrections, and not those that a set of bits takes it for.
    let options = ConvertOptions {
        precision: Some(Precision::Int4),
        residual: true,
        calibration: Calibration::Off,
        ..Default::default()
    };
    let model = Converted::with(&Synthetic::new(32, 32, 200, 4, 1, 64, 64), &options);
    let with = |layers: Range<u32>| {
        let parts = in_layers(layers);
        let mut session = Setting::default().open(&model.path, 1).unwrap();
        let mut engine = session.engine().unwrap();
        engine.set_parts(&parts);
        checksum(&vec![logits_behind(&mut engine, 3)])
    };
    let sums = [with(0..0), with(199..200), with(127..200), with(127..128), with(0..200)];
    assert_eq!(BTreeSet::from(sums).len(), sums.len(), "{sums:x?}");
}

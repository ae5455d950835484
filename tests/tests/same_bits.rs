//! Logits are the same bits whatever computes them, and however the work is cut up.

use omex::dispatch;
use omex::import::{Container, open};
use omex::pager::PageSource;
use omex::plan::{Kv, RunPrecision};
use omex::quantize::Precision;
use omex_tests::{
    Converted, Rows, Setting, Synthetic, board, check_memory, checksum, greedy_logits, json_of,
    logits, mix, omex, pack_with, require_shared, run, shipped_model,
};
use std::path::Path;
use std::process::Command;

/// Everything that must not matter, in every combination.
fn settings(context: Option<u32>, kv: Option<Kv>) -> Vec<(String, Setting<'static>)> {
    const CHUNKS: [&[usize]; 3] = [&[64], &[1], &[5, 3, 7]];
    let mut settings = vec![];
    for kernels in dispatch::available() {
        for threads in [1, 2, 3] {
            for pages in [PageSource::Mmap, PageSource::Read] {
                for chunks in CHUNKS {
                    let what = format!("{} × {threads}, {pages:?}, {chunks:?}", kernels.name);
                    let (kernels, threads, pages) = (Some(kernels), Some(threads), Some(pages));
                    let memory = None;
                    let precision = RunPrecision::Full;
                    let how =
                        Setting { kernels, threads, pages, memory, context, kv, precision, chunks };
                    settings.push((what, how));
                }
            }
        }
    }
    settings
}

fn ids(count: u32, vocabulary: u32) -> Vec<u32> {
    (0..count).map(|i| (i * i * 7 + i * 3 + 1) % vocabulary).collect()
}

/// All combinations give one checksum, which is returned.
fn assert_same(what: &str, model: &Path, ids: &[u32], context: Option<u32>) -> u32 {
    assert_same_with(what, model, ids, context, None)
}

fn assert_same_with(
    what: &str,
    model: &Path,
    ids: &[u32],
    context: Option<u32>,
    kv: Option<Kv>,
) -> u32 {
    let mut first: Option<u32> = None;
    for (setting, how) in settings(context, kv) {
        let found = checksum(&logits(model, ids, &how));
        assert_eq!(found, *first.get_or_insert(found), "{what}: {setting}");
    }
    println!("{what}: {:08x}", first.unwrap());
    first.unwrap()
}

const PRECISIONS: [Precision; 4] =
    [Precision::F32, Precision::F16, Precision::Int8, Precision::Int4];

/// A package of each precision.
fn packages_of(source: &dyn Container) -> Vec<(String, Converted)> {
    PRECISIONS.map(|p| (format!("{p:?}"), Converted::new(source, Some(p)))).into()
}

/// And one in planes, and one whose layers have different ones.
fn packages(source: &dyn Container) -> Vec<(String, Converted)> {
    let each = packages_of(source);
    let mixed = mix(source, &[Precision::F16, Precision::Int8, Precision::Int4, Precision::F32]);
    let planes = Converted::in_planes(source);
    each.into_iter().chain([("planes".to_owned(), planes), ("mixed".to_owned(), mixed)]).collect()
}

#[test]
fn kernels_threads_pagers_and_chunks_change_nothing_on_odd_shapes() {
    for (name, model, vocabulary) in
        [("odd", Synthetic::odd(), 283), ("odd, untied", Synthetic::odd_untied(), 131)]
    {
        let mut sums = vec![];
        for (what, package) in packages(&model) {
            sums.push(assert_same(
                &format!("{name}, {what}"),
                &package.path,
                &ids(45, vocabulary),
                None,
            ));
        }
        sums.sort_unstable();
        sums.dedup();
        assert_eq!(sums.len(), 6, "each package has weights of its own");
    }
}

#[test]
fn kernels_threads_pagers_and_chunks_change_nothing_on_a_trained_model() {
    let source = open(&require_shared!("models/stories260K/stories260K.bin"), None).unwrap();
    for (what, package) in packages_of(&*source) {
        assert_same(&format!("stories260K, {what}"), &package.path, &ids(33, 512), None);
    }
}

/// The ring overwrites positions that earlier tokens of the same pass still see.
#[test]
fn chunks_change_nothing_once_a_text_is_longer_than_the_cache() {
    for precision in [Precision::F32, Precision::Int8] {
        let package = Converted::new(&Synthetic::odd(), Some(precision));
        for context in [1, 2, 5, 16] {
            let what = format!("{precision:?}, {context} positions");
            let short = assert_same(&what, &package.path, &ids(40, 283), Some(context));
            let long = checksum(&logits(&package.path, &ids(40, 283), &Setting::default()));
            assert_ne!(short, long, "a cache of {context} forgets");
        }
    }
}

/// The format of the cache changes bits; what else must not matter does not, with a ring or without.
#[test]
fn an_int8_cache_gives_the_same_bits_whatever_computes_it() {
    for precision in [Precision::F32, Precision::Int8] {
        let package = Converted::new(&Synthetic::odd(), Some(precision));
        let ids = ids(40, 283);
        for context in [None, Some(1), Some(5), Some(16)] {
            let sums = [Kv::F16, Kv::F32, Kv::Int8].map(|kv| {
                let what = format!("{precision:?}, {context:?}, {kv} cache");
                assert_same_with(&what, &package.path, &ids, context, Some(kv))
            });
            let [half, single, int8] = sums;
            assert!(half != single && half != int8 && single != int8, "{context:?}: {sums:x?}");
            let image = package.image_with(512, 4, context.unwrap_or(64), Some(Kv::Int8));
            let found = checksum(&one_by_one(&image, &ids, &Setting::default()));
            assert_eq!(found, int8, "{precision:?}, an image, {context:?}");
        }
    }
}

/// One token after another, as a board does: images plan for the logits of one.
fn one_by_one(model: &Path, ids: &[u32], setting: &Setting<'_>) -> Rows {
    logits(model, ids, &Setting { chunks: &[1], ..*setting })
}

#[test]
fn images_with_pages_of_any_size_say_what_the_package_says() {
    for (what, package) in packages(&Synthetic::odd()) {
        let (ids, context) = (ids(24, 283), 16);
        let setting = Setting { context: Some(context), ..Setting::default() };
        let expected = checksum(&logits(&package.path, &ids, &setting));
        for bits in 9..=20 {
            let page_size = 1 << bits;
            let image = package.image(page_size, 1, context);
            for (kernels, pages) in dispatch::available()
                .into_iter()
                .flat_map(|k| [PageSource::Mmap, PageSource::Read].map(|p| (k, p)))
            {
                let setting =
                    Setting { kernels: Some(kernels), pages: Some(pages), ..Setting::default() };
                let found = checksum(&one_by_one(&image, &ids, &setting));
                assert_eq!(
                    found, expected,
                    "{what}: pages of {page_size}, {}, {pages:?}",
                    kernels.name
                );
            }
        }
    }
}

#[test]
fn prompts_in_passes_of_any_length_lead_to_the_same_text() {
    let package = Converted::new(&Synthetic::odd(), Some(Precision::Int8));
    let prompt = ids(23, 283);
    let mut first = None;
    for columns in [1, 2, 3, 7, 8, 23, 64] {
        let image = package.image(1024, columns, 16);
        let (ids, rows) = greedy_logits(&image, &prompt, 12, &Setting::default());
        let found = (ids, checksum(&rows));
        assert_eq!(found, *first.get_or_insert_with(|| found.clone()), "passes of {columns}");
    }
}

#[test]
fn the_shipped_model_says_the_same_from_package_and_image() {
    let source = open(&shipped_model(), None).unwrap();
    for precision in [Precision::Int8, Precision::Int4] {
        let package = Converted::new(&*source, Some(precision));
        let prompt = ids(9, 576);
        let setting = Setting { context: Some(48), ..Setting::default() };
        let expected = greedy_logits(&package.path, &prompt, 60, &setting);
        let image = package.image(1024, 2, 48);
        assert_eq!(
            greedy_logits(&image, &prompt, 60, &Setting::default()),
            expected,
            "{precision:?}"
        );
    }
}

/// CPUs that QEMU can be, and the kernels that each is the least to have.
const ARM: [(&str, &str); 3] =
    [("cortex-a53", "portable"), ("cortex-a53", "neon"), ("cortex-a76", "neon+dotprod")];

/// `omex` for 64-bit Arm under user emulation; `cargo xtask test` builds it and says where it is.
#[test]
fn arm_computes_the_same_bits() {
    let Some(binary) = std::env::var_os("OMEX_AARCH64") else {
        println!("skipped: OMEX_AARCH64 names no omex for aarch64 (cargo xtask test builds one)");
        return;
    };
    for (name, package) in packages(&Synthetic::odd()) {
        let image = package.image(512, 4, 16);
        let int8 = package.image_with(512, 4, 16, Some(Kv::Int8));
        let ids: Vec<_> = ids(24, 283).iter().map(u32::to_string).collect();
        for model in [&package.path, &image, &int8] {
            let args = [
                "logits",
                model.to_str().unwrap(),
                "--ids",
                &ids.join(","),
                "--json",
                "--threads",
                "2",
            ];
            let here = run(&mut omex(args));
            for (cpu, kernels) in ARM {
                let mut arm = Command::new("qemu-aarch64");
                arm.env("QEMU_CPU", cpu);
                let there = run(arm.env("OMEX_KERNELS", kernels).arg(&binary).args(args));
                let what = format!("{name}, {}, {kernels}", model.display());
                assert_eq!(json_of(&there), json_of(&here), "{what}");
                assert_eq!(there.out, here.out, "{what}");
            }
        }
    }
}

/// The core as a WebAssembly module under Node.js; `cargo xtask test` builds it and says where it
/// is.
#[test]
fn web_assembly_computes_the_same_bits() {
    let Some(module) = std::env::var_os("OMEX_WASM") else {
        println!("skipped: OMEX_WASM names no module (cargo xtask test builds one)");
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("wasm/run.mjs");
    for (name, package) in packages(&Synthetic::odd()) {
        for (columns, kv) in [(1, None), (4, Some(Kv::Int8)), (8, None)] {
            let image = package.image_with(512, columns, 16, kv);
            let ids = ids(24, 283);
            let rows = one_by_one(&image, &ids, &Setting::default());
            let passes = rows.chunks(columns as usize).map(|pass| pass.last().unwrap().clone());
            let expected = checksum(&passes.collect());
            let ids: Vec<_> = ids.iter().map(u32::to_string).collect();
            let mut node = Command::new("node");
            node.arg(&script).arg(&module).arg(&image).args(["512", &ids.join(",")]);
            let said = json_of(&run(&mut node));
            assert_eq!(said["portable"], expected, "{name}, passes of {columns}");
            assert_eq!(said["simd128"], expected, "{name}, passes of {columns}");
        }
    }
}

/// Boards that play pages where they lie: cores with a floating point unit, and one without.
#[test]
fn boards_with_the_model_in_flash_compute_the_same_bits() {
    let package = Converted::new(&*open(&shipped_model(), None).unwrap(), Some(Precision::Int8));
    let image = package.folder.path().join("flash.img");
    let boards = [
        ("netduinoplus2", 128 << 10, 24),
        ("mps3-an547", 512 << 10, 8),
        ("virt-rv32", 384 << 10, 8),
    ];
    for (name, ram, tokens) in boards {
        let (page_size, columns, context, kv) = (None, None, None, None);
        let (reserve, mapped) = (11 << 10, true);
        let target = omex::pack::Target { ram, reserve, mapped, page_size, columns, context, kv };
        let Some(mut board) = board(name, &image) else { return };
        pack_with(&package.path, &target, &image);
        let arguments = ["--ids", "1,403,407", "--max-tokens", &tokens.to_string()];
        let said = json_of(&run(board.args(arguments)));
        let (ids, rows) = greedy_logits(&image, &[1, 403, 407], tokens, &Setting::default());
        assert_eq!(omex_tests::numbers(&said["ids"]), ids, "{name}: {said}");
        let expected = checksum(&rows);
        assert_eq!(said["logits_checksum"].as_u64(), Some(expected.into()), "{name}: {said}");
        check_memory(&said, ram);
    }
}

/// The firmware in QEMU; `cargo xtask test` says when it can run.
#[test]
fn a_board_with_64_kb_computes_the_same_bits() {
    let source = match omex_tests::shared("models/stories260K/stories260K.bin") {
        Some(path) => path,
        None => shipped_model(),
    };
    for (precision, kv) in [(Precision::Int8, Kv::F16), (Precision::Int4, Kv::Int8)] {
        let package = Converted::new(&*open(&source, None).unwrap(), Some(precision));
        let image = package.folder.path().join("card.img");
        let target = omex::pack::Target {
            ram: 64 << 10,
            reserve: 16 << 10,
            mapped: false,
            page_size: None,
            columns: None,
            context: None,
            kv: Some(kv),
        };
        pack_with(&package.path, &target, &image);
        let Some(mut board) = board("lm3s6965evb", &image) else { return };
        let said = json_of(&run(board.args(["--ids", "1,403,407", "--max-tokens", "24"])));
        let (ids, rows) = greedy_logits(&image, &[1, 403, 407], 24, &Setting::default());
        assert_eq!(omex_tests::numbers(&said["ids"]), ids, "{precision:?}: {said}");
        assert_eq!(
            said["logits_checksum"].as_u64(),
            Some(checksum(&rows).into()),
            "{precision:?}: {said}"
        );
        check_memory(&said, 64 << 10);
    }
}

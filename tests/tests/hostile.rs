//! Whatever a file holds, the answer is an error that names it: no panic, no hang, nothing half-written.

use omex::cancel::Cancel;
use omex::convert::{ConvertOptions, convert};
use omex::dispatch;
use omex::import::open as open_source;
use omex::pack::Image;
use omex::package::validate::validate;
use omex::package::{Package, renew_checksums};
use omex::pager::PageSource;
use omex::plan::Kv;
use omex::quantize::Precision;
use omex::saved_session::SavedSession;
use omex::session::{Session, Tables};
use omex::{Error, pack};
use omex_core::engine::{Engine, Wanted};
use omex_core::error::{LoadError, RunError};
use omex_core::image;
use omex_core::page::Pages;
use omex_core::simd::PORTABLE;
use omex_hal::{PageErrorKind, Pager, Serial};
use omex_tests::{
    Converted, Fault, FaultyPager, Setting, Synthetic, convert_from, json, omex, omex_binary, run,
    shipped_model,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

const JSON_FILES: [&str; 3] = ["metadata.json", "graph.json", "weights/quantization.json"];

fn package() -> Converted {
    Converted::new(&Synthetic::odd(), Some(Precision::Int8))
}

/// Opens a model, checks it and runs it a little, within a memory that a small model fits in.
/// Neither may panic; what they say is returned.
fn exercise(model: &Path) -> (Vec<String>, omex::Result<()>) {
    let report = if model.is_dir() {
        validate(model, &Cancel::default(), &mut |_| {})
    } else {
        pack::validate(model, &Cancel::default())
    };
    let ran = || -> omex::Result<()> {
        let setting = Setting { memory: Some(64 << 20), ..Setting::default() };
        let mut session = setting.open(model, 1)?;
        let failure = session.failure();
        let mut engine = session.engine()?;
        for ids in [&[0, 1][..], &[0]] {
            let ids = if engine.plan().columns == 1 { &ids[..1] } else { ids };
            engine.forward(ids, Wanted::Last).map_err(&failure)?;
        }
        Ok(())
    };
    (report.unwrap().problems, ran())
}

/// Pseudo-random numbers that are the same every time.
fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    }
}

#[test]
fn flipped_bits_are_refused_in_every_file_that_a_run_relies_on() {
    let package = convert_from(&shipped_model(), Some(Precision::Int8));
    let mut random = numbers(1);
    for name in JSON_FILES.into_iter().chain(["tokenizer/tokenizer.bin"]) {
        let file = package.path.join(name);
        let good = std::fs::read(&file).unwrap();
        for _ in 0..250 {
            let (at, bit) = (random(good.len()), random(8));
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            std::fs::write(&file, &bad).unwrap();
            let opened = Tables::open(&package.path);
            // The same digit as a capital letter is the same checksum.
            let same = good[at].is_ascii_hexdigit() && bad[at].eq_ignore_ascii_case(&good[at]);
            let error = opened.err().map(|error| error.to_string());
            assert!(error.is_some() || same, "{name}: byte {at}, bit {bit}");
            assert!(error.is_none_or(|error| error.contains(name)), "{name}: byte {at}, bit {bit}");
        }
        std::fs::write(&file, &good).unwrap();
    }
    assert!(exercise(&package.path).0.is_empty());
}

#[test]
fn what_was_changed_on_purpose_gets_new_checksums() {
    let package = package();
    let file = package.path.join("graph.json");
    let graph = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, graph.replace("\"context_length\": 64", "\"context_length\": 32"))
        .unwrap();
    let (problems, ran) = exercise(&package.path);
    let error = ran.unwrap_err().to_string();
    assert!(error.contains("graph.json: crc32c") && error.contains("--renew-checksums"), "{error}");
    assert!(!problems.is_empty());
    let path = package.path.to_str().unwrap();
    assert_eq!(run(&mut omex(["validate", path, "--renew-checksums"])).code, Some(0));
    assert_eq!(Package::open(&package.path).unwrap().graph.context_length, 32);
    assert!(exercise(&package.path).1.is_ok());
    // A file that has no checksum, and a checksum that has no file.
    std::fs::create_dir_all(package.path.join("tokenizer")).unwrap();
    std::fs::write(package.path.join("tokenizer/tokenizer.bin"), "OMTK").unwrap();
    let error = exercise(&package.path).1.unwrap_err().to_string();
    assert!(error.contains("files: found no \"tokenizer/tokenizer.bin\""), "{error}");
    std::fs::remove_dir_all(package.path.join("tokenizer")).unwrap();
    assert!(exercise(&package.path).1.is_ok());
    let package = convert_from(&shipped_model(), Some(Precision::Int8));
    std::fs::remove_file(package.path.join("tokenizer/tokenizer.bin")).unwrap();
    assert!(exercise(&package.path).1.unwrap_err().to_string().contains("tokenizer.bin"));
}

#[test]
fn a_file_cut_short_is_reported_with_its_name() {
    let package = package();
    let mut files: Vec<_> = JSON_FILES.iter().map(|name| package.path.join(name)).collect();
    files.extend((0..4).map(|layer| package.path.join(format!("weights/layer_{layer}.bin"))));
    for file in files {
        let good = std::fs::read(&file).unwrap();
        for length in [0, 1, good.len() / 2, good.len() - 2] {
            std::fs::write(&file, &good[..length]).unwrap();
            let (problems, ran) = exercise(&package.path);
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(
                problems.iter().any(|p| p.contains(name)),
                "{name} cut to {length}: {problems:?}"
            );
            assert!(ran.unwrap_err().to_string().contains(name), "{name} cut to {length}");
        }
        std::fs::remove_file(&file).unwrap();
        let (problems, ran) = exercise(&package.path);
        assert!(!problems.is_empty() && ran.is_err(), "{} is gone", file.display());
        std::fs::write(&file, &good).unwrap();
    }
}

#[test]
fn a_flipped_weight_is_reported_by_validate_and_by_run() {
    let package = package();
    let index = json(&package.path.join("weights/quantization.json"));
    let page_size = index["page_size"].as_u64().unwrap();
    let mut random = numbers(2);
    for layer in 0..4 {
        let file = package.path.join(format!("weights/layer_{layer}.bin"));
        // A byte of the file's first tensor, which is used by every pass.
        let tensors = index["tensors"].as_array().unwrap().iter();
        let in_file = tensors.filter(|t| t["file"] == format!("layer_{layer}.bin"));
        let tensor = in_file.max_by_key(|t| t["length"].as_u64()).unwrap();
        let (offset, length) =
            (tensor["offset"].as_u64().unwrap(), tensor["length"].as_u64().unwrap());
        let at = offset + random(length as usize) as u64;
        let page = at / page_size;
        flip(&file, at);
        let (problems, ran) = exercise(&package.path);
        let place = format!("layer_{layer}.bin: page {page} at byte {}", page * page_size);
        assert!(problems.iter().any(|p| p.contains(&place)), "{place}: {problems:?}");
        let tensor = tensor["name"].as_str().unwrap();
        assert!(problems.iter().any(|p| p.contains(tensor)), "{tensor}: {problems:?}");
        // The embedding's page is only read for tokens that need it, but the output reads all of it.
        let error = ran.unwrap_err();
        assert!(
            matches!(&error, Error::Page { error, .. } if error.kind == PageErrorKind::Checksum),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains(&format!("layer_{layer}.bin: at byte {}", page * page_size)),
            "{text}"
        );
        for pages in ["mmap", "read"] {
            let path = package.path.to_str().unwrap();
            let refused = run(&mut omex(["run", path, "--ids", "1,2", "--pages", pages, "--json"]));
            assert_eq!(refused.code, Some(1), "{refused:?}");
            assert!(refused.out.starts_with("{\"error\":"), "{refused:?}");
            assert!(refused.err.contains(&format!("at byte {}", page * page_size)), "{refused:?}");
            assert!(refused.err.contains("checksum"), "{refused:?}");
            let validated = run(&mut omex(["validate", path]));
            assert_eq!(validated.code, Some(1), "{validated:?}");
        }
        flip(&file, at);
    }
    assert!(exercise(&package.path).0.is_empty());
}

fn flip(file: &Path, at: u64) {
    let file = std::fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

/// Changes a JSON file of a package, and returns what checking and running say.
fn with_json(
    package: &Converted,
    name: &str,
    change: impl FnOnce(&mut Value),
) -> (Vec<String>, omex::Result<()>) {
    let (file, metadata) = (package.path.join(name), package.path.join("metadata.json"));
    let good = [&file, &metadata].map(|file| std::fs::read(file).unwrap());
    let mut value = json(&file);
    change(&mut value);
    std::fs::write(&file, value.to_string()).unwrap();
    // What is wrong besides is said by whoever opens the package next.
    let _ = renew_checksums(&package.path);
    let said = exercise(&package.path);
    std::fs::write(&metadata, &good[1]).unwrap();
    std::fs::write(&file, &good[0]).unwrap();
    said
}

#[test]
fn contradictions_in_the_index_are_refused() {
    let package = package();
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 25] = [
        ("format", |v| v["format"] = json!(2)),
        ("page_size", |v| v["page_size"] = json!(0)),
        ("page_size", |v| v["page_size"] = json!(4095)),
        ("page_size", |v| v["page_size"] = json!(u32::MAX)),
        ("page_size", |v| v["page_size"] = json!(1e300)),
        ("page_size", |v| v["page_size"] = json!(-4096)),
        ("files", |v| v["files"] = json!([])),
        ("files", |v| v["files"] = json!({})),
        ("name", |v| v["files"][0]["name"] = json!("../../etc/passwd")),
        ("name", |v| v["files"][0]["name"] = json!("/etc/passwd")),
        ("name", |v| v["files"][0]["name"] = json!("..")),
        ("name", |v| v["files"][0]["name"] = json!("")),
        ("name", |v| v["files"][0]["name"] = json!("layer_0.bin\u{0}x")),
        ("name", |v| v["files"][0]["name"] = json!("\u{1b}[2Jlayer_0.bin")),
        ("name", |v| v["files"][1] = v["files"][0].clone()),
        ("length", |v| v["files"][0]["length"] = json!(u64::MAX)),
        ("length", |v| v["files"][0]["length"] = json!(1u64 << 50)),
        ("page_crc32c", |v| v["files"][0]["page_crc32c"] = json!("nothexadecimal!!")),
        ("name", |v| v["tensors"][1]["name"] = v["tensors"][0]["name"].clone()),
        ("offset", |v| v["tensors"][1]["offset"] = json!(u64::MAX)),
        ("length", |v| v["tensors"][1]["length"] = json!(0)),
        ("length", |v| v["tensors"][1]["shape"] = json!([u32::MAX, u32::MAX])),
        ("shape", |v| v["tensors"][1]["shape"] = json!([1])),
        ("format", |v| v["tensors"][1]["format"] = json!("int3")),
        ("crc32c", |v| v["tensors"][1]["crc32c"] = json!("123")),
    ];
    for (number, (field, change)) in changes.into_iter().enumerate() {
        let (problems, ran) = with_json(&package, "weights/quantization.json", change);
        let error = ran.expect_err(&format!("change {number} of {field}")).to_string();
        assert!(!problems.is_empty(), "change {number} of {field}");
        assert!(
            error.contains("quantization.json") || error.contains("graph.json"),
            "{number}, {field}: {error}"
        );
        assert!(error.contains(field) || error.contains("tensor"), "{number}, {field}: {error}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
}

#[test]
fn contradictions_between_planes_are_refused() {
    let package = Converted::in_planes(&Synthetic::odd());
    assert!(exercise(&package.path).1.is_ok());
    type Change = fn(&mut Vec<Value>, usize);
    let changes: [(&str, Change); 8] = [
        ("plane", |tensors, i| tensors[i]["plane"] = json!(2)),
        ("plane", |tensors, i| tensors[i]["plane"] = json!(-1)),
        ("name", |tensors, i| tensors[i]["plane"] = json!(0)),
        ("planes", |tensors, i| drop(tensors.remove(i))),
        ("not in the index", |tensors, i| drop(tensors.remove(i - 1))),
        ("operation", |tensors, i| {
            let [rows, columns] = [0, 1].map(|side| tensors[i]["shape"][side].clone());
            // As long as before: 48 rows of 36 are 6 panels of 2 blocks.
            tensors[i]["shape"] = json!([rows.as_u64().unwrap() - 1, columns]);
        }),
        ("operation", |tensors, i| {
            let norm = tensors.iter().find(|t| t["format"] == "vector").unwrap().clone();
            let (name, plane) = (tensors[i]["name"].clone(), json!(1));
            tensors[i] = norm;
            (tensors[i]["name"], tensors[i]["plane"]) = (name, plane);
        }),
        ("only linear", |tensors, i| {
            let mut embedding = tensors.iter().find(|t| t["name"] == "embedding").unwrap().clone();
            embedding["plane"] = json!(1);
            tensors.insert(i, embedding);
        }),
    ];
    for (number, (found, change)) in changes.into_iter().enumerate() {
        let (problems, ran) = with_json(&package, "weights/quantization.json", |v| {
            let tensors = v["tensors"].as_array_mut().unwrap();
            let residual = tensors.iter().rposition(|t| t["plane"] == 1).unwrap();
            change(tensors, residual);
        });
        let error = ran.expect_err(&format!("change {number}")).to_string();
        assert!(!problems.is_empty() && error.contains(found), "change {number}: {error}");
    }
}

#[test]
fn contradictions_in_the_graph_are_refused() {
    let package = package();
    type Change = fn(&mut Value);
    let changes: [Change; 15] = [
        |v| v["format"] = json!(99),
        |v| v["vocab_size"] = json!(0),
        |v| v["vocab_size"] = json!(u32::MAX),
        |v| v["nodes"] = json!([]),
        |v| v["subgraphs"] = json!({}),
        |v| v["outputs"][0]["value"] = json!("no such value"),
        |v| v["values"]["normed"]["width"] = json!(0),
        |v| v["values"]["normed"]["width"] = json!(35),
        |v| v["values"]["normed"]["width"] = json!(u32::MAX),
        |v| v["values"]["logits"]["per"] = json!("token"),
        |v| v["states"]["kv"]["width"] = json!(u32::MAX),
        |v| v["states"]["kv"]["count"] = json!(u32::MAX),
        |v| v["states"]["kv"]["count"] = json!(1),
        |v| v["nodes"] = json!("nodes"),
        |v| v["nodes"][0]["unknown"] = json!(1),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let (problems, ran) = with_json(&package, "graph.json", change);
        let error = ran.expect_err(&format!("change {number}")).to_string();
        assert!(!problems.is_empty(), "change {number}: {error}");
        assert!(error.contains("graph.json"), "change {number}: {error}");
    }
}

/// Numbers that are allowed, but ask for more memory than there is.
#[test]
fn a_model_that_asks_for_too_much_memory_is_refused() {
    let package = package();
    let file = package.path.join("graph.json");
    let mut graph = json(&file);
    graph["context_length"] = json!(1 << 24);
    for n in 0..400 {
        graph["values"][format!("unused {n}")] = json!({"width": 1 << 24, "per": "token"});
    }
    std::fs::write(&file, graph.to_string()).unwrap();
    renew_checksums(&package.path).unwrap();
    let path = package.path.to_str().unwrap();
    // Built before the time is taken.
    let _ = omex_binary();
    for args in [
        &["run", path, "--ids", "1", "--context", "16777216"][..],
        &["run", path, "--ids", "1", "--memory", "100MB"],
        &["logits", path, "--ids", "1"],
        &["plan", path, "--memory", "100MB"],
    ] {
        let start = Instant::now();
        let refused = run(&mut omex(args));
        assert!(matches!(refused.code, Some(0 | 1)), "{args:?}: {refused:?}");
        assert!(start.elapsed() < Duration::from_secs(20), "{args:?} takes too long");
    }
}

#[test]
fn deep_nesting_and_floods_are_refused() {
    let package = package();
    for name in JSON_FILES {
        let file = package.path.join(name);
        let good = std::fs::read(&file).unwrap();
        let hostile = [
            "[".repeat(200_000),
            "{\"a\":".repeat(100_000),
            format!("{{\"format\":1,\"x\":{}{}}}", "[".repeat(5000), "]".repeat(5000)),
            "null".to_owned(),
            "\"\u{1b}[2J\"".to_owned(),
            "{\"format\":1e999}".to_owned(),
            "\u{feff}{}".to_owned(),
        ];
        for text in hostile {
            std::fs::write(&file, &text).unwrap();
            let (problems, ran) = exercise(&package.path);
            let error = ran.expect_err("hostile JSON").to_string();
            assert!(!problems.is_empty());
            assert!(error.len() < 1500 && !error.contains('\x1b'), "{error:?}");
        }
        std::fs::write(&file, &good).unwrap();
    }
}

#[test]
fn symbolic_links_do_not_lead_out_of_a_package() {
    let package = package();
    let file = package.path.join("weights/layer_1.bin");
    let outside = package.folder.path().join("outside.bin");
    std::fs::rename(&file, &outside).unwrap();
    std::os::unix::fs::symlink(&outside, &file).unwrap();
    let (problems, ran) = exercise(&package.path);
    assert!(problems.iter().any(|p| p.contains("layer_1.bin")), "{problems:?}");
    assert!(ran.is_err());
}

#[test]
fn unknown_fields_and_files_are_kept_and_noted() {
    let package = package();
    let file = package.path.join("metadata.json");
    let mut metadata = json(&file);
    metadata["from_the_future"] = json!({"x": 1});
    std::fs::write(&file, metadata.to_string()).unwrap();
    renew_checksums(&package.path).unwrap();
    std::fs::write(package.path.join("notes.txt"), "mine").unwrap();
    std::fs::create_dir(package.path.join("optimization")).unwrap();
    std::fs::write(package.path.join("optimization/plan.json"), "{}").unwrap();
    let report = validate(&package.path, &Cancel::default(), &mut |_| {}).unwrap();
    assert!(report.problems.is_empty(), "{report:?}");
    for odd in ["from_the_future", "notes.txt"] {
        assert!(report.notes.iter().any(|note| note.contains(odd)), "{report:?}");
    }
    std::fs::write(package.path.join("optimization/plan.json"), "{").unwrap();
    let report = validate(&package.path, &Cancel::default(), &mut |_| {}).unwrap();
    assert!(report.problems.iter().any(|p| p.contains("plan.json")), "{report:?}");
}

#[test]
fn every_flipped_byte_of_an_images_header_and_tables_is_refused() {
    let package = package();
    let path = package.folder.path().join("card.img");
    std::fs::copy(package.image(512, 2, 16), &path).unwrap();
    let header = Image::open(&path).unwrap().header;
    let sections = [header.program, header.tensors, header.checksums, header.tokenizer];
    let sections = sections.iter().map(|e| e.offset..e.offset + e.length);
    for (section, range) in
        sections.chain(std::iter::once(0..image::HEADER_BYTES as u64)).enumerate()
    {
        for at in range {
            flip(&path, at);
            assert!(Image::open(&path).is_err(), "byte {at} of section {section}");
            flip(&path, at);
        }
    }
    let pages = header.pages;
    let mut random = numbers(3);
    for _ in 0..40 {
        let at = pages.offset + random(pages.length as usize) as u64;
        flip(&path, at);
        let problems = pack::validate(&path, &Cancel::default()).unwrap().problems;
        let begin = at / 512 * 512;
        assert!(
            problems.len() == 1 && problems[0].contains(&format!("byte {begin}")),
            "{problems:?}"
        );
        for pages in [PageSource::Mmap, PageSource::Read] {
            let setting = Setting { pages: Some(pages), ..Setting::default() };
            let mut session = setting.open(&path, 1).unwrap();
            let failure = session.failure();
            // Padding between tensors, and embeddings of other tokens, are not read by every pass.
            if let Err(error) = session.engine().unwrap().forward(&[1], Wanted::Last) {
                let text = failure(error).to_string();
                assert!(text.contains(&format!("card.img: at byte {begin}")), "{text}");
            }
        }
        flip(&path, at);
    }
    assert!(exercise(&path).0.is_empty());
}

#[test]
fn an_image_cut_short_is_refused() {
    let package = package();
    let path = package.image(512, 2, 16);
    let good = std::fs::read(&path).unwrap();
    let mut random = numbers(4);
    let mut lengths = vec![0, 1, 8, 255, 256, 257, good.len() - 1];
    lengths.extend((0..60).map(|_| random(good.len())));
    for length in lengths {
        std::fs::write(&path, &good[..length]).unwrap();
        let error =
            Image::open(&path).err().unwrap_or_else(|| panic!("cut to {length}")).to_string();
        assert!(error.contains(".img"), "{error}");
        let mut device = FaultyPager::new(good[..length].to_vec(), 512);
        let mut memory = vec![0; 1 << 16];
        let opened = image::open(&mut device, PORTABLE.crc32c, &mut memory).map(|_| ());
        // A board learns of missing weights when it gets there.
        let weights = Image::open(&package.image(512, 2, 17)).unwrap().header.pages.offset as usize;
        assert!(opened.is_err() || length >= weights, "cut to {length}");
    }
}

/// An image with other bytes, but with checksums that fit them.
fn forged(good: &[u8], edits: &[(usize, u8)], section: usize) -> Vec<u8> {
    let crc = dispatch::kernels().unwrap().crc32c;
    let mut bytes = good.to_vec();
    let bytes_of = |bytes: &[u8]| *bytes.first_chunk::<{ image::HEADER_BYTES }>().unwrap();
    let mut header = image::ImageHeader::parse(&bytes_of(&bytes), crc).unwrap();
    let extent = match section {
        0 => &mut header.program,
        1 => &mut header.tensors,
        _ => &mut header.checksums,
    };
    let range = extent.offset as usize..(extent.offset + extent.length) as usize;
    let part = &mut bytes[range];
    for (at, value) in edits {
        let at = at % part.len();
        part[at] = *value;
    }
    extent.crc32c = crc(0, part);
    bytes[..image::HEADER_BYTES].copy_from_slice(&header.to_bytes(crc));
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Checksums find accidents. This is malice: programs and tables that are wrong on purpose.
    #[test]
    fn forged_images_are_refused_or_run(
        section in 0usize..3,
        edits in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        static GOOD: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let good = GOOD.get_or_init(|| {
            let package = package();
            std::fs::read(package.image(512, 2, 16)).unwrap()
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forged.img");
        std::fs::write(&path, forged(good, &edits, section)).unwrap();
        let (problems, ran) = exercise(&path);
        if section == 2 && ran.is_err() {
            prop_assert!(!problems.is_empty());
        }
    }

    /// Any bytes at all.
    #[test]
    fn bytes_that_are_no_model_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..600), magic in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise.img");
        let bytes = if magic { [&image::MAGIC[..], &bytes].concat() } else { bytes };
        std::fs::write(&path, &bytes).unwrap();
        let (problems, ran) = exercise(&path);
        prop_assert!(!problems.is_empty() && ran.is_err());
        prop_assert!(open_source(&path, None).is_err());
    }
}

/// A board's way: an image on a device, of which one page is in memory at a time.
struct Board {
    device: FaultyPager,
    tables: Vec<u8>,
}

impl Board {
    fn new(package: &Converted) -> Self {
        let path = package.image(512, 3, 16);
        Self {
            device: FaultyPager::new(std::fs::read(path).unwrap(), 512),
            tables: vec![0; 1 << 16],
        }
    }

    /// Runs some tokens, then `fault` with the next, then that one again; returns what the pass with
    /// the fault said, and the last logits.
    fn run(
        &mut self,
        fault: Option<(u32, Fault, u32)>,
    ) -> (Result<(), RunError>, Vec<f32>, Vec<f32>, u32) {
        let Self { device, tables } = self;
        let (_, model, _) = image::open(device, PORTABLE.crc32c, tables).unwrap();
        let layout = model.layout(device).unwrap();
        let mut memory = vec![0u128; layout.total().div_ceil(16) as usize];
        // The engine keeps the pager: the fault is set beforehand, with the pages counted by use.
        let shared = Shared(std::cell::RefCell::new(device));
        let mut pager = &shared;
        let mut engine =
            Engine::new(model, memory.as_mut_bytes(), &mut pager, &PORTABLE, &Serial).unwrap();
        engine.forward(&[7, 8, 9], Wanted::Last).unwrap();
        shared.0.borrow_mut().fault = fault;
        let before = (engine.position(), shared.0.borrow().reads);
        let failed = engine.forward(&[20], Wanted::Last);
        let during = engine.logits(0).to_vec();
        let reads = shared.0.borrow().reads - before.1;
        if failed.is_err() {
            assert_eq!(engine.position(), before.0, "a pass that failed did not happen");
            shared.0.borrow_mut().fault = None;
            engine.forward(&[20], Wanted::Last).unwrap();
        }
        assert_eq!(engine.position(), before.0 + 1);
        (failed, during, engine.logits(0).to_vec(), reads)
    }
}

/// A pager that the test can still reach while the engine has it: pages are copied out.
struct Shared<'d>(std::cell::RefCell<&'d mut FaultyPager>);

impl Pager for &Shared<'_> {
    fn geometry(&self) -> omex_hal::PageGeometry {
        self.0.borrow().geometry()
    }

    fn page(&mut self, page: u32) -> Result<&[u8], omex_hal::PageError> {
        // Leaked: a test may, and the slice outlives the borrow.
        let bytes = self.0.borrow_mut().page(page)?.to_vec();
        Ok(Box::leak(bytes.into_boxed_slice()))
    }

    fn discard(&mut self, page: u32) {
        self.0.borrow_mut().discard(page);
    }
}

/// A page in the middle of the weights, used by every pass.
fn some_page(package: &Converted) -> u32 {
    let header = Image::open(&package.image(512, 3, 16)).unwrap().header;
    (header.pages.offset / 512 + header.pages.length / 512 / 3) as u32
}

#[test]
fn a_bit_read_wrongly_once_is_read_again() {
    let package = package();
    let page = some_page(&package);
    let (fine, expected, _, reads) = Board::new(&package).run(None);
    fine.unwrap();
    let (healed, found, _, more) = Board::new(&package).run(Some((page, Fault::Flip(1234), 1)));
    healed.unwrap();
    assert_eq!(found, expected);
    assert_eq!(more, reads + 1, "one page is read once more");
}

#[test]
fn a_bit_read_wrongly_twice_is_an_error_that_names_the_page() {
    let package = package();
    let page = some_page(&package);
    let (_, expected, _, _) = Board::new(&package).run(None);
    for (fault, kind) in
        [(Fault::Flip(77), PageErrorKind::Checksum), (Fault::Device, PageErrorKind::Device)]
    {
        let (failed, _, found, _) = Board::new(&package).run(Some((page, fault, u32::MAX)));
        let Err(RunError::Page(error)) = failed else { panic!("{fault:?}: {failed:?}") };
        assert_eq!((error.page, error.kind), (page, kind));
        assert!(error.to_string().contains(&format!("page {page}")), "{error}");
        // The same token again, on a device that works again: as if nothing had been.
        assert_eq!(found, expected, "{fault:?}");
    }
}

#[test]
fn a_page_that_comes_with_another_tile_is_checked_again() {
    let bytes: Vec<u8> = (0..8 * 64u32).map(|i| (i ^ i >> 8) as u8).collect();
    let checksum = |page: &[u8]| (PORTABLE.crc32c)(0, page).to_le_bytes();
    let checksums: Vec<_> = bytes.chunks(64).map(checksum).collect();
    let mut device = FaultyPager::new(bytes.clone(), 64);
    device.tile_pages = 4;
    let shared = Shared(std::cell::RefCell::new(&mut device));
    let mut pager = &shared;
    let mut pages = Pages::new(&mut pager, &PORTABLE, &Serial, 512, &checksums, 0, &mut []);
    assert_eq!(pages.run(4 * 64, 4 * 64).unwrap(), &bytes[4 * 64..]);
    // Pages 2 to 5: page 4 was right before, and is read wrongly now.
    shared.0.borrow_mut().fault = Some((4, Fault::Flip(9), 1));
    assert_eq!(pages.run(2 * 64, 4 * 64).unwrap(), &bytes[2 * 64..6 * 64]);
    assert_eq!(shared.0.borrow().fault, Some((4, Fault::Flip(9), 0)));
}

#[test]
fn a_board_refuses_an_image_with_a_damaged_table() {
    let package = package();
    let bytes = std::fs::read(package.image(512, 3, 16)).unwrap();
    let header = Image::open(&package.image(512, 3, 16)).unwrap().header;
    let open = |bytes: Vec<u8>| {
        let mut memory = vec![0; 1 << 16];
        let opened = image::open(&mut FaultyPager::new(bytes, 512), PORTABLE.crc32c, &mut memory);
        opened.map(|_| ()).err()
    };
    assert_eq!(open(bytes.clone()), None);
    for extent in [header.program, header.tensors, header.checksums] {
        let mut bad = bytes.clone();
        bad[(extent.offset + extent.length / 2) as usize] ^= 1;
        assert!(matches!(open(bad), Some(LoadError::Section(_))));
    }
    assert_eq!(open(b"RIFF".repeat(200)), Some(LoadError::Magic));
}

/// What is in a folder besides what was there before.
fn leftovers(folder: &Path, known: &[&str]) -> Vec<String> {
    let names =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !known.contains(&name.as_str())).collect()
}

#[test]
fn conversions_that_fail_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.bin");
    Synthetic::odd().write_llama2c(&model);
    let good = std::fs::read(&model).unwrap();
    let mut random = numbers(5);
    let out = folder.path().join("out.omex");
    let try_it = |bytes: &[u8], what: &str| {
        std::fs::write(&model, bytes).unwrap();
        let Ok(source) = open_source(&model, None) else { return false };
        let options =
            ConvertOptions { precision: Some(Precision::Int8), ..ConvertOptions::default() };
        let converted = convert(&*source, "llama2c", "x", &out, &options, &mut |_, _| {});
        assert_eq!(converted.is_ok(), out.exists(), "{what}");
        if out.exists() {
            std::fs::remove_dir_all(&out).unwrap();
        }
        assert_eq!(leftovers(folder.path(), &["model.bin"]), Vec::<String>::new(), "{what}");
        converted.is_ok()
    };
    assert!(try_it(&good, "the good one"));
    for _ in 0..30 {
        let length = random(good.len());
        assert!(!try_it(&good[..length], &format!("cut to {length}")));
    }
    for at in 0..28 {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            try_it(&bad, &format!("byte {at}, bit {bit}"));
        }
    }
    // Weights that no format can hold are refused, and those that only f32 can where they must be.
    for value in [f32::NAN, f32::INFINITY, f32::MAX] {
        let mut bad = good.clone();
        for chunk in bad[28..28 + 36 * 4 * 283].chunks_mut(4) {
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        std::fs::write(&model, &bad).unwrap();
        let source = open_source(&model, None).unwrap();
        for precision in [Precision::F32, Precision::F16, Precision::Int8, Precision::Int4] {
            let options =
                ConvertOptions { precision: Some(precision), ..ConvertOptions::default() };
            let converted = convert(&*source, "llama2c", "x", &out, &options, &mut |_, _| {});
            let fits = value == f32::MAX && precision == Precision::F32;
            assert_eq!(converted.is_ok(), fits, "{value} at {precision:?}");
            if fits {
                let _ = exercise(&out);
                std::fs::remove_dir_all(&out).unwrap();
            }
        }
    }
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "a file").unwrap();
    let out = folder.path().join("file/out.omex");
    let source = shipped_model();
    let refused = run(&mut omex([
        "convert",
        "--model-path",
        source.to_str().unwrap(),
        "--output-dir",
        out.to_str().unwrap(),
    ]));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("/file"), "{refused:?}");
    let package = package();
    let image = folder.path().join("file/card.img");
    let refused = run(&mut omex([
        "pack",
        package.path.to_str().unwrap(),
        "--ram",
        "64K",
        "-o",
        image.to_str().unwrap(),
    ]));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("/file"), "{refused:?}");
    assert!(leftovers(folder.path(), &["file"]).is_empty());
}

#[test]
fn ctrl_c_half_way_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.bin");
    Synthetic::new(256, 688, 12, 4, 4, 8192, 256).write_llama2c(&model);
    let mut child = omex([
        "convert",
        "--model-path",
        model.to_str().unwrap(),
        "--quantization",
        "int4",
        "--output-dir",
        "out.omex",
    ])
    .current_dir(folder.path())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let start = Instant::now();
    while leftovers(folder.path(), &["model.bin"]).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "the conversion never began");
        assert!(child.try_wait().unwrap().is_none(), "the conversion ended too soon");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none(), "the conversion ended too soon to be interrupted");
    let sent = std::process::Command::new("sh")
        .args(["-c", &format!("kill -INT {}", child.id())])
        .status()
        .unwrap();
    assert!(sent.success());
    let interrupted = Instant::now();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("ended {:?} after Ctrl-C", interrupted.elapsed());
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(interrupted.elapsed() < Duration::from_secs(10), "it took its time");
    assert!(err.contains("interrupted"), "{err}");
    assert_eq!(leftovers(folder.path(), &["model.bin"]), Vec::<String>::new());
}

/// Cut short anywhere, or with a bit flipped anywhere, a saved session is refused by name.
#[test]
fn a_damaged_session_is_refused() {
    let package = package();
    let file = package.folder.path().join("text.session");
    let setting = Setting { kv: Some(Kv::Int8), context: Some(32), ..Setting::default() };
    let mut session = setting.open(&package.path, 1).unwrap();
    let failure = session.failure();
    let open = |session: &mut Session| -> omex::Result<Vec<u32>> {
        let mut saved = SavedSession::open(&file, session)?;
        let mut engine = session.engine()?;
        saved.restore(&mut engine)?;
        let last = saved.tokens().last().copied().into_iter();
        engine.forward(&last.collect::<Vec<_>>(), Wanted::Last).map_err(&failure)?;
        Ok(saved.tokens().to_vec())
    };
    let ids = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let saved = SavedSession::open(&file, &session).unwrap();
    let mut engine = session.engine().unwrap();
    engine.forward(&ids, Wanted::Last).unwrap();
    saved.save(&mut engine, &ids, 7).unwrap();
    assert_eq!(open(&mut session).unwrap(), ids);
    let good = std::fs::read(&file).unwrap();
    let mut refuses = |bytes: &[u8], what: &str| {
        std::fs::write(&file, bytes).unwrap();
        let error = open(&mut session).expect_err(what).to_string();
        assert!(error.contains("text.session: "), "{what}: {error}");
    };
    let steps = (0..200).chain((200..good.len()).step_by(97)).chain([good.len() - 1]);
    steps.for_each(|length| refuses(&good[..length], &format!("cut to {length}")));
    let mut random = numbers(11);
    for at in (0..200).map(Ok).chain((0..200).map(Err)) {
        let at = at.unwrap_or_else(|_: usize| random(good.len()));
        let mut bad = good.clone();
        bad[at] ^= 1 << random(8);
        refuses(&bad, &format!("a bit flipped at {at}"));
    }
    refuses(&[&good[..], &[0]].concat(), "a byte more");
    // Counts that are lies, with checksums that are right.
    for count in [0, 1, 11, 13, 1 << 24, u32::MAX] {
        let mut bad = good.clone();
        bad[44..48].copy_from_slice(&count.to_le_bytes());
        let crc = (dispatch::kernels().unwrap().crc32c)(0, &bad[..60]);
        bad[60..64].copy_from_slice(&crc.to_le_bytes());
        refuses(&bad, &format!("{count} tokens"));
    }
}

#[test]
fn a_package_of_another_version_is_refused() {
    let package = package();
    let (problems, ran) =
        with_json(&package, "metadata.json", |v| v["omex_version"] = json!("1.0.0"));
    assert!(
        problems.iter().any(|p| p.contains("omex_version") && p.contains("1.0.0")),
        "{problems:?}"
    );
    assert!(ran.is_err());
    assert!(Package::open(&package.path).is_ok());
}

//! Mixtures of experts: which are read, when, and what memory keeps of them.

use omex::Error;
use omex::convert::{Calibration, ConvertOptions};
use omex::forecast::forecast;
use omex::pager::PageSource;
use omex::plan::{Kv, PROCESS_BYTES, Residency};
use omex::profile::Profile;
use omex::quantize::Precision;
use omex::reads::weight_bytes_per_token;
use omex::session::{SessionOptions, Tables, plan_model};
use omex::synth::RandomModel;
use omex_core::engine::{Engine, Wanted};
use omex_core::image;
use omex_core::ops::Op;
use omex_core::program::ALL;
use omex_core::simd::PORTABLE;
use omex_hal::Serial;
use omex_hal_adapters::{Event, TracingPager};
use omex_tests::{Converted, FaultyPager, Setting, json as read_json, json_of, logits, omex, run};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use zerocopy::IntoBytes;

/// A model of many experts, whose weights come from a hash.
fn many_experts() -> Converted {
    mixture(128, 2)
}

/// A mixture of 24 experts, of which a token is sent to 3.
fn mixture(width: u32, layers: u32) -> Converted {
    let config = json!({
        "model_type": "mixtral", "hidden_size": width, "intermediate_size": 2 * width, "vocab_size": 96,
        "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_local_experts": 24, "num_experts_per_tok": 3, "max_position_embeddings": 64,
        "bos_token_id": null, "eos_token_id": null,
    });
    let config = config.as_object().unwrap().clone();
    let model = RandomModel::with_config(Path::new("config.json"), config).unwrap();
    let precision = Some(Precision::Int8);
    let options =
        ConvertOptions { precision, calibration: Calibration::Off, ..ConvertOptions::default() };
    Converted::with(&model, &options)
}

#[test]
fn experts_that_memory_does_not_hold_give_the_same_bits() {
    let package = many_experts();
    let prompt: Vec<u32> = (0..40).map(|i| i * 7 % 96).collect();
    let one = Setting { chunks: &[1], kv: Some(Kv::F16), ..Setting::default() };
    let expected = logits(&package.path, &prompt, &one);
    assert!(expected.iter().flatten().all(|x| x.is_finite()));
    let asked = SessionOptions { memory: Some(1), kv: one.kv, ..SessionOptions::default() };
    let least = match plan_model(&package.path, &asked) {
        Err(Error::Budget { needed, .. }) => needed,
        other => panic!("{other:?} with a byte of memory"),
    };
    let asked = SessionOptions { memory: Some(least + (64 << 10)), ..asked };
    let plan = plan_model(&package.path, &asked).unwrap();
    assert!(matches!(plan.residency, Residency::Streamed { .. }), "{plan:?}");
    let experts = std::fs::metadata(package.path.join("weights/layer_0.experts.bin"));
    let held = plan.bytes.weights + plan.bytes.ring + plan.bytes.experts;
    assert!(held < experts.unwrap().len() / 2, "{plan:?}");
    assert!(plan.total <= least + (64 << 10) && plan.bytes.experts > 0, "{plan:?}");
    for chunks in [&[1][..], &[5, 2]] {
        let streamed = Setting { memory: asked.memory, chunks, ..one };
        assert!(logits(&package.path, &prompt, &streamed) == expected, "passes of {chunks:?}");
    }
    let whole = Setting { chunks: &[16], threads: Some(3), ..one };
    assert!(logits(&package.path, &prompt, &whole) == expected, "three threads");
}

#[test]
fn a_token_reads_the_experts_that_it_is_sent_to_and_no_others() {
    let package = many_experts();
    let tables = Tables::open(&package.path).unwrap();
    let program = tables.program().unwrap();
    let of_token = weight_bytes_per_token(&program, ALL);
    let all: u64 = program.tensors().map(|tensor| tensor.bytes()).sum();
    // 3 of 24 experts, which are nearly all of the weights.
    assert!(of_token * 5 < all, "{of_token} of {all}");
}

/// A machine, of which only the storage matters.
fn machine() -> Profile {
    let at = json!({ "from_cache": 1e-9, "from_memory": 1e-9 });
    let product =
        |format| json!({ "format": format, "columns": 1, "one_thread": at, "all_threads": at });
    let products = ["f32", "int8", "int4"].map(product);
    let profile = json!({
        "omex_version": "0", "cpu": "any", "cores": 1, "kernels": [],
        "read_bandwidth": { "one_thread": 1e15, "all_threads": 1e15 },
        "storage_bandwidth": 1e9, "products": products,
        "passes": { "operation": 0, "element": 0, "job": 0, "attention": [] },
    });
    serde_json::from_value(profile).unwrap()
}

#[test]
fn experts_lie_apart_and_what_is_left_of_a_budget_keeps_them() {
    let package = many_experts();
    let tables = Tables::open(&package.path).unwrap();
    let program = tables.program().unwrap();
    let index = read_json(&package.path.join("weights/quantization.json"));
    let names: Vec<_> = index["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["name"].as_str().unwrap().to_owned())
        .collect();
    let behind = ["layer_0.experts.bin", "layer_1.experts.bin"];
    assert!(names.ends_with(&behind.map(|name| name.to_owned())), "{names:?}");
    for tensor in index["tensors"].as_array().unwrap() {
        let is_expert = tensor["name"].as_str().unwrap().contains("experts");
        assert_eq!(behind.contains(&tensor["file"].as_str().unwrap()), is_expert, "{tensor}");
        let offset = tensor["offset"].as_u64().unwrap();
        assert!(!is_expert || offset.is_multiple_of(index["page_size"].as_u64().unwrap()));
    }
    let plan = |memory| {
        let pages = Some(PageSource::Read);
        let asked = SessionOptions { memory: Some(memory), pages, ..SessionOptions::default() };
        plan_model(&package.path, &asked).unwrap_or_else(|error| panic!("{memory}: {error}"))
    };
    let profile = machine();
    let mut last: Option<(u64, u64)> = None;
    for memory in [1_200_000, 2_000_000, 3_000_000, 4_000_000, 20_000_000] {
        let plan = plan(memory);
        assert!(plan.total <= memory, "{plan:?}");
        let experts = plan.experts.unwrap();
        let forecast = forecast(&profile, &program, &plan, 1).unwrap();
        let read = forecast.streamed_bytes;
        if let Some((kept, before)) = last {
            assert!(experts.kept > kept && read < before, "{memory}: {plan:?} {forecast:?}");
        }
        last = Some((experts.kept, read));
        assert_eq!(plan.reads_storage(), read > 0);
    }
    assert_eq!(last.map(|(_, read)| read), Some(0));
}

#[test]
fn within_each_budget_a_token_reads_what_memory_does_not_keep() {
    let package = mixture(320, 3);
    let tables = Tables::open(&package.path).unwrap();
    let of_token = weight_bytes_per_token(&tables.program().unwrap(), ALL);
    let prompt: Vec<_> = (0..16).map(|i| (i * 7 % 96).to_string()).collect();
    let mut all: Vec<(u64, Value)> = vec![];
    for memory in [3_000_000, 16_000_000, 32_000_000, 80_000_000u64] {
        let mut command = omex(["run", package.path.to_str().unwrap(), "--ids", &prompt.join(",")]);
        command.args(["--kv", "f16", "--max-tokens", "40", "--pages", "read", "--json"]);
        let said = json_of(&run(command.args(["--memory", &memory.to_string()])));
        let of = |name: &str| said["stats"][name].as_u64().unwrap();
        let (planned, peak) = (of("planned_bytes"), of("peak_bytes"));
        assert!(planned <= memory, "{planned} planned of {memory}");
        assert!(peak <= memory + PROCESS_BYTES, "{peak} at the peak, of {memory}");
        all.push((of("streamed_bytes_per_token"), said["ids"].clone()));
    }
    let read: Vec<_> = all.iter().map(|(read, _)| *read).collect();
    println!("{of_token} needed a token, {read:?} read");
    assert!(all.iter().all(|(_, ids)| *ids == all[0].1), "the budget changes the text");
    assert!(read.is_sorted_by(|more, less| more > less), "{read:?}");
    // Nothing is read that no token needs, but what a page's edges bring along.
    assert!(read[0] <= of_token * 11 / 10, "{read:?} of {of_token}");
    // A third of 44 MB.
    assert!(read[1] <= of_token * 3 / 4, "{read:?} of {of_token}");
    // All of them fit, so each is read when it is chosen first.
    assert!(read[3] <= of_token / 10, "{read:?} of {of_token}");
}

#[test]
fn experts_are_announced_as_they_are_chosen_and_read_once_for_a_pass() {
    let package = many_experts();
    let image = package.image_with(512, 4, 64, Some(Kv::F16));
    let events = RefCell::new(vec![]);
    let device = FaultyPager::new(std::fs::read(image).unwrap(), 512);
    let mut pager = TracingPager::new(device, |event| events.borrow_mut().push(event));
    let mut tables = vec![0; 1 << 16];
    let (_, model, _) = image::open(&mut pager, PORTABLE.crc32c, &mut tables).unwrap();
    let program = &model.program;
    let mut experts = vec![];
    for (op, layer) in program.steps(ALL) {
        let Op::Experts(_) = op else { continue };
        op.weights(&mut |weight| {
            let tensor = program.tensor(weight.at(layer)).unwrap();
            experts.push((
                tensor.address..tensor.address + tensor.bytes(),
                op.part_per_token(&tensor),
            ));
        });
    }
    let mut memory = vec![0u128; model.layout(&pager).unwrap().total().div_ceil(16) as usize];
    let mut engine =
        Engine::new(model, memory.as_mut_bytes(), &mut pager, &PORTABLE, &Serial).unwrap();
    engine.forward(&[5], Wanted::Last).unwrap();
    events.borrow_mut().clear();
    engine.forward(&[7], Wanted::Last).unwrap();
    drop(pager);
    let is_expert = |page: u32| {
        let address = u64::from(page) * 512;
        experts.iter().any(|(all, _)| all.start < address && address + 512 < all.end)
    };
    let (mut announced, mut asked) = (BTreeSet::new(), BTreeSet::new());
    for event in events.into_inner() {
        match event {
            Event::Want { first, end } => announced.extend((first..end).filter(|p| is_expert(*p))),
            Event::Page { page, .. } if is_expert(page) => {
                assert!(announced.contains(&page), "page {page} was not announced");
                asked.insert(page);
            }
            _ => {}
        }
    }
    assert_eq!(announced, asked);
    let needed: u64 = experts.iter().map(|(_, part)| part.bytes()).sum();
    assert!(asked.len() as u64 * 512 <= needed + experts.len() as u64 * 3 * 1024, "{needed}");
}

//! What `omex graph-visualize` draws is what the model computes, with the figures of `omex plan` and
//! `omex layer-inspect`.

use omex_tests::{
    check_xml, convert_from, json_of, omex, require_shared, run, run_in, shipped_model,
};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::OnceLock;
use tempfile::TempDir;

/// A folder with the model that ships here, as `tiny.omex`, and a machine's `profile.json`.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let make = || {
        let converted = convert_from(&shipped_model(), None);
        let folder = converted.folder.path();
        std::fs::rename(&converted.path, folder.join("tiny.omex")).unwrap();
        std::fs::write(folder.join("profile.json"), profile().to_string()).unwrap();
        std::fs::copy(shipped_model().join("config.json"), folder.join("config.json")).unwrap();
        converted.folder
    };
    FOLDER.get_or_init(make).path()
}

/// A machine on which everything takes its time.
fn profile() -> Value {
    let at = json!({ "from_cache": 0.5, "from_memory": 1.0 });
    let products = ["f32", "f16", "int8", "int4"].map(
        |format| json!({ "format": format, "columns": 1, "one_thread": at, "all_threads": at }),
    );
    json!({
        "omex_version": "0", "cpu": "another", "cores": 1, "kernels": [], "products": products,
        "read_bandwidth": { "one_thread": 1e9, "all_threads": 1e9 }, "storage_bandwidth": 1e7,
        "passes": { "operation": 1e-6, "element": 1e-9, "job": 0.0, "attention": [] },
    })
}

const PROFILE: [&str; 2] = ["--profile", "profile.json"];

/// The graph as an object.
fn drawn(args: &[&str]) -> Value {
    json_of(&run_in(folder(), &[&["graph-visualize"], args, &PROFILE, &["--json"]].concat()))
}

/// A picture that goes to standard output.
fn picture(args: &[&str]) -> String {
    let finished = run_in(folder(), &[&["graph-visualize"], args].concat());
    assert!(finished.code == Some(0) && finished.err.is_empty(), "{finished:?}");
    finished.out
}

fn nodes(drawn: &Value) -> Vec<&Value> {
    let blocks = drawn["blocks"].as_array().unwrap();
    blocks.iter().flat_map(|block| block["nodes"].as_array().unwrap()).collect()
}

fn sum(values: &[&Value], field: &str) -> f64 {
    values.iter().filter_map(|value| value[field].as_f64()).sum()
}

#[test]
fn figures_are_those_of_the_plan_and_of_the_layers() {
    let pack = ["pack", "tiny.omex", "--ram", "64K", "-o", "card.img"];
    assert_eq!(run_in(folder(), &pack).code, Some(0));
    for model in
        [&["tiny.omex"][..], &["tiny.omex", "--memory", "600KB"], &["card.img"], &["config.json"]]
    {
        let drawn = drawn(model);
        let plan = [&["plan"], model, &PROFILE, &["--json"]];
        let forecast = &json_of(&run_in(folder(), &plan.concat()))["forecast"];
        let inspect = [&["layer-inspect"], model, &["--storage-bandwidth", "10MB/s", "--json"]];
        let inspected = json_of(&run_in(folder(), &inspect.concat()));
        let layers: Vec<_> = inspected["layers"].as_array().unwrap().iter().collect();
        let nodes = nodes(&drawn);
        let bytes = sum(&nodes, "weight_bytes");
        assert_eq!(bytes, forecast["weight_bytes_per_token"].as_f64().unwrap(), "{model:?}");
        assert_eq!(bytes, sum(&layers, "base_bytes") + sum(&layers, "residual_bytes"), "{model:?}");
        for field in ["multiply_adds", "kv_cache_bytes"] {
            assert_eq!(sum(&nodes, field), sum(&layers, field), "{model:?}: {field}");
            assert_eq!(sum(&nodes, field), drawn["total"][field].as_f64().unwrap(), "{model:?}");
        }
        for (block, layer) in drawn["blocks"].as_array().unwrap().iter().zip(&layers) {
            assert_eq!(block["name"], layer["name"], "{model:?}");
            assert_eq!(block["streamed_bytes"], layer["streamed_bytes"], "{model:?}: {block}");
        }
        if model.len() == 1 {
            let (found, all) = (sum(&nodes, "seconds"), forecast["compute_seconds"].as_f64());
            assert!((found / all.unwrap() - 1.0).abs() < 1e-9, "{model:?}: {found} of {all:?}");
        }
    }
}

#[test]
fn what_flows_is_what_operations_write_and_read() {
    let drawn = drawn(&["tiny.omex"]);
    let node = |place: &Value| {
        let (block, node) = (place[0].as_u64().unwrap(), place[1].as_u64().unwrap());
        drawn["blocks"][block as usize]["nodes"][node as usize].clone()
    };
    let flows: Vec<_> = drawn["flows"].as_array().unwrap().iter().collect();
    let between = |from: &str, to: &str| {
        let is = |place: &Value, op: &str| node(place)["op"] == op;
        flows.iter().filter(|flow| is(&flow["from"], from) && is(&flow["to"], to)).count()
    };
    let layers = 4;
    for (from, to, count) in [
        ("Embed", "Norm", 1),
        // What a layer adds to goes around its norms.
        ("Embed", "Linear", 1),
        ("Angles", "Rotary", 2 * layers),
        ("Rotary", "Store", layers),
        ("Store", "Attend", layers),
        ("Attend", "Linear", layers),
        ("Gated", "Linear", layers),
        ("Store", "Linear", 0),
        ("Linear", "Output", 1),
    ] {
        assert_eq!(between(from, to), count, "from {from} to {to}");
    }
    for flow in &flows {
        let place = |end: &str| {
            let place = flow[end].as_array().unwrap();
            (place[0].as_u64().unwrap(), place[1].as_u64().unwrap())
        };
        assert!(place("from") < place("to"), "{flow} goes back");
    }
}

#[test]
fn pictures_are_well_formed_and_the_same_each_time() {
    let model = "R&D <b>\"1\" \u{1}.omex";
    let mut copy = std::process::Command::new("cp");
    let copied = copy.args(["-r", "tiny.omex", model]).current_dir(folder()).status();
    assert!(copied.unwrap().success());
    let args = [&[model][..], &PROFILE].concat();
    let svg = picture(&args);
    check_xml(&svg);
    let escaped = "R&amp;D &lt;b&gt;&quot;1&quot; \u{fffd}.omex";
    for text in [escaped, ">Attend<", "attention.qkv", "int8 ", "MACs", " %<", "layer 3", "logits"]
    {
        assert!(svg.contains(text), "{text} in {svg}");
    }
    assert_eq!(svg, picture(&args));
    // The first layer in full, and a line for each other.
    assert_eq!(svg.matches(">Attend</text>").count(), 2, "in the table and in a layer");
    for format in ["html", "dot"] {
        let of_format = [&args[..], &["--format", format]].concat();
        let file = ["-o".to_owned(), format!("graph.{format}")];
        let file: Vec<_> = args.iter().copied().chain(file.iter().map(String::as_str)).collect();
        assert_eq!(picture(&file), "", "it goes to the file");
        let written = std::fs::read_to_string(folder().join(format!("graph.{format}"))).unwrap();
        assert_eq!(written, picture(&of_format), "{format}");
    }
    let html = picture(&[&args[..], &["--format", "html"]].concat());
    assert!(html.contains(escaped) && !html.contains("<b>\"1\""), "{html}");
    assert_eq!(html.matches("<details").count(), 6, "all blocks fold");
    assert_eq!(html.matches("<details open>").count(), 3, "the first of each kind is open");
    assert!(!html.contains("http:") && !html.contains("https:"), "it needs nothing else");
    let start = |from: &str| html.split_once(from).unwrap().1;
    for drawing in start("<body>").split("<svg").skip(1) {
        check_xml(&format!("<svg{}</svg>", drawing.split_once("</svg>").unwrap().0));
    }
    let dot = picture(&[&args[..], &["--format", "dot"]].concat());
    assert!(dot.contains(r#"label="R&D <b>\"1\" "#), "{dot}");
    assert_eq!(dot.matches("subgraph cluster_").count(), 6);
    assert_eq!(dot.matches('{').count(), dot.matches('}').count());
}

#[test]
fn without_a_profile_bars_show_bytes() {
    let empty = tempfile::tempdir().unwrap();
    let mut command = omex(["graph-visualize", "tiny.omex"]);
    let command = command.current_dir(folder()).env("XDG_CACHE_HOME", empty.path());
    let finished = run(command.env("HOME", empty.path()));
    assert!(finished.code == Some(0) && finished.err.is_empty(), "{finished:?}");
    assert!(finished.out.contains("Bars: parts of the bytes of weights."), "{finished:?}");
    assert!(!finished.out.contains(" ms"), "{finished:?}");
    assert!(picture(&[&["tiny.omex"][..], &PROFILE].concat()).contains("Bars: parts of the time"));
    let bad = run_in(folder(), &["graph-visualize", "tiny.omex", "--format", "png"]);
    assert!(bad.code == Some(2) && bad.err.contains("svg, html, dot"), "{bad:?}");
    let bad = run_in(folder(), &["graph-visualize", "none.omex"]);
    assert!(bad.code == Some(1) && bad.err.contains("none.omex"), "{bad:?}");
}

#[test]
fn graphs_of_every_kind_are_drawn() {
    let golden = require_shared!("golden");
    let here = tempfile::tempdir().unwrap();
    for (name, op) in [
        ("mixtral", "Experts"),
        ("qwen3_5_text", "LinearAttention"),
        ("lfm2", "ShortConv"),
        ("modernbert", "Attend"),
        ("gpt2", "Activate"),
    ] {
        let source = golden.join(name);
        let (source, package) = (source.to_str().unwrap(), format!("{name}.omex"));
        let convert = ["convert", source, "--output-dir", &package, "--no-check"];
        assert_eq!(run_in(here.path(), &convert).code, Some(0), "{name}");
        let svg = run_in(here.path(), &["graph-visualize", &package]);
        check_xml(&svg.out);
        assert!(svg.out.contains(&format!(">{op}<")), "{name}: {svg:?}");
        assert!(!svg.out.contains("NaN") && !svg.out.contains("inf"), "{name}: {svg:?}");
    }
}

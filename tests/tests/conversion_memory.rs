//! `omex convert --memory` holds: what the process has resident stays within it, however large the model
//! and its largest tensor are, and what can't be done in it is refused before anything is written.

use omex::convert::{Calibration, ConvertOptions, Note, TokenizerChoice, Told, convert};
use omex::quantize::Precision;
use omex::{Error, import};
use omex_tests::{Synthetic, omex, run_in, shipped_model};
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The sizes of a Llama whose weights are zeros in files with holes: `[hidden, inner, layers, vocabulary]`.
type Sizes = [u64; 4];

/// The names and shapes of the tensors.
fn tensors([hidden, inner, layers, vocabulary]: Sizes) -> Vec<(String, Vec<u64>)> {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
        ("lm_head.weight".to_owned(), vec![vocabulary, hidden]),
    ];
    for layer in 0..layers {
        let of_layer = [
            ("input_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![hidden, hidden]),
            ("self_attn.k_proj", vec![64, hidden]),
            ("self_attn.v_proj", vec![64, hidden]),
            ("self_attn.o_proj", vec![hidden, hidden]),
            ("post_attention_layernorm", vec![hidden]),
            ("mlp.gate_proj", vec![inner, hidden]),
            ("mlp.up_proj", vec![inner, hidden]),
            ("mlp.down_proj", vec![hidden, inner]),
        ];
        let name = |part| format!("model.layers.{layer}.{part}.weight");
        tensors.extend(of_layer.map(|(part, shape)| (name(part), shape)));
    }
    tensors
}

/// Writes a model in several files.
fn write_model(folder: &Path, sizes: Sizes) {
    fs::create_dir(folder).unwrap();
    let [hidden, inner, layers, vocabulary] = sizes;
    let mut places = Map::new();
    for (number, tensors) in tensors(sizes).chunks(8).enumerate() {
        let (mut header, mut end) = (Map::new(), 0);
        let file = format!("model-{number:05}.safetensors");
        for (name, shape) in tensors {
            let start = end;
            end += 2 * shape.iter().product::<u64>();
            let entry = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] });
            header.insert(name.clone(), entry);
            places.insert(name.clone(), json!(file));
        }
        let header = Value::from(header).to_string();
        let mut out = File::create(folder.join(file)).unwrap();
        out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        out.write_all(header.as_bytes()).unwrap();
        out.set_len(8 + header.len() as u64 + end).unwrap();
    }
    let index = json!({ "weight_map": places });
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    let config = json!({
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": hidden / 64, "num_key_value_heads": 1,
        "vocab_size": vocabulary, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "rope_theta": 1e4, "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// Runs a command and returns its output and the most that it had resident, in bytes.
fn with_peak(command: &mut Command) -> (String, u64) {
    // A shell whose only child this is says what that took.
    let binary = command.get_program().to_owned();
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let script = "import resource, subprocess, sys\n\
                  done = subprocess.run(sys.argv[1:])\n\
                  print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, file=sys.stderr)\n\
                  sys.exit(done.returncode)";
    let mut python = Command::new("python3");
    python.arg("-c").arg(script).arg(binary).args(args).stdin(Stdio::null());
    if let Some(folder) = command.get_current_dir() {
        python.current_dir(folder);
    }
    let output = python.env("OMEX_CONFIG", "").output().expect("python3 can be run");
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{err}");
    let peak = err.lines().last().and_then(|line| line.parse().ok());
    (String::from_utf8(output.stdout).unwrap(), peak.expect("a peak"))
}

#[test]
fn a_conversion_stays_within_its_memory_however_large_tensors_are() {
    let folder = tempfile::tempdir().unwrap();
    // The embedding alone takes 134 MB, and in floats twice as much.
    write_model(&folder.path().join("model"), [1024, 2048, 2, 65536]);
    for (precision, memory, more) in [
        ("int8", 64u64, &["--no-check"][..]),
        ("f32", 96, &["--no-check"]),
        ("int4", 64, &["--no-check", "--no-calibration"]),
        ("int8", 160, &[]),
    ] {
        let memory_option = format!("{memory}MB");
        let args = ["convert", "model", "--no-tokenizer", "--force", "--output-dir", "m.omex"];
        let mut command = omex(args);
        command.args(["--quantization", precision, "--memory", &memory_option]).args(more);
        let (out, peak) = with_peak(command.current_dir(folder.path()));
        println!("{precision} in {memory} MB: {:.1} MB", peak as f64 / 1e6);
        assert!(peak <= memory * 1_000_000, "{precision}: {peak} bytes of {memory} MB");
        assert_eq!(out.contains("compared with the model over"), more.is_empty(), "{out}");
    }
}

#[test]
fn what_memory_does_not_hold_is_refused_or_left_out_and_said() {
    let folder = tempfile::tempdir().unwrap();
    write_model(&folder.path().join("model"), [256, 512, 2, 4096]);
    let convert = |more: &[&str]| {
        let args = ["convert", "model", "--no-tokenizer", "--output-dir", "m.omex"];
        run_in(folder.path(), &[&args[..], more].concat())
    };
    let refused = convert(&["--memory", "10MB"]);
    assert!(
        refused.code == Some(1) && refused.err.contains("more than the 10000000"),
        "{refused:?}"
    );
    assert!(refused.err.contains("a part of the largest tensor"), "{refused:?}");
    let left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["model"]);
    // As much as it asks for is enough for the package, and what it asks for then for the comparison.
    let number_before = |text: &str, words: &str| {
        let before = text.split_once(words).unwrap_or_else(|| panic!("no {words}: {text}")).0;
        before.rsplit(' ').next().unwrap().to_owned()
    };
    let needed = number_before(&refused.err, " bytes of memory");
    let written = convert(&["--memory", &needed, "--quantization", "int8"]);
    assert!(written.code == Some(0), "{written:?}");
    let needed = number_before(&written.out, " is enough");
    let compared = convert(&["--memory", &needed, "--quantization", "int8", "--force"]);
    assert!(compared.out.contains("compared with the model over"), "{compared:?}");
    // Other parts at a time make no other package.
    fs::rename(folder.path().join("m.omex"), folder.path().join("small.omex")).unwrap();
    assert_eq!(convert(&["--quantization", "int8"]).code, Some(0));
    for file in ["weights/layer_0.bin", "weights/quantization.json", "metadata.json"] {
        let bytes = |package| fs::read(folder.path().join(package).join(file)).unwrap();
        assert!(bytes("m.omex") == bytes("small.omex"), "{file}");
    }
}

/// A model that is shown a text for some layers at a time is rounded as if it were shown it once.
#[test]
fn calibrating_within_little_memory_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("model")).unwrap();
    Synthetic::new(256, 688, 6, 4, 4, 576, 256).write_hugging_face(&at("model"));
    fs::write(at("text"), "The robot went home, and it rained. ".repeat(20)).unwrap();
    let (text, tokenizer) = (at("text"), shipped_model().join("tokenizer.json"));
    let source = import::open(&at("model"), None).unwrap();
    let convert_in = |output: &str, memory: Option<u64>| {
        let shown = Cell::new(0);
        let count = |note: &Note<'_>| shown.set(shown.get() + u32::from(*note == Note::Calibrates));
        let options = ConvertOptions {
            precision: Some(Precision::Int4),
            tokenizer: TokenizerChoice::File(&tokenizer),
            calibration: Calibration::Text(&text),
            memory,
            told: Told(Some(&count)),
            ..Default::default()
        };
        let converted = convert(&*source, "test", "m", &at(output), &options, &mut |_, _| {});
        converted.map(|_| shown.get())
    };
    // Little memory first: no process can do with less than it had already.
    let Err(Error::Room { needed, .. }) = convert_in("small.omex", Some(1)) else {
        panic!("it can't do with one byte")
    };
    let shown = convert_in("small.omex", Some(needed)).unwrap();
    assert!(shown > 1, "{shown} times");
    assert_eq!(convert_in("m.omex", None).unwrap(), 1);
    let index = |package: &str| fs::read(at(package).join("weights/quantization.json")).unwrap();
    assert!(index("m.omex") == index("small.omex"));
}

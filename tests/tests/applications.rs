//! The applications of `boards/examples`, and the front end for sound: what NumPy and TensorFlow Lite Micro compute of
//! the same recordings.

mod npz;

use npz::arrays;
use omex::convert::{ConvertOptions, convert};
use omex::import;
use omex::pack::Target;
use omex::package::Package;
use omex_audio::{KEYWORDS, peak};
use omex_tests::{
    answered, board, omex, pack_with, require_shared, run, serial_board, shipped_model,
};
use std::path::Path;
use std::process::Command;

/// Recordings, each a second, by the places of their coefficients in the reference, and what it hears in them.
const RECORDINGS: [(usize, &str, &str); 3] =
    [(10, "yes", "yes"), (11, "no", "go"), (12, "silence", "silence")];

/// The samples of a WAV file with the shortest header.
fn samples(wav: &Path) -> Vec<i16> {
    let bytes = std::fs::read(wav).unwrap();
    bytes[44..].as_chunks().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect()
}

fn converted(model: &Path, package: &Path) {
    let source = import::open(model, None).unwrap();
    convert(&*source, "test", "test", package, &ConvertOptions::default(), &mut |_, _| {}).unwrap();
}

/// What a step of the first input and the first output is worth, and the byte that stands for 0.
fn steps(package: &Path) -> [(f32, i32); 2] {
    let package = Package::open(package).unwrap();
    let program = package.program().unwrap();
    let ports = [program.inputs().next().unwrap(), program.outputs().next().unwrap()];
    ports.map(|port| (port.scale, port.zero_point))
}

#[test]
fn coefficients_are_the_reference_s() {
    let model = require_shared!("models/mlperf_tiny/kws_ref_model.tflite");
    let inputs = &arrays(&require_shared!("refs/tflite/kws_ref_model.npz"))["inputs"];
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("kws.omex");
    converted(&model, &package);
    let [(scale, zero), _] = steps(&package);
    for (place, name, _) in RECORDINGS {
        let sound = samples(&require_shared!(&format!("models/tflm/inputs/{name}_1000ms.wav")));
        let gain = 1.0 / peak(&sound);
        let frames = sound.windows(480).step_by(320).map(|frame| KEYWORDS.frame(frame, gain));
        let steps = frames.flatten().map(|c| (c / scale).round() as i32 + zero);
        let found: Vec<_> = steps.map(|step| step.clamp(-128, 127) as i8).collect();
        let expected = inputs.bytes[place * 490..][..490].iter().map(|byte| byte.cast_signed());
        assert_eq!(found, expected.collect::<Vec<_>>(), "{name}");
    }
}

/// An example with a model, on its board, with a file for its sensor; `None` where there is no QEMU.
fn example(name: &str, model: &Path, folder: &Path) -> Option<impl Fn(&Path) -> Command> {
    let [package, image] = ["m.omex", "m.img"].map(|file| folder.join(file));
    let cargo = board("mps2-an386", &image)?;
    if !package.exists() {
        converted(model, &package);
    }
    let (page_size, columns, context, kv) = (None, None, None, None);
    let (ram, reserve) = (75 << 10, 11 << 10);
    let target = Target { ram, reserve, mapped: true, page_size, columns, context, kv };
    let _ = pack_with(&package, &target, &image);
    let name = name.to_owned();
    Some(move |file: &Path| {
        let mut board = Command::new(cargo.get_program());
        board.args(cargo.get_args().filter(|argument| *argument != "--json"));
        board.current_dir(cargo.get_current_dir().unwrap());
        board.args(["--example", &name, "--input"]).arg(file);
        board
    })
}

#[test]
fn keywords_are_heard_in_less_time_than_they_take() {
    let model = require_shared!("models/mlperf_tiny/kws_ref_model.tflite");
    let stereo = require_shared!("models/mlperf_tiny/inputs/marvin_617de221_0.wav");
    let folder = tempfile::tempdir().unwrap();
    let Some(board) = example("keywords", &model, folder.path()) else { return };
    for (_, name, word) in RECORDINGS {
        let wav = require_shared!(&format!("models/tflm/inputs/{name}_1000ms.wav"));
        let said = run(&mut board(&wav)).orderly();
        println!("{name}: {}", said.out);
        assert!(said.out.starts_with(&format!("{word} ")), "{said:?}");
        let busy = said.out.rsplit(", ").next().and_then(|rest| rest.split(' ').next());
        let busy: u32 = busy.unwrap().parse().unwrap();
        assert!((100..=350).contains(&busy), "{said:?}");
    }
    let refused = run(&mut board(&stereo));
    assert!(refused.out.contains("expected a WAV file of one channel"), "{refused:?}");
    assert_eq!(refused.code, Some(1), "{refused:?}");
}

#[test]
fn anomalies_are_as_large_as_the_reference_makes_them() {
    let model = require_shared!("models/mlperf_tiny/ad01_int8.tflite");
    let spectra =
        require_shared!("models/mlperf_tiny/inputs/normal_id_01_00000000_hist_librosa.bin");
    let reference = &arrays(&require_shared!("refs/tflite/ad01_int8.npz"))["out_tflm"];
    let folder = tempfile::tempdir().unwrap();
    let Some(board) = example("anomaly", &model, folder.path()) else { return };
    let said = run(&mut board(&spectra)).orderly();
    let [_, (scale, zero)] = steps(&folder.path().join("m.omex"));
    let bytes = std::fs::read(&spectra).unwrap();
    let seen: Vec<_> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    // The last three of the reference begin with these spectra.
    let places = [0, 60, 150].into_iter().zip((reference.shape[0] - 3)..);
    for (first, place) in places {
        let drawn = reference.bytes[place * 640..][..640].iter();
        let drawn = drawn.map(|byte| (i32::from(byte.cast_signed()) - zero) as f32 * scale);
        let squares =
            drawn.zip(&seen[first * 128..]).map(|(drawn, seen)| f64::from(drawn - seen).powi(2));
        let expected = squares.sum::<f64>() / 640.0;
        let begin = format!("spectrum {}: ", first + 5);
        let line = said.out.lines().find_map(|line| line.strip_prefix(&begin));
        let found: f64 = line.unwrap_or_else(|| panic!("{said:?}")).parse().unwrap();
        assert!((found - expected).abs() < 0.002, "{first}: {found}, expected {expected}");
    }
    let last = said.out.lines().last().unwrap();
    println!("{last}");
    assert!(last.starts_with("on average 10.26"), "{last}");
    assert_eq!(said.out.lines().count(), 200 - 4 + 1);
}

/// The console of boards that people own, with the model that ships: its text is the host's.
#[test]
fn a_serial_port_answers_with_text() {
    let folder = tempfile::tempdir().unwrap();
    let [package, image] = ["m.omex", "m.img"].map(|name| folder.path().join(name));
    let Some(board) = serial_board("virt-rv32", &image) else { return };
    converted(&shipped_model(), &package);
    let (page_size, columns, context, kv) = (None, None, None, None);
    let (ram, reserve) = (384 << 10, 11 << 10);
    let _ = pack_with(
        &package,
        &Target { ram, reserve, mapped: true, page_size, columns, context, kv },
        &image,
    );
    let prompt = "The robot";
    let said = answered(board, format!("{prompt}\r\x04").into_bytes());
    let here = run(&mut omex(["run", image.to_str().unwrap(), prompt, "--max-tokens", "128"]));
    let answer = here.out.trim_end().strip_prefix(prompt).unwrap().replace('\n', "");
    assert!(answer.len() > 200, "{here:?}");
    assert!(said.replace(['\r', '\n'], "").contains(&answer), "{said}\n{here:?}");
    assert!(said.contains("128 written in"), "{said}");
}

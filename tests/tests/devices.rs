//! Boards by name are those of `boards/`, and what is planned for them is what they have.

use omex::device::BOARDS;
use omex::import::open;
use omex::quantize::Precision;
use omex_tests::{Converted, json_of, omex, run, shipped_model};
use std::fs;
use std::path::Path;

/// What the planner knows of boards is what was measured, and what their linker scripts say.
#[test]
fn boards_are_those_that_there_is_firmware_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards");
    let sizes = fs::read_to_string(folder.join("SIZES.md")).unwrap();
    let rows: Vec<Vec<&str>> = sizes
        .lines()
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|row| row.len() > 5 && ["int8", "text"].contains(&row[2]))
        .collect();
    assert_eq!(rows.len(), 2 * BOARDS.len());
    for row in rows {
        let board = BOARDS.iter().find(|board| board.name == row[1]).expect(row[1]);
        let [flash, arena] = [3, 4].map(|column| row[column].parse::<u64>().unwrap());
        let most = board.firmware[usize::from(row[2] == "int8")];
        assert!((flash..flash + (32 << 10)).contains(&most), "{row:?}: at most {most}");
        assert_eq!(arena, board.arena, "{row:?}");
    }
    for board in BOARDS {
        let script = fs::read_to_string(folder.join(board.name).join("memory.x")).unwrap();
        let length = |region: &str| {
            let line = script.lines().find(|line| line.trim_start().starts_with(region))?;
            let length = line.rsplit_once("LENGTH = ")?.1.trim();
            let (number, unit) = length.split_at(length.len() - 1);
            Some(number.parse::<u64>().unwrap() << if unit == "M" { 20 } else { 10 })
        };
        assert_eq!(length("IMAGE "), board.image, "{}", board.name);
        assert_eq!(length("STACK "), Some(board.stack), "{}", board.name);
    }
}

#[test]
fn a_plan_for_a_board_says_what_fits_and_what_is_missing() {
    let package = Converted::new(&*open(&shipped_model(), None).unwrap(), Some(Precision::Int8));
    let path = package.path.to_str().unwrap();
    let plan = |device| run(&mut omex(["plan", path, "--device", device, "--json"]));
    let card = json_of(&plan("lm3s6965evb"));
    assert_eq!(card["device"], "lm3s6965evb");
    assert!(card["image"].is_null() && card["memory"]["ring"].as_u64().unwrap() > 0, "{card}");
    assert!(card["memory_left"].as_u64().unwrap() < 55296, "{card}");
    let flash = json_of(&plan("pico2"));
    assert_eq!(flash["memory"]["ring"], 0);
    for place in ["image", "firmware", "stack"] {
        let [needed, given] = ["needed", "given"].map(|field| flash[place][field].as_u64());
        assert!(needed > Some(0) && needed < given, "{place}: {flash}");
    }
    let told = run(&mut omex(["plan", path, "--device", "pico2"])).orderly();
    assert!(told.out.contains("flash for the image") && told.out.contains("it fits"), "{told:?}");
    let image = package.folder.path().join("pico2.img");
    let packed = ["pack", path, "--device", "pico2", "--json", "-o", image.to_str().unwrap()];
    assert_eq!(json_of(&run(&mut omex(packed))), flash["memory"]);
    let context = ["plan", path, "--device", "lm3s6965evb", "--context", "512"];
    let refused = run(&mut omex(context)).orderly();
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("too few"), "{refused:?}");
}

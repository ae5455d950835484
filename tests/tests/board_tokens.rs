//! Language models on emulated boards that count instructions: the host's bits, and no more instructions a token
//! than are on record.

use omex::import::open;
use omex::pack::Target;
use omex::quantize::Precision;
use omex_tests::{
    Converted, Setting, board, checksum, greedy_logits, json_of, numbers, pack_with, run,
    shipped_model,
};
use std::collections::BTreeMap;

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/record/tokens.json");
const UPDATE: &str =
    "OMEX_BOARD=1 OMEX_UPDATE_INSTRUCTIONS=1 cargo test -p omex-tests --test board_tokens";

/// A board, its memory, whether the image is read in place, and the weights' precision.
const CASES: [(&str, u64, bool, Precision); 3] = [
    ("lm3s6965evb", 64 << 10, false, Precision::Int8),
    ("mps2-an386", 4 << 20, true, Precision::Int8),
    ("mps2-an386", 4 << 20, true, Precision::Int4),
];

#[test]
fn tokens_have_the_hosts_bits_and_take_no_more_instructions_than_before() {
    let source = open(&shipped_model(), None).unwrap();
    let mut counted = BTreeMap::new();
    for (name, ram, mapped, precision) in CASES {
        let package = Converted::new(&*source, Some(precision));
        let image = package.folder.path().join("board.img");
        let (page_size, columns, context, kv) = (None, None, None, None);
        let reserve = 11 << 10;
        let target = Target { ram, reserve, mapped, page_size, columns, context, kv };
        pack_with(&package.path, &target, &image);
        let Some(mut board) = board(name, &image) else { return };
        let said = json_of(&run(board.args(["--ids", "1,403,407", "--max-tokens", "24"])));
        let (ids, rows) = greedy_logits(&image, &[1, 403, 407], 24, &Setting::default());
        assert_eq!(numbers(&said["ids"]), ids, "{name}, {precision:?}: {said}");
        let sum = said["logits_checksum"].as_u64();
        assert_eq!(sum, Some(checksum(&rows).into()), "{name}, {precision:?}: {said}");
        let count = said["instructions_per_token"].as_u64().unwrap();
        println!("{name}, {precision:?}: {count}");
        counted.insert(format!("{name} {precision:?}").to_lowercase(), count);
    }
    if std::env::var_os("OMEX_UPDATE_INSTRUCTIONS").is_some() {
        let text = serde_json::to_string_pretty(&counted).unwrap();
        return std::fs::write(RECORD, text + "\n").unwrap();
    }
    let record = std::fs::read(RECORD).expect(RECORD);
    let record: BTreeMap<String, u64> = serde_json::from_slice(&record).expect(RECORD);
    for (case, count) in counted {
        let before =
            *record.get(&case).unwrap_or_else(|| panic!("{case}: not on record: {UPDATE}"));
        let allowed = before + before / 50;
        assert!(count <= allowed, "{case}: {count} instructions, {before} on record: {UPDATE}");
    }
}

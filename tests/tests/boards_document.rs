//! The code in the document of boards is the boards' own, which is built.

use std::path::Path;

#[test]
fn code_in_the_document_is_that_of_the_board() {
    let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards");
    let document = std::fs::read_to_string(boards.join("README.md")).unwrap();
    let mut compared = vec![];
    for (before, after) in document.match_indices("\n```").map(|(at, _)| document.split_at(at)) {
        // A block that a line with a file's name in backquotes and a colon introduces.
        let introduction = before.trim_end().rsplit('\n').next().unwrap_or_default();
        let Some(file) = introduction.strip_suffix("`:").and_then(|l| l.rsplit('`').next()) else {
            continue;
        };
        let block = after.trim_start().split_once('\n').unwrap().1;
        let code = block.split_once("```").unwrap().0;
        let expected = std::fs::read_to_string(boards.join(file)).unwrap();
        assert_eq!(code, expected, "{file}: the document has other code than the file");
        compared.push(file);
    }
    let files = ["main.rs", "memory.x", "build.rs"];
    assert!(files.iter().all(|file| compared.iter().any(|found| found.ends_with(file))));
}

//! Preprocessors: what a text goes through before it becomes tokens, as the library does it.

use omex::chat::Moment;
use omex::package::{Blocks, PreprocessorSettings, Step, UnicodeForm};
use omex::preprocess::Preprocessor;
use proptest::prelude::*;

fn run(steps: Vec<Step>, text: &str, most: usize) -> omex::Result<Vec<String>> {
    let settings = PreprocessorSettings::new(steps);
    let preprocessor = Preprocessor::new(&settings, "here", Moment::from_unix(0))?;
    preprocessor.run(text, most, &mut |text| Ok(tokens(text)))
}

/// Words, as a stand-in for tokens: what follows white space belongs to the next one.
fn tokens(text: &str) -> usize {
    let starts = |(a, b): (char, char)| a.is_whitespace() && !b.is_whitespace();
    let pairs = text.chars().zip(text.chars().skip(1));
    usize::from(!text.is_empty()) + pairs.filter(|pair| starts(*pair)).count()
}

fn chunk(by: Blocks, max_tokens: u32, overlap_tokens: u32) -> Step {
    Step::Chunk { by, max_tokens: Some(max_tokens), overlap_tokens }
}

fn one(steps: Vec<Step>, text: &str) -> String {
    let parts = run(steps, text, usize::MAX).unwrap();
    let [part] = &parts[..] else { panic!("{parts:?}") };
    part.clone()
}

#[test]
fn steps_tidy_a_text_in_their_order() {
    let text = "  \u{fb01}n\u{e9}  E\u{301}t\u{7}e\r\n\r\n\r\n\tZwei\t \tW\u{f6}rter \r";
    let steps = vec![
        Step::Unicode { form: UnicodeForm::Nfkc },
        Step::LineEnds {},
        Step::RemoveControl {},
        Step::CollapseSpaces {},
        Step::Lowercase {},
        Step::Trim {},
    ];
    assert_eq!(one(steps, text), "fin\u{e9} \u{e9}te\n\nzwei w\u{f6}rter");
    assert_eq!(one(vec![Step::Unicode { form: UnicodeForm::Nfd }], "\u{e9}"), "e\u{301}");
    assert_eq!(one(vec![], text), text);
}

#[test]
fn templates_are_put_around_parts_that_fit_with_them() {
    let template = "Part {{ part }} of it: {{ text }} | end".to_owned();
    let steps = vec![chunk(Blocks::Paragraphs, 9, 0), Step::Template { template }];
    let parts = run(steps, "one two three. four five six", usize::MAX).unwrap();
    let around = |part: usize, text: &str| format!("Part {part} of it: {text} | end");
    assert_eq!(parts, [around(1, "one two three. "), around(2, "four five six")]);
    assert!(parts.iter().all(|part| tokens(part) <= 9), "{parts:?}");
}

#[test]
fn a_text_that_fits_stays_whole_and_the_context_bounds_parts() {
    let text = "one two three four";
    let steps = || vec![chunk(Blocks::Paragraphs, 100, 0)];
    assert_eq!(run(steps(), text, 4).unwrap(), [text]);
    assert_eq!(run(steps(), text, 3).unwrap(), ["one two three ", "four"]);
    assert_eq!(run(steps(), "", 3).unwrap(), [""]);
    // Nothing cuts it.
    assert_eq!(run(vec![Step::Trim {}], text, 3).unwrap(), [text]);
}

#[test]
fn documents_are_cut_at_paragraphs_before_sentences_before_words() {
    let steps = |most| vec![chunk(Blocks::Paragraphs, most, 0)];
    let text = "# One\n\nAlpha beta. Gamma.\n\n# Two\n\nDelta epsilon zeta eta. Theta iota.\n";
    let parts = run(steps(8), text, usize::MAX).unwrap();
    assert_eq!(parts, [&text[..27], &text[27..]], "{parts:?}");
    let parts = run(steps(5), &text[34..], usize::MAX).unwrap();
    assert_eq!(parts, ["Delta epsilon zeta eta. ", "Theta iota.\n"]);
    let parts = run(steps(2), "a b c", usize::MAX).unwrap();
    assert_eq!(parts, ["a b ", "c"]);
}

#[test]
fn code_is_cut_between_its_blocks() {
    let function = |name: &str| format!("fn {name}() {{\n    let x = 1;\n\n    x\n}}\n");
    let text = ["a", "b", "c"].map(function).join("\n");
    let parts = run(vec![chunk(Blocks::Code, 12, 0)], &text, usize::MAX).unwrap();
    let starts: Vec<_> = parts.iter().map(|part| &part[..4]).collect();
    assert_eq!(starts, ["fn a", "fn b", "fn c"], "{parts:?}");
    assert_eq!(parts.concat(), text);
    // Within a block that is too long: at the least indentation, and never before what closes it.
    let nested = "def f():\n    if x:\n        one()\n        two()\n    else:\n        three()\n    four()\n";
    let parts = run(vec![chunk(Blocks::Code, 8, 0)], nested, usize::MAX).unwrap();
    assert_eq!(parts.concat(), nested);
    assert!(parts.len() == 2 && parts[1] == "    four()\n", "{parts:?}");
}

#[test]
fn parts_overlap_by_whole_words() {
    let parts = run(vec![chunk(Blocks::Paragraphs, 4, 2)], "a b c d e f g", usize::MAX).unwrap();
    assert_eq!(parts, ["a b c d ", "c d e f ", "e f g"]);
}

#[test]
fn overlap_without_a_size_is_half_a_part_at_most() {
    let step = Step::Chunk { by: Blocks::Paragraphs, max_tokens: None, overlap_tokens: 1000 };
    assert_eq!(run(vec![step], "a b c d e f", 4).unwrap(), ["a b c d ", "c d e f"]);
}

#[test]
fn steps_stay_within_their_memory() {
    let step = Step::Unicode { form: UnicodeForm::Nfkd };
    let settings = PreprocessorSettings::new(vec![step]);
    let small = || Preprocessor::new(&settings, "here", Moment::from_unix(0)).unwrap().within(800);
    // Each becomes 18 characters.
    let error = small().whole(&"\u{fdfa}".repeat(40)).unwrap_err().to_string();
    assert!(error.contains("--memory") && error.contains("200"), "{error}");
    assert!(small().whole("short").is_ok());
}

#[test]
fn what_can_not_be_done_is_refused() {
    let template = |text: &str| vec![Step::Template { template: text.to_owned() }];
    let refused = |steps, most| run(steps, "some text", most).unwrap_err().to_string();
    assert!(refused(template("{% if %}"), 9).contains("here: steps[0].template"));
    let steps = [vec![chunk(Blocks::Code, 9, 0)], template("a b c d {{ text }}")].concat();
    let error = refused(steps, 3);
    assert!(error.contains("may have 3 tokens") && error.contains("max_tokens"), "{error}");
}

proptest! {
    #[test]
    fn parts_fit_and_make_the_text(
        text in "[a-c.é\u{1f600}(){}#:\t \n]{0,200}",
        most in 1_u32..12,
        code: bool,
    ) {
        let by = if code { Blocks::Code } else { Blocks::Paragraphs };
        let parts = run(vec![chunk(by, most, 0)], &text, usize::MAX).unwrap();
        prop_assert_eq!(parts.concat(), text.as_str());
        for part in &parts {
            prop_assert!(tokens(part) <= most as usize, "{:?}", part);
            prop_assert!(!part.is_empty() || text.is_empty());
        }
    }

    #[test]
    fn overlapping_parts_cover_the_text(
        spaces in prop::collection::vec("[ \n]{1,3}", 0..40),
        most in 2_u32..10,
    ) {
        let overlap = most / 2;
        // No word comes twice, so that a part has one place.
        let words = spaces.iter().enumerate().map(|(number, space)| format!("{number}.{space}"));
        let text: String = words.collect();
        let parts = run(vec![chunk(Blocks::Paragraphs, most, overlap)], &text, usize::MAX).unwrap();
        let mut end = 0;
        for part in &parts {
            prop_assert!(tokens(part) <= most as usize);
            // Each begins within the part before it, or right behind.
            let begin = (0..=end).rev().find(|at| {
                text[*at..].starts_with(part.as_str()) && at + part.len() > end || text.is_empty()
            });
            prop_assert!(begin.is_some(), "{:?}", parts);
            end = begin.unwrap() + part.len();
        }
        prop_assert_eq!(end, text.len());
    }
}

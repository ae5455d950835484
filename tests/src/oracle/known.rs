//! Texts with what one pass over all of a text gives, which everything else is compared with.

use super::naive::Naive;
use super::play::{Way, play};
use super::programs::Setting;
use super::script::{Seen, Step, Token, plain};

/// Texts, longest first, and the outputs at each of their places.
pub(super) struct Known {
    played: Vec<(Vec<Token>, Vec<Vec<f32>>)>,
    /// Outputs are those of the whole text, not of what goes before.
    whole: bool,
}

fn all_seen(script: &[Step]) -> impl Iterator<Item = &Seen> {
    script.iter().flat_map(|step| match step {
        Step::Pass(_, seen) => &seen[..],
        _ => &[],
    })
}

impl Known {
    /// All texts of a script.
    pub(super) fn of(setting: &Setting, way: &Way<'_>, script: &[Step]) -> Self {
        let mut texts: Vec<_> = all_seen(script).map(|seen| &seen.text).collect();
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        let mut known = Self { played: vec![], whole: setting.whole() };
        for text in texts {
            if known.text(text).is_none() {
                known.played.push((text.clone(), play(setting, way, &plain(text, false))));
            }
        }
        known
    }

    pub(super) fn longest(&self) -> Option<&[Token]> {
        self.played.first().map(|(text, _)| &text[..])
    }

    /// What is known of a text.
    fn text(&self, text: &[Token]) -> Option<&[Vec<f32>]> {
        let fits = |played: &[Token]| {
            if self.whole { played == text } else { played.starts_with(text) }
        };
        self.played.iter().find(|(played, _)| fits(played)).map(|(_, outputs)| &outputs[..])
    }

    /// A script, played this way, gives the same bits.
    pub(super) fn check(&self, setting: &Setting, way: &Way<'_>, script: &[Step], choices: &[u8]) {
        let found = play(setting, way, script);
        for (Seen { text, place }, found) in all_seen(script).zip(found) {
            let expected = &self.text(text).expect("all texts are known")[*place];
            let same = found.iter().map(|x| x.to_bits()).eq(expected.iter().map(|x| x.to_bits()));
            assert!(same, "{choices:?}: other bits at {place} of {text:?} in {script:?}");
        }
    }

    /// The naive player finds about the same numbers, up to where it may choose other experts.
    pub(super) fn check_naively(&self, setting: &Setting, choices: &[u8]) {
        let program = setting.made.program();
        for (text, found) in &self.played {
            let mut naive = Naive::new(&program, &setting.made.weights, &setting.plan, text);
            let expected = naive.play(setting.parts);
            let largest = expected.iter().flatten().fold(0.1f32, |most, x| most.max(x.abs()));
            let bound = setting.bound * largest;
            let sure = match naive.sure(setting.bound / 4.0) {
                some if self.whole && some < text.len() => 0,
                some => some,
            };
            for (place, (found, expected)) in found.iter().zip(&expected).take(sure).enumerate() {
                for (x, y) in found.iter().zip(expected) {
                    assert!((x - y).abs() <= bound, "{choices:?}, {place}: {x}, naively {y}");
                }
            }
        }
    }
}

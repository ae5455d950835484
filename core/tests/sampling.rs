//! Settings at their edges choose a token that the settings favour, and never one by accident.
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use omex_core::sample::{Sampler, Sampling};

const LOGITS: [f32; 6] = [-4.0, 1.0, 3.5, -0.5, 3.0, 0.0];
const BEST: u32 = 2;
const WARM: Sampling = Sampling { temperature: 0.8, ..Sampling::GREEDY };

fn sample(sampling: Sampling, seen: &[u32]) -> u32 {
    let mut sampler = Sampler::new(sampling);
    seen.iter().for_each(|token| sampler.observe(*token));
    sampler.sample(&mut LOGITS.clone())
}

#[test]
fn what_keeps_one_token_is_greedy() {
    for seed in 0..50 {
        for sampling in [
            Sampling { top_p: 0.0, ..WARM },
            Sampling { top_p: f32::MIN_POSITIVE, ..WARM },
            Sampling { top_p: -1.0, ..WARM },
            Sampling { top_k: 1, top_p: 0.0, min_p: 1.0, ..WARM },
            Sampling { min_p: 1.0, ..WARM },
            Sampling { min_p: 2.0, ..WARM },
            Sampling { temperature: f32::from_bits(1), ..WARM },
            Sampling { temperature: f32::NAN, ..WARM },
        ] {
            assert_eq!(sample(Sampling { seed, ..sampling }, &[]), BEST, "{sampling:?}");
        }
    }
}

#[test]
fn penalties_at_the_edges_of_floats_stay_penalties() {
    for seed in 0..50 {
        for temperature in [0.0, 0.8, f32::INFINITY] {
            let with = |repetition_penalty| {
                let sampling = Sampling { temperature, seed, ..Sampling::GREEDY };
                sample(Sampling { repetition_penalty, ..sampling }, &[0, 1, 4])
            };
            // Positive logits that were seen are favoured, however far beyond a float's range.
            for penalty in [1e-38, f32::from_bits(1)] {
                assert!(temperature > 1e6 || [1, 4].contains(&with(penalty)), "{penalty}");
            }
            // Penalties that are none change nothing.
            for penalty in [0.0, -1.0, f32::NAN, f32::INFINITY] {
                assert_eq!(with(penalty), with(1.0), "{penalty}");
            }
        }
    }
}

#[test]
fn every_token_is_drawn_at_an_infinite_temperature() {
    let mut seen = [0; LOGITS.len()];
    let mut sampler = Sampler::new(Sampling { temperature: f32::INFINITY, ..WARM });
    for _ in 0..600 {
        seen[sampler.sample(&mut LOGITS.clone()) as usize] += 1;
    }
    assert!(seen.iter().all(|&times| times > 50), "{seen:?}");
}

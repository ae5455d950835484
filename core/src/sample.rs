//! Choosing the next token from logits, without sorting and without memory.

use crate::math::exp;

/// How the next token is chosen. The order is: repetition penalty, temperature, then top-k, top-p
/// and min-p on the probabilities, then a draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the most likely token (greedy).
    pub temperature: f32,
    /// Keeps this many of the most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps the fewest most likely tokens, at least one, whose probabilities reach this sum
    /// (arXiv:1904.09751); 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the most likely one (arXiv:2407.01082);
    /// 0 keeps all.
    pub min_p: f32,
    /// Divides positive logits of recent tokens and multiplies negative ones (arXiv:1909.05858); 1
    /// changes nothing.
    pub repetition_penalty: f32,
    /// Where the random numbers begin.
    pub seed: u64,
}

impl Sampling {
    /// The most likely token, always.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        seed: 0,
    };
}

/// How many recent tokens the repetition penalty looks at.
pub const RECENT_TOKENS: usize = 64;

/// Draws tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: SplitMix64,
    recent: [u32; RECENT_TOKENS],
    seen: usize,
}

impl Sampler {
    /// A sampler at the beginning of its random numbers.
    #[must_use]
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, random: SplitMix64(sampling.seed), recent: [0; RECENT_TOKENS], seen: 0 }
    }

    /// The seed whose random numbers are those that this sampler has not drawn yet.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.random.0
    }

    /// Notes a token of the text, prompt included, for the repetition penalty.
    pub fn observe(&mut self, token: u32) {
        if let Some(place) = self.recent.get_mut(self.seen % RECENT_TOKENS) {
            *place = token;
        }
        self.seen = self.seen.wrapping_add(1);
    }

    /// Chooses a token and notes it. The logits, `[vocab_size]`, are overwritten with weights; of none,
    /// the token is 0.
    pub fn sample(&mut self, logits: &mut [f32]) -> u32 {
        self.penalize(logits);
        let token =
            if self.sampling.temperature > 0.0 { self.draw(logits) } else { greedy(logits) };
        self.observe(token);
        token
    }

    fn penalize(&self, logits: &mut [f32]) {
        let penalty = self.sampling.repetition_penalty;
        let recent = self.recent.get(..self.seen.min(RECENT_TOKENS)).unwrap_or_default();
        let changes = penalty > 0.0 && penalty.is_finite() && penalty != 1.0;
        if !changes {
            return;
        }
        for (i, token) in recent.iter().enumerate() {
            let earlier = recent.get(..i).unwrap_or_default();
            if let Some(logit) = logits.get_mut(*token as usize)
                && !earlier.contains(token)
            {
                let penalized = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
                // Two infinite logits have no difference.
                *logit = penalized.clamp(f32::MIN, f32::MAX);
            }
        }
    }

    fn draw(&mut self, logits: &mut [f32]) -> u32 {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let temperature = self.sampling.temperature.min(f32::MAX);
        for x in logits.iter_mut() {
            *x = exp((*x - largest) / temperature);
        }
        let weights = logits;
        let Sampling { top_k, top_p, min_p, .. } = self.sampling;
        if top_k > 0 {
            keep(weights, |count, _| count >= u64::from(top_k));
        }
        if top_p < 1.0 {
            let wanted = f64::from(top_p.max(0.0)) * sum(weights);
            keep(weights, |count, mass| count > 0 && mass >= wanted);
        }
        if min_p > 0.0 {
            // The largest weight is exp(0) = 1, and stays.
            let least = min_p.min(1.0);
            weights.iter_mut().filter(|w| **w < least).for_each(|w| *w = 0.0);
        }
        let mut left = self.random.unit() * sum(weights);
        let mut chosen = 0;
        for (token, weight) in weights.iter().enumerate() {
            if *weight > 0.0 {
                chosen = token;
                left -= f64::from(*weight);
                if left < 0.0 {
                    break;
                }
            }
        }
        chosen as u32
    }
}

/// The most likely token of logits, `[vocab_size]`; the first one of equals, and 0 of none.
#[must_use]
pub fn greedy(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (token, *logit);
        }
    }
    best.0 as u32
}

/// In doubles and in order, so that it is the same everywhere and a large vocabulary loses nothing.
fn sum(weights: &[f32]) -> f64 {
    weights.iter().map(|w| f64::from(*w)).sum()
}

/// Keeps the fewest of the largest weights whose count and mass are `enough`, and sets the others
/// to zero; of equal weights the first ones are kept.
///
/// The smallest weight to keep is found by bisection over its bits: positive floats are ordered as
/// their bits are.
fn keep(weights: &mut [f32], enough: impl Fn(u64, f64) -> bool) {
    let at_least = |bits: u32| {
        let kept = weights.iter().filter(|w| w.to_bits() >= bits && **w > 0.0);
        kept.fold((0u64, 0f64), |(count, mass), w| (count + 1, mass + f64::from(*w)))
    };
    let (mut low, mut high) = (0u32, f32::INFINITY.to_bits());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let (count, mass) = at_least(middle);
        if enough(count, mass) { low = middle } else { high = middle }
    }
    // All above `low` are needed; of those equal to it, as many as are enough.
    let (mut count, mut mass) = at_least(low + 1);
    for w in weights.iter_mut() {
        if w.to_bits() > low {
            continue;
        }
        if w.to_bits() == low && *w > 0.0 && !enough(count, mass) {
            count += 1;
            mass += f64::from(*w);
        } else {
            *w = 0.0;
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

//! How many tokens are worth drafting.

/// Of the time spent so far, the part that drafts may have lost.
const MOST_LOST: f64 = 0.02;
/// What a new measurement weighs in a running mean.
const NEWEST: f64 = 0.25;
/// Passes after which drafting is tried again.
const RETRY: u32 = 32;

/// Chooses the width of drafts from the times and the acceptance seen.
///
/// A pass over a token and `w` drafted ones takes t(w) and yields 1 + p + ... + p^w tokens, where p
/// is the part of guesses that are right. The width with the most tokens a second is chosen, of
/// those that, if nothing they guess is right, leave the time lost below 2 % of the time spent.
pub struct Width {
    most: usize,
    /// Running means of seconds, by width.
    seconds: Vec<Option<f64>>,
    /// Guesses that were right, and all that were looked at, with older ones weighing less.
    right: f64,
    guesses: f64,
    spent: f64,
    lost: f64,
    plain_passes: u32,
}

impl Width {
    /// At most `most` tokens a draft.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let (seconds, right, guesses) = (vec![], 0.5, 1.0);
        Self { most, seconds, right, guesses, spent: 0.0, lost: 0.0, plain_passes: 0 }
    }

    /// The width of the next draft.
    #[must_use]
    pub fn next(&self) -> usize {
        let Some(plain) = self.time(0) else { return 0 };
        let allowed = MOST_LOST * self.spent - self.lost;
        let affordable = |width: &usize| self.time(*width).is_some_and(|t| t - plain <= allowed);
        let gain = |width: usize| self.tokens(width) / self.time(width).unwrap_or(f64::INFINITY);
        let widths = (1..=self.most).filter(affordable);
        let best = widths.max_by(|a, b| gain(*a).total_cmp(&gain(*b))).unwrap_or(0);
        if best == 0 || gain(best) > gain(0) {
            best
        } else {
            usize::from(self.plain_passes >= RETRY && affordable(&1))
        }
    }

    /// Notes a pass over a prompt: what a pass over many columns takes.
    pub fn note_prompt(&mut self, columns: usize, seconds: f64) {
        if columns > 1 {
            self.measure(columns - 1, seconds);
        }
    }

    /// Notes how many of a draft's `width` tokens were right, and the seconds that drafting them and
    /// running the pass took.
    pub fn note(&mut self, width: usize, accepted: usize, drafting: f64, running: f64) {
        let seconds = drafting + running;
        self.spent += seconds;
        if width == 0 {
            // A drafter that found nothing took its time all the same.
            self.lost += drafting;
            self.measure(0, running);
            self.plain_passes = self.plain_passes.saturating_add(1);
            return;
        }
        self.measure(width, seconds);
        self.plain_passes = 0;
        let plain = self.time(0).unwrap_or(seconds);
        self.lost += seconds - plain * (accepted + 1) as f64;
        let looked_at = (accepted + 1).min(width);
        let kept = (1.0 - NEWEST / 4.0).powi(looked_at as i32);
        self.right = self.right * kept + accepted as f64;
        self.guesses = self.guesses * kept + looked_at as f64;
    }

    fn measure(&mut self, width: usize, seconds: f64) {
        if self.seconds.len() <= width {
            self.seconds.resize(width + 1, None);
        }
        let mean = &mut self.seconds[width];
        *mean = Some(mean.map_or(seconds, |mean| mean + NEWEST * (seconds - mean)));
    }

    /// Seconds of a pass: measured, or between measurements on the line through them. Past the
    /// widest measured, columns cost as much each as up to there.
    fn time(&self, width: usize) -> Option<f64> {
        let at = |w: usize| self.seconds.get(w).copied().flatten();
        let below = (0..=width).rev().find_map(|w| Some((w, at(w)?)))?;
        if below.0 == width {
            return Some(below.1);
        }
        let next = (width..self.seconds.len()).find_map(|w| Some((w, at(w)?)));
        let (from, to) = match next {
            Some(above) => (below, above),
            None => ((0, at(0)?), below),
        };
        // Nothing but plain passes measured: as if each column took a pass of its own.
        let (w, slope) = match to.0 - from.0 {
            0 => (0, from.1),
            columns => (from.0, (to.1 - from.1) / columns as f64),
        };
        Some(from.1 + slope.max(0.0) * (width - w) as f64)
    }

    /// Tokens that a pass with a draft is expected to yield.
    fn tokens(&self, width: usize) -> f64 {
        let p = self.right / self.guesses;
        (0..=width).map(|guesses| p.powi(guesses as i32)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds lost by drafting, as a part of those that plain decoding takes; and the tokens a
    /// pass in the end. `right` says whether the guess at a token is right.
    fn simulate(time: impl Fn(usize) -> f64, right: impl Fn(usize) -> bool) -> (f64, f64) {
        let mut width = Width::new(8);
        let (mut token, mut spent, mut late) = (0, 0.0, (0, 0));
        while token < 2000 {
            let w = width.next();
            let accepted = (0..w).take_while(|guess| right(token + guess)).count();
            width.note(w, accepted, 0.0, time(w));
            spent += time(w);
            token += accepted + 1;
            if token > 1000 {
                late = (late.0 + accepted + 1, late.1 + 1);
            }
        }
        (spent / (token as f64 * time(0)) - 1.0, f64::from(late.0 as u32) / f64::from(late.1))
    }

    #[test]
    fn drafts_that_are_right_are_long_where_columns_are_cheap() {
        let (lost, tokens) = simulate(|w| 1.0 + 0.01 * w as f64, |_| true);
        assert!(lost < -0.8 && tokens > 8.0, "{lost} {tokens}");
        let (lost, tokens) = simulate(|w| 1.0 + 0.01 * w as f64, |token| token % 4 != 0);
        assert!(lost < -0.6 && tokens > 2.5, "{lost} {tokens}");
    }

    #[test]
    fn drafting_never_loses_3_percent() {
        let costs: [fn(usize) -> f64; 4] = [
            |w| 1.0 + 0.01 * w as f64,
            |w| 1.0 + 0.5 * w as f64,
            |w| 1.0 + 2.0 * w as f64,
            |w| if w == 0 { 1.0 } else { 10.0 },
        ];
        let texts: [fn(usize) -> bool; 4] =
            [|_| false, |token| token % 7 == 0, |token| token < 500, |token| token / 50 % 2 == 0];
        for (number, cost) in costs.iter().enumerate() {
            for right in texts {
                let (lost, _) = simulate(cost, right);
                assert!(lost < 0.03, "cost {number}: {lost}");
            }
        }
    }
}

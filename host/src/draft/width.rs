//! How many tokens are worth drafting.

/// Of the time spent so far, the part that drafts may have lost.
const MOST_LOST: f64 = 0.01;
/// What it may lose besides, to find out what drafts are worth: a part of a pass.
const TRIAL: f64 = 0.5;
/// What a column reads of experts, as a part of what a pass of one token reads, until one was seen: few
/// enough to try.
const NEW_EXPERTS: f64 = 1.0 / 3.0;
/// What a new measurement weighs in a running mean.
const NEWEST: f64 = 0.25;
/// Passes after which drafting is tried again.
const RETRY: u32 = 32;

/// A pass, and the seconds that it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass {
    /// Tokens that were run on trust.
    pub drafted: usize,
    /// Seconds that it took to guess them.
    pub drafting: f64,
    /// Seconds of the pass itself.
    pub running: f64,
    /// Of these, seconds spent waiting for weights to be read.
    pub waiting: f64,
}

/// Chooses the width of drafts from the times and the acceptance seen.
///
/// A pass over a token and `w` drafted ones takes t(w) and yields 1 + p + ... + p^w tokens, where p
/// is the part of guesses that are right. t(w) is what `w` guesses take, and what the columns take
/// to compute or the weights to read, whichever is more: where weights stream, columns are free up
/// to there, unless they choose experts that the others do not. The width with the most tokens a
/// second is chosen, of those that, if nothing they guess is right, leave the time lost below 1 % of
/// the time spent and half a pass.
pub struct Width {
    most: usize,
    /// Seconds that a pass of one token computes.
    plain: Option<f64>,
    /// Seconds that a column of the prompt's passes computed; the first of them may have had more to do.
    prompt: Option<f64>,
    /// Seconds that drafted columns added to a pass, and these columns.
    added: Sum,
    /// Seconds that the reads of a pass of one token take; `None` until a pass has waited for them.
    reading: Option<f64>,
    /// Seconds that drafted columns added to that, and these columns, by the part of passes that waited.
    reading_added: Sum,
    /// Seconds that a guess takes.
    guessing: Option<f64>,
    /// Guesses that were right, and all that were looked at.
    right: Sum,
    spent: f64,
    lost: f64,
    plain_passes: u32,
}

impl Width {
    /// At most `most` tokens a draft; `experts` if columns may read what others do not.
    #[must_use]
    pub fn new(most: usize, experts: bool) -> Self {
        let reading_added = if experts { Sum::default() } else { Sum { total: 0.0, count: 1.0 } };
        Self {
            most,
            plain: None,
            prompt: None,
            added: Sum::default(),
            reading: None,
            reading_added,
            guessing: None,
            right: Sum { total: 0.5, count: 1.0 },
            spent: 0.0,
            lost: 0.0,
            plain_passes: 0,
        }
    }

    /// The width of the next draft, by a drafter that has to run `behind` tokens first.
    #[must_use]
    pub fn next(&self, behind: usize) -> usize {
        let Some(plain) = self.time(0) else { return 0 };
        let allowed = MOST_LOST * self.spent + TRIAL * plain - self.lost;
        let catching_up = self.guessing.unwrap_or(0.0) * behind as f64;
        let time = |width| self.time(width).map(|time| time + catching_up);
        let affordable = |width| time(width).filter(|time| time - plain <= allowed);
        let p = self.right.mean().unwrap_or(0.0);
        let (mut best, mut most_a_second) = (0, 1.0 / plain);
        let (mut tokens, mut all_right) = (1.0, 1.0);
        for width in 1..=self.most {
            all_right *= p;
            tokens += all_right;
            let Some(time) = affordable(width) else { break };
            if tokens / time > most_a_second {
                (best, most_a_second) = (width, tokens / time);
            }
        }
        let retry = self.plain_passes >= RETRY && affordable(1).is_some();
        best.max(usize::from(retry)).min(self.most)
    }

    /// Notes the seconds that a pass over `columns` tokens of a prompt computed.
    pub fn note_prompt(&mut self, columns: usize, computing: f64) {
        if columns > 1 {
            self.prompt = Some(computing / columns as f64);
        }
    }

    /// Notes the seconds that a guess took.
    pub fn note_guess(&mut self, seconds: f64) {
        update(&mut self.guessing, seconds, NEWEST);
    }

    /// Notes a pass, and how many of its drafted tokens were right.
    pub fn note(&mut self, pass: &Pass, accepted: usize) {
        let Pass { drafted, drafting, running, waiting } = *pass;
        let (seconds, computing) = (drafting + running, running - waiting);
        self.spent += seconds;
        // The more of a pass is waiting, the closer is what reads take to what the pass takes.
        let waited = if waiting > 0.0 { waiting / running } else { 0.0 };
        match self.reading {
            Some(reading) if drafted > 0 => {
                let columns = drafted as f64 * waited;
                self.reading_added.add((running - reading) * waited, columns, NEWEST / 4.0);
            }
            _ if waited > 0.0 => update(&mut self.reading, running, NEWEST * waited),
            _ => {}
        }
        if drafted == 0 {
            // A drafter that found nothing took its time all the same.
            self.lost += drafting;
            update(&mut self.plain, computing, NEWEST);
            self.plain_passes = self.plain_passes.saturating_add(1);
            return;
        }
        self.plain_passes = 0;
        self.note_guess(drafting / drafted as f64);
        let plain = self.plain.unwrap_or(computing);
        if self.added.count == 0.0 {
            self.added = Sum { total: self.column(plain), count: 1.0 };
        }
        let added = computing - plain;
        self.added.add(added, drafted as f64, NEWEST / 4.0);
        self.lost += seconds - self.time(0).unwrap_or(seconds) * (accepted + 1) as f64;
        self.right.add(accepted as f64, (accepted + 1).min(drafted) as f64, NEWEST / 4.0);
    }

    /// Seconds that a drafted column adds to what a pass computes: at first no more than a pass of its own.
    fn column(&self, plain: f64) -> f64 {
        let most = self.prompt.map_or(plain, |column| column.min(plain));
        self.added.mean().unwrap_or(most).max(0.0)
    }

    /// Seconds of a draft and its pass.
    fn time(&self, width: usize) -> Option<f64> {
        let plain = self.plain?;
        let computing = plain + self.column(plain) * width as f64;
        let guessing = self.guessing.unwrap_or(0.0) * width as f64;
        let reading = self.reading.unwrap_or(0.0);
        let column = self.reading_added.mean().unwrap_or(NEW_EXPERTS * reading).max(0.0);
        Some(guessing + computing.max(reading + column * width as f64))
    }
}

/// A sum of measurements and their number, where older ones weigh less.
#[derive(Default)]
struct Sum {
    total: f64,
    count: f64,
}

impl Sum {
    /// Adds what `count` measurements sum up to; what was there weighs `1 - newest` to their power.
    fn add(&mut self, total: f64, count: f64, newest: f64) {
        let kept = libm::pow(1.0 - newest, count);
        self.total = self.total * kept + total;
        self.count = self.count * kept + count;
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.total / self.count)
    }
}

/// Moves a running mean towards a new measurement.
fn update(mean: &mut Option<f64>, measured: f64, newest: f64) {
    *mean = Some(mean.map_or(measured, |mean| mean + newest * (measured - mean)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds lost by drafting, as a part of those that plain decoding takes; and the tokens a
    /// pass in the end. A pass computes while its weights are read, which takes `reading` seconds.
    /// `right` says whether the guess at a token is right.
    fn simulate(
        computing: impl Fn(usize) -> f64,
        reading: f64,
        right: impl Fn(usize) -> bool,
    ) -> (f64, f64) {
        simulate_experts(computing, |_| reading, right, false)
    }

    /// The same, where a pass reads more the wider it is.
    fn simulate_experts(
        computing: impl Fn(usize) -> f64,
        reading: impl Fn(usize) -> f64,
        right: impl Fn(usize) -> bool,
        experts: bool,
    ) -> (f64, f64) {
        let mut width = Width::new(8, experts);
        let (mut token, mut spent, mut late) = (0, 0.0, (0, 0));
        let time = |w| computing(w).max(reading(w));
        while token < 2000 {
            let w = width.next(0);
            let accepted = (0..w).take_while(|guess| right(token + guess)).count();
            let (running, waiting) = (time(w), time(w) - computing(w));
            width.note(&Pass { drafted: w, drafting: 0.0, running, waiting }, accepted);
            spent += running;
            token += accepted + 1;
            if token > 1000 {
                late = (late.0 + accepted + 1, late.1 + 1);
            }
        }
        (spent / (token as f64 * time(0)) - 1.0, f64::from(late.0 as u32) / f64::from(late.1))
    }

    #[test]
    fn drafts_that_are_right_are_long_where_columns_are_cheap() {
        let (lost, tokens) = simulate(|w| 1.0 + 0.01 * w as f64, 0.0, |_| true);
        assert!(lost < -0.8 && tokens > 8.0, "{lost} {tokens}");
        let (lost, tokens) = simulate(|w| 1.0 + 0.01 * w as f64, 0.0, |token| token % 4 != 0);
        assert!(lost < -0.6 && tokens > 2.5, "{lost} {tokens}");
    }

    #[test]
    fn drafts_are_as_long_as_reading_hides() {
        // Sixteen columns take as long to compute as the weights to read.
        let plain = Pass { running: 16.0, waiting: 15.0, ..Pass::default() };
        let mut width = Width::new(20, false);
        width.note(&plain, 0);
        assert_eq!(width.next(0), 15);
        // A pass of a prompt says that a column takes half of that, one that reads did not hide.
        let mut width = Width::new(40, false);
        width.note_prompt(8, 4.0);
        width.note(&plain, 0);
        assert_eq!(width.next(0), 30);
        // A drafter that has fallen behind has to catch up first.
        width.note_guess(0.1);
        assert_eq!((width.next(0) > 0, width.next(200)), (true, 0));
        // Guesses are not hidden: none of these is worth its time.
        width.note_guess(80.0);
        assert_eq!(width.next(0), 0);
    }

    #[test]
    fn columns_that_read_experts_of_their_own_have_to_pay_for_them() {
        let computing = |w| 0.1 + 0.01 * w as f64;
        let simulate = |column: f64, right: fn(usize) -> bool| {
            simulate_experts(computing, |w| 1.0 + column * w as f64, right, true)
        };
        // Columns that choose nearly what the others do.
        let (lost, tokens) = simulate(0.05, |_| true);
        assert!(lost < -0.7 && tokens > 8.0, "{lost} {tokens}");
        // Three of four are right; a column costs a third of a pass.
        let (lost, tokens) = simulate(0.33, |token| token % 4 != 0);
        assert!(lost < -0.1 && tokens > 1.5, "{lost} {tokens}");
        // They cost what they save, or more.
        for column in [1.0, 1.5] {
            let (lost, _) = simulate(column, |token| token % 2 == 0);
            assert!(lost < 0.03, "{column}: {lost}");
        }
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
                for reading in [0.0, 1.5, 5.0] {
                    let (lost, _) = simulate(cost, reading, right);
                    assert!(lost < 0.03, "cost {number}, reading {reading}: {lost}");
                }
            }
        }
    }
}

//! Whether passes are faster on all threads or on the caller's alone, by measurement.
//!
//! Small models lose more by waking threads than these do, and on a busy machine a thread that has
//! to wait for its turn holds up the others. Each kind of pass keeps to the way that was faster, and
//! now and then tries the other: as seldom as makes it cheap, and sooner where it looks faster.

use std::time::Duration;

/// What is measured at once, at least: single short passes say little on a busy machine.
const WINDOW: Duration = Duration::from_millis(4);
/// The time until the next try, as a multiple of what the last one lost.
const PRICE: f64 = 100.0;
/// A try that lost so much has told enough.
const LOST: Duration = Duration::from_millis(1);
/// Where the first pass was too short to wake the others, the time until they are tried all the same,
/// for passes of [`SHORT_PASS`]. Shorter ones wait longer, by the cube: a try may lose a slice of the
/// system's time whatever a pass takes, and there is less to gain.
const FIRST: Duration = Duration::from_millis(4);
/// Passes that are shorter run on the caller's thread for some time, even where all would be faster.
pub const SHORT_PASS: Duration = Duration::from_micros(250);
/// Passes on the caller's thread count for at most so many times the shortest: the rest is time that
/// the system gave to others.
const HELD_UP: f64 = 1.25;
/// The least time between tries, however cheap.
const PATIENCE: Duration = Duration::from_millis(50);
/// Where the other way looks faster, this part of the time is enough.
const SOONER: u32 = 10;
/// Passes shorter than this are worth a first try on one thread, whatever workers did.
const SHORT: Duration = Duration::from_millis(5);
/// What is faster by less is as fast.
const FASTER: f64 = 0.97;
/// Where workers seem to save less than this part of the time, one thread is tried.
const HELPFUL: f64 = 0.15;

/// How a pass is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Together,
    Alone,
    /// On the caller's thread, and on all once it turns out to be long.
    Unknown,
}

/// What workers did in a pass.
#[derive(Clone, Copy, Default)]
pub(super) struct Help {
    /// Tasks that were shared out.
    pub(super) tasks: u64,
    /// Those of them that workers ran.
    pub(super) helped: u64,
    /// How long the caller waited for workers.
    pub(super) waited: Duration,
}

/// What was measured of each kind of passes: by the power of two of their columns.
pub(super) struct Pace {
    /// The first pass is over. It reads pages and touches memory: it says nothing of others.
    warm: bool,
    kinds: [Kind; 16],
    threads: usize,
}

#[derive(Clone, Copy, Default)]
struct Kind {
    /// A pass was recorded, and `keeps_alone` says whether it was too short to wake anybody.
    begun: bool,
    /// Seconds a column on all threads, smoothed; `None` until measured.
    together: Option<f64>,
    /// Seconds a column on the caller's thread.
    alone: Option<f64>,
    /// The way that it keeps to is `alone`.
    keeps_alone: bool,
    /// The other way is being tried.
    trying: bool,
    window: Window,
    /// Time since the other way was tried, and until it will be.
    since: Duration,
    patience: Duration,
}

/// Passes that are measured together.
#[derive(Clone, Copy, Default)]
struct Window {
    time: Duration,
    columns: u64,
    passes: u32,
    /// Seconds a column of the shortest pass.
    shortest: f64,
    help: Help,
}

impl Pace {
    pub(super) fn new(threads: usize) -> Self {
        Self { warm: false, kinds: [Kind::default(); 16], threads }
    }

    fn kind(&mut self, columns: usize) -> &mut Kind {
        let last = self.kinds.len() - 1;
        &mut self.kinds[(columns.max(1).ilog2() as usize).min(last)]
    }

    /// How the next pass, over so many columns, is to be run.
    pub(super) fn way(&mut self, columns: usize) -> Way {
        let threads = self.threads;
        let kind = self.kind(columns);
        match threads {
            ..2 => Way::Alone,
            _ if !kind.begun => Way::Unknown,
            _ if kind.is_alone() => Way::Alone,
            _ => Way::Together,
        }
    }

    /// Whether that pass ran on the caller's thread alone, what it took, and what workers did in it.
    pub(super) fn record(&mut self, columns: usize, alone: bool, time: Duration, help: Help) {
        if !std::mem::replace(&mut self.warm, true) {
            return;
        }
        let kind = self.kind(columns);
        if !kind.begun {
            (kind.begun, kind.keeps_alone) = (true, alone);
        }
        kind.window.add(columns, time, help);
        if kind.window.time >= WINDOW || kind.has_lost() {
            let window = std::mem::take(&mut kind.window);
            kind.judge(&window);
        }
    }
}

impl Kind {
    fn is_alone(&self) -> bool {
        self.keeps_alone != self.trying
    }

    /// The seconds of the way that it keeps to, and of the other.
    fn ways(&mut self) -> [&mut Option<f64>; 2] {
        let (together, alone) = (&mut self.together, &mut self.alone);
        if self.keeps_alone { [alone, together] } else { [together, alone] }
    }

    fn judge(&mut self, window: &Window) {
        let seconds = window.seconds(self.is_alone());
        let trying = self.trying;
        let [kept, other] = self.ways();
        // Tries are rare: each counts for more.
        let (way, weight) = if trying { (other, 0.5) } else { (kept, 0.25) };
        *way = Some(way.map_or(seconds, |before| before + weight * (seconds - before)));
        if trying {
            self.end_try(seconds, window);
        } else {
            self.since += window.time;
            self.trying = self.is_other_due(window);
        }
    }

    /// Whether a try has turned out to be slower.
    fn has_lost(&mut self) -> bool {
        let window = self.window;
        let kept = *self.ways()[0];
        self.trying && kept.is_some_and(|kept| window.lost(kept) > LOST.as_secs_f64())
    }

    fn end_try(&mut self, seconds: f64, window: &Window) {
        (self.trying, self.since, self.patience) = (false, Duration::ZERO, PATIENCE);
        let (Some(kept), Some(other)) = self.ways().map(|way| *way).into() else { return };
        if other < kept * FASTER {
            self.keeps_alone = !self.keeps_alone;
        } else if seconds > kept * FASTER {
            let paid = window.lost(kept).max(0.0) * PRICE;
            self.patience = Duration::try_from_secs_f64(paid).unwrap_or(PATIENCE).max(PATIENCE);
        }
        // Otherwise earlier tries were slower: another soon tells whether that has changed.
    }

    fn is_other_due(&mut self, window: &Window) -> bool {
        match self.ways().map(|way| *way).into() {
            (Some(kept), Some(other)) => {
                let sooner = if other < kept * FASTER { SOONER } else { 1 };
                self.since >= self.patience / sooner
            }
            _ if self.keeps_alone => {
                let shorter = (SHORT_PASS * window.passes).div_duration_f64(window.time);
                self.since.div_duration_f64(FIRST) >= shorter.powi(3)
            }
            _ => window.time < SHORT * window.passes || !window.is_helped(),
        }
    }
}

impl Window {
    fn add(&mut self, columns: usize, time: Duration, help: Help) {
        let columns = columns.max(1) as u64;
        let seconds = time.as_secs_f64() / columns as f64;
        self.shortest = if self.passes == 0 { seconds } else { self.shortest.min(seconds) };
        self.time += time;
        self.columns += columns;
        self.passes += 1;
        self.help.tasks += help.tasks;
        self.help.helped += help.helped;
        self.help.waited += help.waited;
    }

    /// Seconds a column.
    fn seconds(&self, alone: bool) -> f64 {
        let mean = self.time.as_secs_f64() / self.columns as f64;
        if alone { mean.min(HELD_UP * self.shortest) } else { mean }
    }

    /// Seconds that it took longer than at so many a column.
    fn lost(&self, seconds: f64) -> f64 {
        self.time.as_secs_f64() - seconds * self.columns as f64
    }

    /// Whether workers seem to save time: what the caller would have needed for their tasks is more
    /// than it waited for them.
    fn is_helped(&self) -> bool {
        let Help { tasks, helped, waited } = self.help;
        let own = tasks.saturating_sub(helped).max(1) as f64;
        let waited = waited.as_secs_f64() / self.time.as_secs_f64();
        (1.0 - waited) * helped as f64 / own - waited > HELPFUL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which passes of one column take so many microseconds, on all of two threads and
    /// on one, with workers that help or don't.
    #[derive(Clone, Copy)]
    struct Machine {
        together: u64,
        alone: u64,
        help: Help,
    }

    /// Microseconds.
    const BEGINS_ALONE: u64 = 4000;
    const HELPED: Help = Help { tasks: 800, helped: 400, waited: Duration::ZERO };
    const SMALL: Machine = Machine { together: 80, alone: 50, help: HELPED };
    const LARGE: Machine = Machine { together: 11_000, alone: 20_000, help: HELPED };
    const LATE: Help = Help { tasks: 800, helped: 200, waited: Duration::from_millis(40) };
    const BUSY: Machine = Machine { together: 60_000, alone: 24_000, help: LATE };

    impl Machine {
        /// Runs passes for some simulated seconds; how long they took, compared with the faster way.
        fn run(&self, pace: &mut Pace, seconds: u64) -> f64 {
            self.run_for(pace, Duration::from_secs(seconds))
        }

        fn run_for(&self, pace: &mut Pace, limit: Duration) -> f64 {
            let (mut time, mut passes) = (Duration::ZERO, 0);
            while time < limit {
                let alone = match pace.way(1) {
                    Way::Unknown => self.alone <= BEGINS_ALONE,
                    way => way == Way::Alone,
                };
                let micros = if alone { self.alone } else { self.together };
                let taken = Duration::from_micros(micros);
                pace.record(1, alone, taken, if alone { Help::default() } else { self.help });
                (time, passes) = (time + taken, passes + 1);
            }
            time.as_secs_f64() * 1e6 / (passes * self.alone.min(self.together)) as f64
        }
    }

    #[test]
    fn small_models_run_on_one_thread() {
        let mut pace = Pace::new(2);
        let cost = SMALL.run(&mut pace, 1);
        assert!(cost < 1.05, "{cost}");
        assert!(SMALL.run(&mut pace, 10) < 1.01);
    }

    #[test]
    fn what_helps_costs_no_try() {
        assert_eq!(LARGE.run(&mut Pace::new(2), 10), 1.0);
    }

    #[test]
    fn under_load_nothing_is_slower_than_on_one_thread_by_more_than_a_twentieth() {
        for mut pace in [Pace::new(2), {
            let mut before = Pace::new(2);
            LARGE.run(&mut before, 10);
            before
        }] {
            let cost = BUSY.run(&mut pace, 5);
            assert!(cost < 1.05, "{cost}");
        }
        for alone in [30, 75, 400] {
            let small = Machine { together: 40 * alone, alone, help: LATE };
            let cost = small.run(&mut Pace::new(2), 1);
            assert!(cost < 1.05, "{alone}: {cost}");
        }
    }

    #[test]
    fn short_texts_of_short_passes_wake_nobody_even_if_the_first_pass_is_long() {
        for alone in [30, 60, 90] {
            let (small, mut pace) = (Machine { together: 4000, alone, help: LATE }, Pace::new(2));
            pace.record(3, false, Duration::from_millis(2), LATE);
            assert_eq!(
                small.run_for(&mut pace, Duration::from_micros(500 * alone)),
                1.0,
                "{alone}"
            );
        }
    }

    #[test]
    fn time_that_the_system_gives_to_others_does_not_speak_against_one_thread() {
        let mut pace = Pace::new(2);
        let mut together = 0;
        for pass in 0..10_000 {
            let alone = pace.way(1) != Way::Together;
            let micros = match pass % 40 {
                20 if alone => 4000,
                _ if alone => 100,
                _ => 190,
            };
            pace.record(1, alone, Duration::from_micros(micros), Help::default());
            together += usize::from(!alone);
        }
        assert!(together < 500, "{together}");
    }

    #[test]
    fn where_the_load_ends_all_threads_are_used_again() {
        let mut pace = Pace::new(2);
        BUSY.run(&mut pace, 10);
        LARGE.run(&mut pace, 5);
        assert!(LARGE.run(&mut pace, 5) < 1.02);
    }

    #[test]
    fn kinds_of_passes_are_measured_apart_and_one_thread_is_always_alone() {
        let mut pace = Pace::new(2);
        SMALL.run(&mut pace, 1);
        let ways = [1, 7, 64, usize::MAX].map(|columns| pace.way(columns));
        assert!(ways == [Way::Alone, Way::Unknown, Way::Unknown, Way::Unknown]);
        assert!(Pace::new(1).way(1) == Way::Alone);
    }
}

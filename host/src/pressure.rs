//! Memory pressure, answered by leaving corrections out until it is over.

use omex_core::program::{PartKind, Parts, Program, Record};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Percent of the time that some task waited for memory: from here on there is pressure.
const PRESSURE: f64 = 5.0;
/// And below this there is none any more.
const RELIEF: f64 = 1.0;
/// How often the operating system is asked, which updates its averages every two seconds.
const INTERVAL: Duration = Duration::from_secs(2);
/// Steps between corrections in all layers and in none.
const STEPS: u32 = 4;

/// Chooses by the pressure on memory which layers play corrections: all at first. An engine that has
/// it for its [`Parts`] plays in each pass what was chosen last.
#[derive(Debug)]
pub struct PressureWatch {
    layers: u32,
    /// How many layers of [`STEPS`] play corrections.
    share: AtomicU32,
    start: Instant,
    /// When the operating system was asked last, in milliseconds from the start.
    asked: AtomicU64,
}

impl PressureWatch {
    /// A watch over a program's layers.
    #[must_use]
    pub fn new(program: &Program<'_>) -> Self {
        let layers = program
            .records()
            .map(|r| if let Record::Repeat { layers, .. } = r { layers } else { 1 });
        let (share, asked) = (AtomicU32::new(STEPS), AtomicU64::new(0));
        Self { layers: layers.max().unwrap_or(1), share, start: Instant::now(), asked }
    }

    /// Forgets what was answered, for a new text.
    pub fn restart(&self) -> &Self {
        self.share.store(STEPS, Ordering::Relaxed);
        self
    }

    /// Asks the operating system before a pass, and says whether all layers play corrections. Where
    /// it does not tell of pressure (Linux does, in `/proc/pressure/memory`), they do.
    pub fn ask(&self) -> bool {
        let now = self.start.elapsed().as_millis() as u64;
        if now.saturating_sub(self.asked.load(Ordering::Relaxed)) >= INTERVAL.as_millis() as u64 {
            self.asked.store(now, Ordering::Relaxed);
            let text = std::fs::read_to_string("/proc/pressure/memory");
            if let Some(waiting) = text.ok().as_deref().and_then(waiting) {
                self.answer(waiting);
            }
        }
        self.share.load(Ordering::Relaxed) == STEPS
    }

    /// Takes a step down under pressure or a step up without any, given the percentage of time that
    /// some task waited for memory.
    pub fn answer(&self, waiting: f64) {
        let share = self.share.load(Ordering::Relaxed);
        if waiting >= PRESSURE {
            self.share.store(share.saturating_sub(1), Ordering::Relaxed);
        } else if waiting < RELIEF {
            self.share.store((share + 1).min(STEPS), Ordering::Relaxed);
        }
    }
}

impl Parts for PressureWatch {
    /// Layers that keep their corrections are spread evenly.
    fn plays(&self, _: u16, kind: PartKind, layer: u32) -> bool {
        let layers = u64::from(self.layers.max(1));
        let full = layers * u64::from(self.share.load(Ordering::Relaxed)) / u64::from(STEPS);
        let before = |layer: u64| layer * full / layers;
        kind != PartKind::Correction || before(layer.into()) < before(u64::from(layer) + 1)
    }
}

/// The percentage of the last ten seconds in which some task waited, of a file of
/// `/proc/pressure`.
#[must_use]
pub fn waiting(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

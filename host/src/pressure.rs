//! Memory pressure, answered by leaving residual planes out until it is over.

use omex_core::program::{Planes, Program, Record};
use std::time::{Duration, Instant};

/// Percent of the time that some task waited for memory: from here on there is pressure.
const PRESSURE: f64 = 5.0;
/// And below this there is none any more.
const RELIEF: f64 = 1.0;
/// How often the operating system is asked, which updates its averages every two seconds.
const INTERVAL: Duration = Duration::from_secs(2);
/// Steps between all residual planes and none.
const STEPS: u32 = 4;

/// Chooses the planes of each pass by the pressure on memory.
#[derive(Clone, Debug)]
pub struct PressureWatch {
    layers: u32,
    /// How many of [`STEPS`] parts of the layers add their residual planes.
    parts: u32,
    asked: Instant,
}

impl PressureWatch {
    /// All planes at first.
    #[must_use]
    pub fn new(program: &Program<'_>) -> Self {
        let layers = program
            .records()
            .map(|r| if let Record::Repeat { layers, .. } = r { layers } else { 1 });
        Self { layers: layers.max().unwrap_or(1), parts: STEPS, asked: Instant::now() }
    }

    /// The planes for the next pass. Where the operating system does not tell of pressure (Linux
    /// does, in `/proc/pressure/memory`), these are all.
    pub fn planes(&mut self) -> Planes {
        if self.asked.elapsed() >= INTERVAL {
            self.asked = Instant::now();
            let text = std::fs::read_to_string("/proc/pressure/memory");
            if let Some(waiting) = text.ok().as_deref().and_then(waiting) {
                self.answer(waiting);
            }
        }
        self.current()
    }

    /// Takes a step down under pressure or a step up without any, given the percentage of time that
    /// some task waited for memory.
    pub fn answer(&mut self, waiting: f64) {
        if waiting >= PRESSURE {
            self.parts = self.parts.saturating_sub(1);
        } else if waiting < RELIEF {
            self.parts = (self.parts + 1).min(STEPS);
        }
    }

    /// The planes as of the last answer: layers that keep their residual planes are spread evenly.
    #[must_use]
    pub fn current(&self) -> Planes {
        let layers = u64::from(self.layers.max(1));
        let full = layers * u64::from(self.parts) / u64::from(STEPS);
        let before = |layer: u32| u64::from(layer) * full / layers;
        Planes::by_layer(|layer| before(layer) < before(layer + 1))
    }
}

/// The percentage of the last ten seconds in which some task waited, of a file of
/// `/proc/pressure`.
#[must_use]
pub fn waiting(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

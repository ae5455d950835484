//! A trace as a picture: panels over one axis of time. The same samples give the same text.

use super::{Sample, Trace};
use crate::markup::{escaped, put, text};
use crate::plan::{PROCESS_BYTES, Residency};
use std::fmt::Write;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 24.0;
/// Of a panel's drawing, and of what lies above it.
const HEIGHT: f64 = 120.0;
const HEADING: f64 = 44.0;

/// Colours that those who see few colours can tell apart, on light and on dark.
const STYLE: &str = "\
text{font:12px sans-serif;fill:#222}.title{font-size:15px}.right{text-anchor:end}\
.middle{text-anchor:middle}.ground{fill:#fff}.grid{stroke:#888;stroke-opacity:.35}\
.line{stroke:#222;stroke-dasharray:7 4}.limit{stroke:#c03;stroke-dasharray:2 3}\
.pinned{fill:#0072b2}.kv{fill:#009e73}.ring{fill:#e69f00}.reading{fill:#f0cf8a}\
.resident{fill:#56b4e9}.reads{fill:#cc79a7}.stalled{fill:#d55e00}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.ground{fill:#181818}.line{stroke:#ddd}\
.limit{stroke:#f58}}";

/// Something that is drawn, a value a sample.
struct Area {
    label: &'static str,
    class: &'static str,
    values: Vec<f64>,
}

/// A value that is planned.
struct Line {
    label: &'static str,
    class: &'static str,
    value: f64,
}

/// Areas on top of one another, and lines.
struct Panel {
    title: String,
    /// What one on the axis stands for.
    unit: f64,
    areas: Vec<Area>,
    lines: Vec<Line>,
}

/// The unit of bytes up to this many, and how many it has.
fn bytes_unit(most: u64) -> (&'static str, f64) {
    let units = [("GB", 1e9), ("MB", 1e6), ("KB", 1e3)];
    let unit = units.into_iter().find(|(_, size)| most as f64 >= *size);
    unit.unwrap_or(("bytes", 1.0))
}

/// Draws a trace.
pub(super) fn svg(trace: &Trace, title: &str) -> String {
    let panels = panels(trace);
    let height = 56.0 + panels.len() as f64 * (HEIGHT + HEADING) + 44.0;
    let end = trace.samples.last().map_or(0.0, |sample| sample.seconds);
    let end = trace.summary.seconds.max(end).max(1e-6);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    put(&mut svg, &format!("<title>{}</title>", escaped(title)));
    text(&mut svg, (LEFT, 28.0), "title", &escaped(title));
    let mut top = 40.0;
    let times: Vec<_> = trace.samples.iter().map(|s| s.seconds).chain([end]).collect();
    for panel in &panels {
        top += HEADING;
        Drawing { top, times: &times, end }.panel(&mut svg, panel);
        top += HEIGHT;
    }
    time_axis(&mut svg, top, end);
    svg.push_str("</svg>\n");
    svg
}

/// The marks below the last panel.
fn time_axis(svg: &mut String, bottom: f64, end: f64) {
    let (unit, size) = if end >= 1.0 { ("s", 1.0) } else { ("ms", 1e-3) };
    let (step, count) = ticks(end / size, 10.0);
    for i in 0..=count {
        let value = i as f64 * step;
        let x = LEFT + value * size / end * (WIDTH - LEFT - RIGHT);
        if x <= WIDTH - RIGHT {
            text(svg, (x, bottom + 18.0), "middle", &number(value, step));
        }
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    text(svg, (middle, bottom + 36.0), "middle", &format!("time in {unit}"));
}

fn panels(trace: &Trace) -> Vec<Panel> {
    let of = |label, class, value: fn(&Sample) -> u64| {
        let values = trace.samples.iter().map(|sample| value(sample) as f64).collect();
        Area { label, class, values }
    };
    let (plan, summary) = (&trace.plan, &trace.summary);
    let streams = plan.residency != Residency::Mapped;
    let kv = of("KV cache", "kv", |s| s.kv_bytes);
    let held = [
        of("pinned weights", "pinned", |s| s.pinned_bytes),
        of("in the ring, read", "ring", |s| s.ring_bytes),
        of("in the ring, being read", "reading", |s| s.reading_bytes),
    ];
    let planned = summary.pinned.planned + summary.ring.planned + summary.kv_cache.planned;
    let line = |label, class, bytes: u64| Line { label, class, value: bytes as f64 };
    let (unit, size) = bytes_unit(planned);
    let what = if streams { "weights and KV cache" } else { "KV cache (weights are mapped)" };
    let mut panels = vec![Panel {
        title: format!("{what} in {unit}"),
        unit: size,
        areas: std::iter::once(kv).chain(held.into_iter().filter(|_| streams)).collect(),
        lines: vec![line("planned", "line", planned)],
    }];
    if trace.samples.iter().any(|sample| sample.resident_bytes.is_some()) {
        let most = summary.budget_bytes.unwrap_or(plan.total) + PROCESS_BYTES;
        let (unit, size) = bytes_unit(most);
        panels.push(Panel {
            title: format!("resident set of the process in {unit}"),
            unit: size,
            areas: vec![of("resident", "resident", |s| s.resident_bytes.unwrap_or(0))],
            lines: vec![
                line("the whole plan", "line", plan.total),
                line("budget, and what a process takes besides", "limit", most),
            ],
        });
    }
    if streams {
        let areas = vec![of("reads", "reads", |s| s.reads.into())];
        let title = "reads under way".to_owned();
        panels.push(Panel { title, unit: 1.0, areas, lines: vec![] });
        panels.push(stalls(trace));
    }
    panels
}

/// The part of each interval in which the engine waited.
fn stalls(trace: &Trace) -> Panel {
    let ends = trace.samples.iter().skip(1).map(|s| s.seconds).chain([trace.summary.seconds]);
    let share = |(sample, end): (&Sample, f64)| match end - sample.seconds {
        length if length > 0.0 => (sample.stalled_seconds / length).min(1.0),
        _ => 0.0,
    };
    let values = trace.samples.iter().zip(ends).map(share).collect();
    Panel {
        title: "waiting for reads in % of the time".to_owned(),
        unit: 0.01,
        areas: vec![Area { label: "stalled", class: "stalled", values }],
        lines: vec![],
    }
}

/// Where a panel is drawn.
struct Drawing<'d> {
    top: f64,
    /// When each sample begins, and when the last one ends.
    times: &'d [f64],
    end: f64,
}

impl Drawing<'_> {
    fn panel(&self, svg: &mut String, panel: &Panel) {
        let samples = self.times.len().saturating_sub(1);
        let mut sums = vec![0.0; samples];
        let mut stacked = vec![];
        for area in &panel.areas {
            sums.iter_mut().zip(&area.values).for_each(|(sum, value)| *sum += value);
            stacked.push((area, sums.clone()));
        }
        let most = sums.into_iter().chain(panel.lines.iter().map(|line| line.value));
        let most = most.fold(0.0, f64::max) / panel.unit;
        let (step, count) = ticks(most, 4.0);
        let axis = step * count as f64;
        let y = |value: f64| self.top + HEIGHT * (1.0 - value / panel.unit / axis);
        for i in 0..=count {
            let (value, right) = (i as f64 * step, WIDTH - RIGHT);
            let at = y(value * panel.unit);
            put(svg, &format!("<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>"));
            text(svg, (LEFT - 6.0, at + 4.0), "right", &number(value, step));
        }
        for (area, sums) in stacked.iter().rev() {
            let path = self.steps(sums.iter().map(|sum| y(*sum)));
            put(svg, &format!("<path class=\"{}\" d=\"{path}\"/>", area.class));
        }
        for Line { class, value, .. } in &panel.lines {
            let (at, right) = (y(*value), WIDTH - RIGHT);
            put(svg, &format!("<path class=\"{class}\" d=\"M{LEFT} {at:.1}H{right}\"/>"));
        }
        self.heading(svg, panel);
    }

    /// An area below the given heights, each of which lasts until the next sample.
    fn steps(&self, heights: impl Iterator<Item = f64>) -> String {
        let x = |seconds: f64| LEFT + seconds / self.end * (WIDTH - LEFT - RIGHT);
        let bottom = self.top + HEIGHT;
        let first = self.times.first().map_or(LEFT, |seconds| x(*seconds));
        let mut path = format!("M{first:.1} {bottom:.1}");
        let mut last = None;
        for (height, seconds) in heights.zip(self.times) {
            let height = format!("{height:.1}");
            if last.as_ref() != Some(&height) {
                // Writing to a string can't fail.
                let _ = write!(path, "H{:.1}V{height}", x(*seconds));
                last = Some(height);
            }
        }
        let end = self.times.last().map_or(LEFT, |seconds| x(*seconds));
        let _ = write!(path, "H{end:.1}V{bottom:.1}Z");
        path
    }

    /// The title, and what is what where there is more than one thing.
    fn heading(&self, svg: &mut String, panel: &Panel) {
        let y = self.top - 12.0;
        text(svg, (LEFT, y), "left", &panel.title);
        let areas = panel.areas.iter().map(|area| (area.label, area.class, true));
        let lines = panel.lines.iter().map(|line| (line.label, line.class, false));
        let mut x = WIDTH - RIGHT;
        let labels: Vec<_> = areas.chain(lines).collect();
        let shown = if labels.len() > 1 { labels.len() } else { 0 };
        for (label, class, filled) in labels.into_iter().take(shown).rev() {
            x -= 6.6 * label.len() as f64;
            text(svg, (x, y), "left", label);
            x -= 22.0;
            let (middle, end) = (y - 4.0, x + 16.0);
            put(
                svg,
                &match filled {
                    true => format!(
                        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"16\" height=\"9\"/>",
                        y - 9.0
                    ),
                    false => {
                        format!("<path class=\"{class}\" d=\"M{x:.1} {middle:.1}H{end:.1}\"/>")
                    }
                },
            );
            x -= 14.0;
        }
    }
}

/// A round distance between marks of an axis, about `count` of them, and how many reach `most`.
fn ticks(most: f64, count: f64) -> (f64, usize) {
    let rough = if most > 0.0 { most / count } else { 1.0 };
    let power = 10f64.powi(rough.log10().floor() as i32);
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power);
    let step = step.fold(f64::NAN, |found, step| if found >= rough { found } else { step });
    (step, (most / step).ceil().max(1.0) as usize)
}

/// A mark's number, with the digits that its step has.
fn number(value: f64, step: f64) -> String {
    let digits = (-step.log10()).ceil().max(0.0) as usize;
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_reach_the_most() {
        for (most, count, expected) in [
            (7.3, 4.0, (2.0, 4)),
            (100.0, 4.0, (50.0, 2)),
            (0.3, 4.0, (0.1, 3)),
            (9.0, 10.0, (1.0, 9)),
            (0.0, 4.0, (1.0, 1)),
        ] {
            let (step, marks) = ticks(most, count);
            assert!(
                (step - expected.0).abs() < 1e-9 && marks == expected.1,
                "{most}: {step} {marks}"
            );
        }
        assert_eq!(number(1.5, 0.5), "1.5");
        assert_eq!(number(20.0, 10.0), "20");
    }
}

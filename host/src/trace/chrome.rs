//! Chrome's trace events: one process with a lane for passes, one for stalls, as many for reads as
//! were under way at once, and counters. Times are in microseconds.

use super::{Pass, ReadSpan, Sample, Stall, Trace};
use serde_json::{Value, json};
use std::io::{Result, Write};

const PASSES: usize = 1;
const STALLS: usize = 2;
const FIRST_READS: usize = 3;

/// Writes a trace.
pub(super) fn write(trace: &Trace, file: &mut dyn Write) -> Result<()> {
    let events = &trace.events;
    let left_out = json!({
        "reads_left_out": events.reads.left_out,
        "stalls_left_out": events.stalls.left_out,
        "passes_left_out": events.passes.left_out,
    });
    write!(file, "{{\"displayTimeUnit\":\"ms\",\"otherData\":{left_out},\"traceEvents\":[")?;
    let (lanes, count) = lanes(&events.reads.first);
    let name = |lane, name: &str| named(lane, name);
    let mut names = vec![name(PASSES, "passes"), name(STALLS, "stalls")];
    names.extend((0..count).map(|i| name(FIRST_READS + i, &format!("reads {}", i + 1))));
    let passes = events.passes.first.iter().map(pass);
    let stalls = events.stalls.first.iter().map(stall);
    let reads = events.reads.first.iter().zip(lanes).map(|(span, lane)| read(span, lane));
    let counters = trace.samples.iter().flat_map(counters);
    let all = names.into_iter().chain(passes).chain(stalls).chain(reads).chain(counters);
    for (i, event) in all.enumerate() {
        write!(file, "{}{event}", if i == 0 { "\n" } else { ",\n" })?;
    }
    file.write_all(b"\n]}\n")
}

/// A lane for each read, so that those of one lane follow one another, and the number of lanes.
fn lanes(reads: &[ReadSpan]) -> (Vec<usize>, usize) {
    let mut ends: Vec<f64> = vec![];
    let lane = |read: &ReadSpan| {
        let free = ends.iter().position(|end| *end <= read.begin);
        let lane = free.unwrap_or(ends.len());
        match ends.get_mut(lane) {
            Some(end) => *end = read.end,
            None => ends.push(read.end),
        }
        lane
    };
    let lanes = reads.iter().map(lane).collect();
    (lanes, ends.len())
}

fn named(lane: usize, name: &str) -> Value {
    json!({ "ph": "M", "name": "thread_name", "pid": 1, "tid": lane, "args": { "name": name } })
}

fn slice(name: &str, lane: usize, (begin, end): (f64, f64), args: Value) -> Value {
    let (ts, dur) = (microseconds(begin), microseconds(end) - microseconds(begin));
    json!({ "ph": "X", "name": name, "pid": 1, "tid": lane, "ts": ts, "dur": dur, "args": args })
}

fn pass(pass: &Pass) -> Value {
    slice("pass", PASSES, (pass.begin, pass.end), json!({ "tokens": pass.tokens }))
}

fn stall(stall: &Stall) -> Value {
    slice("stall", STALLS, (stall.begin, stall.end), json!({}))
}

fn read(read: &ReadSpan, lane: usize) -> Value {
    slice("read", FIRST_READS + lane, (read.begin, read.end), json!({ "bytes": read.bytes }))
}

fn counters(sample: &Sample) -> Vec<Value> {
    let ts = microseconds(sample.seconds);
    let counter =
        |name: &str, args| json!({ "ph": "C", "name": name, "pid": 1, "ts": ts, "args": args });
    let memory = json!({
        "pinned": sample.pinned_bytes,
        "KV cache": sample.kv_bytes,
        "ring, read": sample.ring_bytes,
        "ring, being read": sample.reading_bytes,
    });
    let mut counters = vec![
        counter("memory in bytes", memory),
        counter("reads under way", json!({ "reads": sample.reads })),
        counter("tokens", json!({ "tokens": sample.tokens })),
    ];
    let resident = sample.resident_bytes;
    counters.extend(resident.map(|b| counter("resident set in bytes", json!({ "bytes": b }))));
    counters
}

/// Whole nanoseconds, so that what ends when another begins does so to the last digit.
fn microseconds(seconds: f64) -> f64 {
    (seconds * 1e9).round() / 1e3
}
